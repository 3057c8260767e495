"""`Query`: a query as one frozen, checked value.

`Query.of` checks the user's arguments (`filters`, `order_by`, `limit`, `offset`, `columns`) against
the declared fields, and raises an error before any data is read. `predicates.py` compiles the query
to SQL. This module does not import the engine.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, Literal, get_args

from pydantic_core import PydanticSerializationError, from_json, to_json, to_jsonable_python

from afterimage.storage.errors import InvalidQueryError, shorten, shown
from afterimage.storage.query.arguments import (
    Choice,
    Columns,
    Filters,
    OrderBy,
    as_list,
    record_count,
)
from afterimage.storage.records.fields import FieldType, Json, List, Text, Timestamp
from afterimage.storage.records.paths import FieldRef, resolve
from afterimage.storage.records.validation import MAX_DIGITS

__all__ = [
    "DEFAULT_SEED",
    "IDENTITY",
    "Condition",
    "Operator",
    "Query",
    "Sample",
    "Share",
    "SortKey",
    "seed_value",
    "share_of",
]

Positive = Literal[
    "==", "<", "<=", ">", ">=", "in", "contains", "icontains", "startswith", "matches", "has"
]
"""An operator that is not the negation of another one."""
Operator = Literal[
    Positive,
    "!=",
    "not in",
    "not contains",
    "not icontains",
    "not startswith",
    "not matches",
    "not has",
]
_NEGATED: Final[dict[Operator, Positive]] = {
    "!=": "==",
    "not in": "in",
    "not contains": "contains",
    "not icontains": "icontains",
    "not startswith": "startswith",
    "not matches": "matches",
    "not has": "has",
}
_OPERATORS: Final[dict[str, Operator]] = {"=": "==", **{op: op for op in get_args(Operator)}}
_TEXT_OPERATORS: Final = ("contains", "icontains", "startswith", "matches")
DEFAULT_SEED: Final = 42
"""The seed of samples and splits without one."""
_DESCENDING: Final = {1: False, -1: True, "asc": False, "desc": True}


@dataclass(frozen=True)
class Condition:
    """`field op value`. The value is a JSON value, or a naive UTC datetime for a timestamp."""

    field: FieldRef
    op: Operator
    value: Any

    @property
    def is_negated(self) -> bool:
        """Whether the condition is the exact negation of another one."""
        return self.op in _NEGATED

    @property
    def positive(self) -> Positive:
        """The operator, or the one that it negates."""
        return _NEGATED.get(self.op, self.op)  # type: ignore[arg-type]


@dataclass(frozen=True)
class SortKey:
    """One key of a sort. None is sorted last in both directions.

    Attributes:
        field: the field to sort by.
        descending: the direction.
        seed: if given, the records are shuffled with this seed instead.
    """

    field: FieldRef
    descending: bool
    seed: int | None = None


IDENTITY: Final = FieldRef("content_hash", "content_hash", (), (), Text())
"""The field that samples, shuffled orders and shards are computed from."""


@dataclass(frozen=True)
class Sample:
    """The records with the lowest keys."""

    count: int
    seed: int


@dataclass(frozen=True)
class Share:
    """The records whose key, or that of their group, lies in an interval; see `choosing.py`.

    Attributes:
        use: what the key is for: "shard" or "split".
        seed: the seed of the key.
        low: the lowest key, as 32 hexadecimal digits.
        high: the highest key; None for the highest of all.
        by: the field whose value groups the records; None for the records themselves.
    """

    use: str
    seed: int
    low: str
    high: str | None
    by: FieldRef | None = None


@dataclass(frozen=True)
class Query:
    """Checked filters, order, slice and projection.

    Attributes:
        where: groups of conditions. Conditions in a group are ANDed, groups are ORed; () matches
            every record.
        order: sort keys. Ties, and all records if it is (), are in insertion order.
        limit: maximum number of records to return; None for all.
        offset: number of records to skip at the start.
        columns: the projection; None for all declared fields.
        without: sequence numbers of the rows to skip because they are corrupt.
        numbered: whether to skip rows without a sequence number.
        distinct: the field of which each value is taken once; resolved before a backend reads.
        sample: the sample to take, likewise.
        shares: the shares that the records must be in.
        only: sequence numbers of the rows to read, ascending; None for all.
    """

    where: tuple[tuple[Condition, ...], ...] = ()
    order: tuple[SortKey, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[FieldRef, ...] | None = None
    without: tuple[int, ...] = ()
    numbered: bool = False
    distinct: FieldRef | None = None
    sample: Sample | None = None
    shares: tuple[Share, ...] = ()
    only: tuple[int, ...] | None = None

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
        choice: Choice | None = None,
    ) -> Query:
        """Return the checked query of the user's arguments.

        Args:
            fields: the fields that filters, sort keys and columns may name.
            limit: maximum number of records to return.
            offset: number of records to skip.
            filters: see `Filters`.
            order_by: see `OrderBy`.
            columns: see `Columns`.
            projectable: the fields that columns may name, if they differ from `fields`.
            choice: see `Choice`.

        Raises:
            UnknownFieldError: an argument names a field that does not exist.
            InvalidQueryError: an argument is not valid.

        >>> from afterimage.storage.records.fields import CONVERSATIONS
        >>> query = Query.of(CONVERSATIONS.record.fields, filters={"metadata.domain": "Flights"})
        >>> query.where[0][0].field.keys
        ('domain',)
        """
        chosen = choice or {}
        _check_names(chosen)
        order = [_sort_key(fields, item) for item in _sort_items(order_by)]
        if (shuffle := chosen.get("shuffle_seed")) is not None:
            order.append(
                SortKey(IDENTITY, descending=False, seed=seed_value(shuffle, "shuffle_seed"))
            )
        distinct = chosen.get("distinct")
        return cls(
            where=_where(fields, filters),
            order=tuple(order),
            distinct=None if distinct is None else resolve(fields, distinct),
            sample=_sample(chosen),
            shares=_shard(chosen.get("shard")),
            limit=None if limit is None else record_count(limit, "limit"),
            offset=0 if offset is None else record_count(offset, "offset"),
            columns=None if columns is None else _projection(projectable or fields, columns),
        )

    def used_fields(self) -> Iterator[FieldRef]:
        """Return the fields that the filters and the order name."""
        yield from (condition.field for group in self.where for condition in group)
        yield from (key.field for key in self.order)
        yield from (share.by or IDENTITY for share in self.shares)
        yield from [IDENTITY] * any(share.by for share in self.shares)

    @property
    def is_chosen(self) -> bool:
        """Whether the rows to read are still to be chosen; see `distinct` and `sample`."""
        return self.distinct is not None or self.sample is not None

    def between(self, low: int, high: int) -> Query:
        """Return the same query with only those numbers of `only` that lie in a range."""
        if self.only is None:
            return self
        start, end = bisect_left(self.only, low), bisect_right(self.only, high)
        return replace(self, only=self.only[start:end])

    def without_slice(self) -> Query:
        """Return the same query without limit and offset."""
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
            "filters contain an empty group; remove it, or give no filters to match all records"
        )
    return tuple(tuple(_triple(fields, item) for item in group) for group in groups)


def _is_triple(item: object) -> bool:
    return isinstance(item, list | tuple) and bool(item) and isinstance(item[0], str)


def _triple(fields: Mapping[str, FieldType], item: Any) -> Condition:
    if not (_is_triple(item) and len(item) == 3):
        raise InvalidQueryError(f"a filter must be (field, operator, value), not {shown(item, 80)}")
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
                f"{canonical!r} on {shorten(path, 80)!r} requires a list of values, "
                f"not {shown(value, 60)}"
            )
        return Condition(field, canonical, tuple(_value(field, item) for item in value))
    condition = Condition(field, canonical, _value(field, value))
    if condition.positive in _TEXT_OPERATORS:
        _check_text(condition)
    elif condition.positive == "has" and not isinstance(field.type, Json | List):
        raise InvalidQueryError(f"{canonical!r} is for lists; {shorten(path, 80)!r} has none")
    return condition


def _check_text(condition: Condition) -> None:
    """Raise an error if an operator for text can match nothing, or its pattern is not valid."""
    op, path, value = condition.op, shorten(condition.field.path, 80), condition.value
    if not isinstance(condition.field.type, Text | Json):
        raise InvalidQueryError(f"{op!r} is for text; {path!r} has none")
    if not isinstance(value, str):
        raise InvalidQueryError(f"{op!r} on {path!r} requires a string, not {shown(value, 60)}")
    if condition.positive == "matches":
        from afterimage.storage.engine.users.patterns import pattern_fault  # noqa: PLC0415  loads DuckDB

        fault = pattern_fault(value)
        if fault is not None:
            raise InvalidQueryError(
                f"the pattern of {op!r} on {path!r} is not a regular expression of RE2: {fault}"
            )


def _value(field: FieldRef, value: Any) -> Any:
    """Return `value` as a JSON value, comparable with the values that pydantic's JSON mode saves.

    Raises:
        InvalidQueryError: the value cannot be written as JSON.
    """
    if isinstance(field.type, Timestamp):
        return _utc(value)
    try:
        plain = to_jsonable_python(value, fallback=_scalar)
        text = to_json(plain)
        if len(text) > MAX_DIGITS:  # it may contain an integer that no parser here accepts
            from_json(text)
    except (PydanticSerializationError, ValueError, TypeError) as error:
        raise InvalidQueryError(
            f"{shown(value, 60)} cannot be compared with {shorten(field.path, 80)!r}: "
            f"{shorten(error)}"
        ) from None
    return plain


def _scalar(value: Any) -> Any:
    """Return the Python value of a numpy scalar. Notebooks often pass numpy scalars."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    return item()


def _utc(value: Any) -> Any:
    """Return a time as a naive UTC datetime, like the column.

    Any other value is returned unchanged; it matches no time.
    """
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC).replace(tzinfo=None)
    return value


def _check_names(choice: Mapping[str, Any]) -> None:
    known = Choice.__annotations__
    for name in choice:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else f" Known: {', '.join(known)}."
            raise TypeError(f"unexpected keyword argument {shorten(repr(name), 60)}.{hint}")


def seed_value(value: Any, what: str = "seed") -> int:
    """Return `value` if it is a seed: any integer.

    Raises:
        InvalidQueryError: `value` is not an integer, or has more than 64 bits.
    """
    try:
        seed = -(2**64) if isinstance(value, bool) else operator.index(value)
    except TypeError:
        seed = -(2**64)
    if not -(2**63) <= seed < 2**64:
        raise InvalidQueryError(
            f"{what} must be an integer of at most 64 bits, not {shown(value, 40)}"
        )
    return seed


def _sample(choice: Choice) -> Sample | None:
    count, seed = choice.get("sample"), choice.get("seed")
    if count is None:
        if seed is not None:
            raise InvalidQueryError("seed is for sample or split; for an order, use shuffle_seed")
        return None
    return Sample(record_count(count, "sample"), DEFAULT_SEED if seed is None else seed_value(seed))


def _shard(shard: Any) -> tuple[Share, ...]:
    if shard is None:
        return ()
    items = list(shard) if isinstance(shard, list | tuple) else []
    if len(items) == 2 and all(type(item) is int for item in items) and 0 <= items[0] < items[1]:
        rank, world = items
        return (share_of("shard", 0, Fraction(rank, world), Fraction(rank + 1, world)),)
    raise InvalidQueryError(
        f"shard must be (rank, world) with 0 <= rank < world, not {shown(shard, 60)}"
    )


def share_of(
    use: str, seed: int, start: Fraction, end: Fraction, by: FieldRef | None = None
) -> Share:
    """Return the share of the keys from `start` up to `end`, as fractions of all keys."""
    low, high = (math.ceil(limit * 2**128) for limit in (start, end))
    return Share(use, seed, f"{low:032x}", None if end >= 1 else f"{high - 1:032x}", by)


def _sort_items(order_by: OrderBy) -> Iterable[Any]:
    return [order_by] if isinstance(order_by, str) else as_list(order_by, "order_by")


def _sort_key(fields: Mapping[str, FieldType], item: Any) -> SortKey:
    if isinstance(item, str):
        return SortKey(resolve(fields, item.removeprefix("-")), item.startswith("-"))
    if not (isinstance(item, list | tuple) and len(item) == 2):
        raise InvalidQueryError(
            "order_by must contain 'field', '-field' or (field, direction) pairs, not "
            f"{shown(item, 80)}"
        )
    path, direction = item
    key = direction.lower() if isinstance(direction, str) else direction
    if isinstance(key, bool) or not isinstance(key, int | str) or key not in _DESCENDING:
        raise InvalidQueryError(
            f"unknown direction {shown(direction, 40)} for {shorten(path, 80)!r}; "
            "use 1, -1, 'asc' or 'desc'"
        )
    return SortKey(_of_record(resolve(fields, path)), _DESCENDING[key])


def _projection(fields: Mapping[str, FieldType], columns: Columns) -> tuple[FieldRef, ...]:
    chosen = list(as_list(columns, "columns"))
    if not chosen:
        raise InvalidQueryError("columns is empty; name at least one field, or omit it")
    refs = tuple(_of_record(resolve(fields, path)) for path in chosen)
    if len(set(chosen)) != len(chosen):
        duplicate = next(path for path in chosen if chosen.count(path) > 1)
        raise InvalidQueryError(f"columns names {shorten(duplicate, 80)!r} twice")
    return refs


def _of_record(field: FieldRef) -> FieldRef:
    """Return a field that has one value for each record.

    Raises:
        InvalidQueryError: it has one for each message.
    """
    if field.of_message:
        raise InvalidQueryError(
            f"{shorten(field.path, 80)!r} has a value for each message, so it is only for filters"
        )
    return field
