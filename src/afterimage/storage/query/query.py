"""A query as one frozen, checked value.

`Query.of` takes what users write (`filters`, `order_by`, `limit`, `offset`, `columns`), checks all
of it against the declared fields, and raises before anything is read. `predicates.py` compiles it.
This module needs no engine.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from pydantic_core import PydanticSerializationError, from_json, to_json, to_jsonable_python

from afterimage.storage.errors import InvalidQueryError, shorten, shown
from afterimage.storage.query.arguments import (
    Columns,
    Filters,
    OrderBy,
    as_list,
    record_count,
)
from afterimage.storage.records.fields import FieldType, Timestamp
from afterimage.storage.records.paths import FieldRef, resolve
from afterimage.storage.records.validation import MAX_DIGITS

__all__ = ["Condition", "Operator", "Query", "SortKey"]

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
_OPERATORS: Final[dict[str, Operator]] = {"=": "==", **{op: op for op in get_args(Operator)}}
_DESCENDING: Final = {1: False, -1: True, "asc": False, "desc": True}


@dataclass(frozen=True)
class Condition:
    """`field op value`; the value in JSON's own types, or a naive UTC datetime for a timestamp."""

    field: FieldRef
    op: Operator
    value: Any


@dataclass(frozen=True)
class SortKey:
    """One key of a sort; None is last in either direction."""

    field: FieldRef
    descending: bool


@dataclass(frozen=True)
class Query:
    """Filters, order, slice and projection, checked.

    Attributes:
        where: conditions ANDed within a group, groups ORed; () for every record.
        order: sort keys; ties, and () altogether, follow insertion order.
        limit: most records to give, None for all.
        offset: records to leave out at the start.
        columns: the projection, None for all declared fields.
        without: sequence numbers of rows to leave out, as they hold no valid record.
    """

    where: tuple[tuple[Condition, ...], ...] = ()
    order: tuple[SortKey, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[FieldRef, ...] | None = None
    without: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        fields: Mapping[str, FieldType],
        *,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        columns: Columns = None,
        projectable: Mapping[str, FieldType] | None = None,
    ) -> Query:
        """Check what the user wrote against `fields` (`columns` against `projectable`, if given).

        Raises:
            UnknownFieldError: a field that `fields` does not have.
            InvalidQueryError: anything else that has no meaning.

        >>> from afterimage.storage.records.fields import CONVERSATIONS
        >>> query = Query.of(CONVERSATIONS.record.fields, filters={"metadata.domain": "Flights"})
        >>> query.where[0][0].field.keys
        ('domain',)
        """
        return cls(
            where=_where(fields, filters),
            order=tuple(_sort_key(fields, item) for item in as_list(order_by, "order_by")),
            limit=None if limit is None else record_count(limit, "limit"),
            offset=0 if offset is None else record_count(offset, "offset"),
            columns=None if columns is None else _projection(projectable or fields, columns),
        )

    def without_slice(self) -> Query:
        """The same query over all records."""
        return replace(self, limit=None, offset=0)


def _where(fields: Mapping[str, FieldType], filters: Filters) -> tuple[tuple[Condition, ...], ...]:
    if isinstance(filters, Mapping):
        group = tuple(_condition(fields, field, "==", value) for field, value in filters.items())
        return (group,) if group else ()
    items = list(as_list(filters, "filters"))
    if not items:
        return ()
    if _is_triple(items[0]):
        return (tuple(_triple(fields, item) for item in items),)
    groups = [list(as_list(item, "a group of filters")) for item in items]
    if not all(groups):
        raise InvalidQueryError(
            "filters hold an empty group; leave it out, or give no filters to match everything"
        )
    return tuple(tuple(_triple(fields, item) for item in group) for group in groups)


def _is_triple(item: object) -> bool:
    return isinstance(item, list | tuple) and bool(item) and isinstance(item[0], str)


def _triple(fields: Mapping[str, FieldType], item: Any) -> Condition:
    if not (_is_triple(item) and len(item) == 3):
        raise InvalidQueryError(f"a filter is (field, operator, value), not {shown(item, 80)}")
    return _condition(fields, *item)


def _condition(fields: Mapping[str, FieldType], path: str, op: object, value: Any) -> Condition:
    field = resolve(fields, path)
    canonical = _OPERATORS.get(op) if isinstance(op, str) else None
    if canonical is None:
        raise InvalidQueryError(
            f"unknown operator {shown(op, 40)} for {shorten(path, 80)!r}; "
            f"known: {' '.join(_OPERATORS)}"
        )
    if canonical in ("in", "not in"):
        if not isinstance(value, list | tuple | set | frozenset):
            raise InvalidQueryError(
                f"{canonical!r} on {shorten(path, 80)!r} takes a list of values, "
                f"not {shown(value, 60)}"
            )
        return Condition(field, canonical, tuple(_value(field, item) for item in value))
    return Condition(field, canonical, _value(field, value))


def _value(field: FieldRef, value: Any) -> Any:
    """`value` as JSON has it, so that it compares with what pydantic's JSON mode stores."""
    if isinstance(field.type, Timestamp):
        return _utc(value)
    try:
        plain = to_jsonable_python(value, fallback=_scalar)
        text = to_json(plain)
        if len(text) > MAX_DIGITS:  # an integer may be too long for Python to write it
            from_json(text)
    except (PydanticSerializationError, ValueError, TypeError) as error:
        raise InvalidQueryError(
            f"{shown(value, 60)} cannot be compared with {shorten(field.path, 80)!r}: "
            f"{shorten(error)}"
        ) from None
    return plain


def _scalar(value: Any) -> Any:
    """The Python value of a numpy scalar, which is what notebooks hand over."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{type(value).__name__} has no form in JSON")
    return item()


def _utc(value: Any) -> Any:
    """A time as the column has it: UTC, naive. What is no time stays so, and never matches."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC).replace(tzinfo=None)
    return value


def _sort_key(fields: Mapping[str, FieldType], item: Any) -> SortKey:
    if not (isinstance(item, list | tuple) and len(item) == 2):
        raise InvalidQueryError(f"order_by takes (field, direction) pairs, not {shown(item, 80)}")
    path, direction = item
    key = direction.lower() if isinstance(direction, str) else direction
    if isinstance(key, bool) or not isinstance(key, int | str) or key not in _DESCENDING:
        raise InvalidQueryError(
            f"unknown direction {shown(direction, 40)} for {shorten(path, 80)!r}; "
            "use 1, -1, 'asc' or 'desc'"
        )
    return SortKey(resolve(fields, path), _DESCENDING[key])


def _projection(fields: Mapping[str, FieldType], columns: Columns) -> tuple[FieldRef, ...]:
    chosen = list(as_list(columns, "columns"))
    if not chosen:
        raise InvalidQueryError("columns is empty; name at least one field, or leave it out")
    refs = tuple(resolve(fields, path) for path in chosen)
    if len(set(chosen)) != len(chosen):
        twice = next(path for path in chosen if chosen.count(path) > 1)
        raise InvalidQueryError(f"columns names {shorten(twice, 80)!r} twice")
    return refs
