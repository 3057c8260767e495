"""The oracle: a second implementation of queries, in plain Python over loaded models.

It shares no code with the package. Values compare as in JSON: exact numbers, booleans that are not
numbers, NaN equal to NaN and above every number, strings by code point. `select` is the whole
of filters, order, offset and limit; `same` also distinguishes 1 from 1.0 and 0.0 from
-0.0, which a round trip must keep.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

Model = TypeVar("Model", bound=BaseModel)

NEGATED = {
    "!=": "==",
    "not in": "in",
    **{f"not {op}": op for op in ("contains", "icontains", "startswith", "matches", "has")},
}
_STEP = re.compile(r'"((?:[^"]|"")*)"|([^.]+)')


def select(
    records: Iterable[Model],
    filters: Any = None,
    order_by: Sequence[tuple[str, int | str]] | None = None,
    limit: int | None = None,
    offset: int | None = None,
) -> list[Model]:
    """The records that a query returns; `records` are in insertion order."""
    return select_rows(with_rows(records), filters, order_by, limit, offset)


def with_rows(records: Iterable[Model]) -> list[tuple[Model, dict[str, Any]]]:
    """Each record with its plain values, for many `select_rows` over the same records."""
    return [(record, plain(record)) for record in records]


def select_rows(
    rows: list[tuple[Model, dict[str, Any]]],
    filters: Any = None,
    order_by: Sequence[tuple[str, int | str]] | None = None,
    limit: int | None = None,
    offset: int | None = None,
) -> list[Model]:
    kept = [(record, row) for record, row in rows if matches(row, filters)]
    for path, direction in reversed(order_by or []):
        # Sorting by the last key first keeps ties in the order of the keys after it, and at the
        # bottom in insertion order; `reverse` keeps ties as they are.
        known = [item for item in kept if value_at(item[1], path) is not None]
        unknown = [item for item in kept if value_at(item[1], path) is None]
        known.sort(
            key=lambda item: rank(value_at(item[1], path)),
            reverse=direction in (-1, "desc"),
        )
        kept = known + unknown
    start = offset or 0
    stop = None if limit is None else start + limit
    return [record for record, _ in kept[start:stop]]


def as_saved(
    loaded: Iterable[Model], saved: Iterable[BaseModel]
) -> list[tuple[Model, dict[str, Any]]]:
    """Loaded records with their rows, and the content hash of what was saved.

    A load can leave out the messages' fields of a subclass. They are part of the hash.
    """
    pairs = zip(loaded, saved, strict=True)
    return [
        (own, {**plain(own), "content_hash": plain(whole)["content_hash"]}) for own, whole in pairs
    ]


def plain(record: BaseModel) -> dict[str, Any]:
    """The record as a dict of plain Python values, computed fields too; enums become strings."""
    row: dict[str, Any] = without_enums(record.model_dump(mode="python"))
    return {**computed(row), **row}


def computed(row: dict[str, Any]) -> dict[str, Any]:
    """The fields that follow from a record."""
    messages = row.get("conversations")
    if not isinstance(messages, list):
        text = row.get("text")
        return {"content_hash": md5(sized(text)), "character_count": len(text or "")}
    roles = [message["role"] for message in messages]
    contents = [text_of(message.get("content")) or "" for message in messages]
    return {
        "content_hash": content_hash(messages),
        "message_count": len(messages),
        "first_role": roles[0] if roles else None,
        "last_role": roles[-1] if roles else None,
        "character_count": sum(map(len, contents)),
    }


def key(use: str, seed: int, identity: str) -> str:
    """The key of a choice, as the docs define it."""
    return md5(f"{use}:{seed}:{identity}")


def group(row: dict[str, Any], path: str) -> str | None:
    value = value_at(row, path)
    if value is None:
        return None
    return str(value) if path == "content_hash" else canonical(value)


def chosen(records: Iterable[Model], **query: Any) -> list[Model]:
    """The records that a query with a choice returns; `records` are in insertion order."""
    return chosen_rows(with_rows(records), **query)


def chosen_rows(
    rows: list[tuple[Model, dict[str, Any]]],
    *,
    filters: Any = None,
    distinct: str | None = None,
    sample: int | None = None,
    seed: int = 42,
    shard: tuple[int, int] | None = None,
    shuffle_seed: int | None = None,
    order_by: Sequence[tuple[str, int | str]] | None = None,
    limit: int | None = None,
    offset: int | None = None,
) -> list[Model]:
    kept = [item for item in rows if matches(item[1], filters)]
    if distinct is not None:
        values = [group(row, distinct) for _, row in kept]
        kept = [
            item
            for index, item in enumerate(kept)
            if values[index] is None or values[index] not in values[:index]
        ]
    if sample is not None:
        by_key = sorted(
            range(len(kept)), key=lambda index: key("sample", seed, kept[index][1]["content_hash"])
        )
        kept = [kept[index] for index in sorted(by_key[:sample])]
    if shard is not None:
        rank, world = shard
        keys = [int(key("shard", 0, row["content_hash"]), 16) for _, row in kept]
        kept = [item for item, k in zip(kept, keys, strict=True) if k * world // 2**128 == rank]
    if shuffle_seed is not None:
        kept.sort(key=lambda item: key("shuffle", shuffle_seed, item[1]["content_hash"]))
    return select_rows(kept, None, order_by, limit, offset)


def content_hash(messages: list[dict[str, Any]]) -> str:
    """The definition of the docs, in other words."""
    plain_keys = ["role", "content", "reasoning_content"]
    hashed = [sized(text_of(message.get(key))) for message in messages for key in plain_keys]
    others = {
        str(number): {
            key: value
            for key, value in message.items()
            if value is not None and (key not in plain_keys or isinstance(value, list))
        }
        for number, message in enumerate(messages)
    }
    others = {number: keys for number, keys in others.items() if keys}
    return md5("".join(hashed) + (canonical(others) if others else ""))


def canonical(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f'"{md5(value)}"'
    if isinstance(value, list):
        return f"({md5(','.join(map(canonical, value)))})"
    if isinstance(value, dict):
        return f"<{md5(','.join(sorted(f'{canonical(k)}:{canonical(value[k])}' for k in value)))}>"
    if is_nan(value):
        return "NaN"
    if isinstance(value, int) or (value.is_integer() and abs(value) < 2**53):
        return str(int(value))
    return "".join(f"{byte:08b}" for byte in struct.pack(">d", value))


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def sized(text: str | None) -> str:
    return "-" if text is None else f"{len(text.encode())}:{text}"


def text_of(content: Any) -> str | None:
    """The text of a content: a string, content parts or null."""
    if isinstance(content, list):
        texts = [part["text"] for part in content if isinstance(part.get("text"), str)]
        return "\n".join(texts) if texts else None
    return content  # type: ignore[no-any-return]


def without_enums(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: without_enums(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_enums(item) for item in value]
    return value


def steps_of(path: str) -> list[str]:
    """`a."b.c".d` -> ["a", "b.c", "d"]"""
    return [
        quoted.replace('""', '"') if bare == "" else bare for quoted, bare in _STEP.findall(path)
    ]


def path_of(*steps: str) -> str:
    """A path with exactly these steps, quoted only if necessary."""
    return ".".join(
        step if re.fullmatch(r"\w+", step, re.ASCII) else '"' + step.replace('"', '""') + '"'
        for step in steps
    )


def value_at(row: Any, path: str) -> Any:
    """The value at the path; None if there is none."""
    for step in steps_of(path):
        if not isinstance(row, dict):
            return None
        row = row.get(step)
    return row


def matches(row: dict[str, Any], filters: Any) -> bool:
    if not filters:
        return True
    if isinstance(filters, dict):
        return all(holds(row, field, "==", value) for field, value in filters.items())
    groups = [filters] if isinstance(filters[0][0], str) else filters
    return any(group_holds(row, group) for group in groups)


def group_holds(row: dict[str, Any], group: Any) -> bool:
    """Whether all conditions hold; those on messages that are not negated for the same one."""
    shared = [each for each in group if of_message(each[0]) and each[1] not in NEGATED]
    others = [each for each in group if each not in shared]
    return all(holds(row, *each) for each in others) and (not shared or some_message(row, shared))


def of_message(path: str) -> bool:
    return steps_of(path)[0] == "messages"


def some_message(row: dict[str, Any], conditions: Any) -> bool:
    messages = [
        {"messages": {**message, "content": text_of(message["content"])}}
        for message in row["conversations"]
    ]
    return any(
        all(value_holds(value_at(message, path), op, wanted) for path, op, wanted in conditions)
        for message in messages
    )


def simple_fold(text: str) -> str:
    """Simple case folding of Unicode: a character for a character."""
    return "".join(map(_simple_fold, text))


def _simple_fold(character: str) -> str:
    folded, lower = character.casefold(), character.lower()
    return folded if len(folded) == 1 else lower if len(lower) == 1 else character


TEXT_TESTS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda found, wanted: wanted in found,
    "icontains": lambda found, wanted: simple_fold(wanted) in simple_fold(found),
    "startswith": str.startswith,
    "matches": lambda found, wanted: re.search(wanted, found, re.ASCII) is not None,
}


def holds(row: dict[str, Any], path: str, op: str, wanted: Any) -> bool:
    if op in NEGATED:
        return not holds(row, path, NEGATED[op], wanted)
    if of_message(path):
        return some_message(row, [(path, op, wanted)])
    return value_holds(value_at(row, path), op, wanted)


def value_holds(found: Any, op: str, wanted: Any) -> bool:
    if op in TEXT_TESTS:
        return isinstance(found, str) and bool(TEXT_TESTS[op](found, wanted))
    if op == "has":
        wanted = to_jsonable_python(wanted)
        return isinstance(found, list) and any(equal(item, wanted) for item in found)
    if op == "in":
        return any(equal(found, to_jsonable_python(item)) for item in wanted)
    wanted = to_jsonable_python(wanted)
    if op in ("==", "="):
        return equal(found, wanted)
    if kind(found) != kind(wanted) or kind(found) not in ("boolean", "number", "string"):
        return False
    left, right = rank(found), rank(wanted)
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[op]


def kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):  # before numbers: Python's True is an int, JSON's is not
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names[type(value)]


def equal(left: Any, right: Any) -> bool:
    """Equality of JSON values."""
    if kind(left) != kind(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[k], right[k]) for k in left)
    return left == right or (is_nan(left) and is_nan(right))


def rank(value: Any) -> tuple[Any, ...]:
    """The sort key of a value that is not None, in the total order of all values."""
    if isinstance(value, bool):
        return (0, value)
    if isinstance(value, int | float):
        return (1, True, 0) if is_nan(value) else (1, False, value)
    if isinstance(value, str):
        return (2, value)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return (3 if isinstance(value, list) else 4, text)


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def same(left: Any, right: Any) -> bool:
    """Strict equality: type, sign of zero and order of keys; NaN equals NaN."""
    if isinstance(left, BaseModel) or isinstance(right, BaseModel):
        return type(left) is type(right) and same(fields_of(left), fields_of(right))
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, float):
        return (is_nan(left) and is_nan(right)) or (
            left == right and math.copysign(1, left) == math.copysign(1, right)
        )
    return bool(left == right)


def fields_of(model: BaseModel) -> dict[str, Any]:
    return {**model.__dict__, **(model.__pydantic_extra__ or {})}
