"""The keys of a row that its format does not name: their names, and their way to `metadata`.

The invariant: no value replaces another; two values for one name are an error that names both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError, shown
from afterimage.storage.records.paths import parse

__all__ = ["SOURCE_FORMAT", "add_columns", "other_keys", "renamed"]

SOURCE_FORMAT: Final = "source_format"
"""The metadata key with what is needed to write a row as it was read."""


def renamed(
    row: dict[str, Any], fields: Mapping[str, str], aliases: Mapping[str, str]
) -> dict[str, Any]:
    """Return a row with the names of its keys that a format knows.

    Args:
        row: the row; it is not changed.
        fields: the user's names and those of the format, such as {"question": "instruction"}.
        aliases: the same for names that need no `fields`.

    Raises:
        InvalidRecordError: two keys have one name.

    >>> renamed({"question": "Why?", "n": 1}, {"question": "instruction"}, {})
    {'instruction': 'Why?', 'n': 1}
    """
    if not fields and aliases.keys().isdisjoint(row):
        return row
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key, value in row.items():
        name = fields.get(key) or aliases.get(key, key)
        if name in found:
            raise InvalidRecordError(
                f"keys {shown(origin[name], 40)} and {shown(key, 40)} are both read as "
                f"{shown(name, 40)}; give one of them another name with fields"
            )
        found[name] = value
        origin[name] = key
    return found


def other_keys(
    row: Mapping[str, Any], own: Collection[str]
) -> tuple[dict[str, Any], list[str] | None]:
    """Return the metadata of a row: its keys that are not in `own`, and those of its `metadata`.

    Returns:
        The metadata, and which of its keys were in an object `metadata` of the row (None: the row
        has no such object).

    Raises:
        InvalidRecordError: the row and its `metadata` have a key in common, or a key is reserved.

    >>> other_keys({"messages": [], "id": 7, "metadata": {"split": "a"}}, ["messages"])
    ({'split': 'a', 'id': 7}, ['split'])
    """
    others = {key: value for key, value in row.items() if key not in own}
    nested: list[str] | None = None
    if others and isinstance(inner := others.get("metadata"), dict):
        del others["metadata"]
        inner = {key: value for key, value in inner.items() if not _is_note(key, value)}
        if common := inner.keys() & others.keys():
            name = min(common)
            raise InvalidRecordError(
                f"key {shown(name, 40)} is in the record and in its metadata; give the first "
                "another name with fields"
            )
        nested = list(inner)
        others = {**inner, **others}
    if SOURCE_FORMAT in others:
        raise InvalidRecordError(
            f"key {SOURCE_FORMAT!r} is reserved; give it another name with fields"
        )
    return others, nested


def _is_note(key: str, value: Any) -> bool:
    # A record of ours that another tool kept as it was.
    return key == SOURCE_FORMAT and isinstance(value, dict) and "name" in value


def add_columns(
    row: dict[str, Any],
    record: Mapping[str, Any],
    columns: Collection[str],
    own: Collection[str],
    nested: Collection[str] | None = None,
) -> None:
    """Add fields of a record to a row under their last name.

    Args:
        row: the row in a format.
        record: the record.
        columns: paths such as "metadata.domain"; "metadata.*" is every key of the metadata.
        own: the keys that the format names.
        nested: the keys that "metadata.*" adds to an object `metadata`; None for no such object.

    Raises:
        InvalidQueryError: two values for one key.

    >>> row = {"messages": []}
    >>> add_columns(row, {"metadata": {"domain": "Trains"}}, ["metadata.domain"], ["messages"])
    >>> row
    {'messages': [], 'domain': 'Trains'}
    """

    def add(target: dict[str, Any], name: str, value: Any, path: str) -> None:
        if name in target or (target is row and name in own):
            raise InvalidQueryError(
                f"column {path!r} cannot be added: the row already has a key {shown(name, 40)}, "
                "or its format has; leave the column out"
            )
        target[name] = value

    for path in columns:
        steps = _steps(path)
        if not path.endswith(".*"):
            value = _value(record, steps)
            if steps == ("metadata",) and isinstance(value, dict):
                value = {key: item for key, item in value.items() if key != SOURCE_FORMAT}
            add(row, steps[-1], value, path)
            continue
        values = _value(record, steps[:-1])
        inner: dict[str, Any] = {}
        is_metadata = steps == ("metadata", "*")
        for key, value in values.items() if isinstance(values, dict) else ():
            if is_metadata and key == SOURCE_FORMAT:
                continue
            target = inner if is_metadata and nested and key in nested else row
            add(target, key, value, path)
        if is_metadata and nested is not None:
            add(row, "metadata", inner, path)


@lru_cache(maxsize=256)
def _steps(path: str) -> tuple[str, ...]:
    return parse(path)


def _value(record: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        record = record.get(step) if isinstance(record, dict) else None
    return record
