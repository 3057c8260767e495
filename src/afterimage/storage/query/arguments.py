"""The types of the arguments that every read takes, and checks of single values."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypedDict

from afterimage.storage.errors import InvalidQueryError, shown

__all__ = [
    "Choice",
    "Columns",
    "Filters",
    "OrderBy",
    "Types",
    "as_list",
    "positive",
    "record_count",
    "seconds",
]

Filters = Mapping[str, Any] | Sequence[Any] | None
"""`{field: value}`, or `[(field, op, value), …]` (ANDed), or a list of such lists (ORed)."""
OrderBy = str | Sequence[str | tuple[str, int | str]] | None
"""`[(field, direction), …]`, the direction being 1, -1, "asc" or "desc"; or `"field"`, `"-field"`
for the descending order, or a list of them."""
Columns = Sequence[str] | None
"""Field paths, in the order of the result; None for all declared fields."""
Types = Mapping[str, Any] | None
"""`{field: type}` for columns of values inside metadata: the name of an Arrow type, or the type."""


class Choice(TypedDict, total=False):
    """How a read chooses among the matching records; see `docs/choosing.md`.

    Attributes:
        distinct: a field; of records with equal values, only the first one is taken.
        sample: the number of records to take at random.
        seed: selects another sample, or another split; 42 by default.
        shard: `(rank, world)`: the part of a worker of that rank, from 0, among so many.
        shuffle_seed: sorts the records at random; with `order_by`, its ties.
    """

    distinct: str | None
    sample: int | None
    seed: int | None
    shard: tuple[int, int] | None
    shuffle_seed: int | None


def as_list(value: Any, what: str) -> Iterable[Any]:
    """Return `value` if it is a list or another iterable of items; () for None.

    Args:
        value: the argument.
        what: name of the argument, for the message.

    Raises:
        InvalidQueryError: `value` is a single string, a mapping, or not iterable.
    """
    if value is None:
        return ()
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidQueryError(f"{what} must be a list, not {shown(value, 80)}")
    return value


def record_count(value: Any, what: str) -> int:
    """Return `value` if it is a number of records: an integer of 0 or more.

    A value above 2**63 - 1 is returned as 2**63 - 1, the largest that DuckDB accepts.

    Raises:
        InvalidQueryError: `value` is not an integer of 0 or more.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise InvalidQueryError(
            f"{what} must be a whole number of records, 0 or more, not {shown(value, 40)}"
        )
    return min(number, 2**63 - 1)


def seconds(value: Any, what: str) -> float:
    """Return `value` if it is a number of seconds: 0 or more, and possibly infinite.

    Raises:
        InvalidQueryError: `value` is not a number of 0 or more.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not value >= 0 or not _is_a_float(value):
        raise InvalidQueryError(
            f"{what} must be a number of seconds, 0 or more, not {shown(value, 40)}"
        )
    return value  # type: ignore[no-any-return]


def _is_a_float(value: Any) -> bool:
    try:
        float(value)
    except OverflowError:  # an integer that is too large
        return False
    return True


def positive(value: Any, what: str) -> int:
    """Return `value` if it is an integer of 1 or more.

    A value above 2**62 is returned as 2**62: DuckDB and Arrow have 64-bit integers, and add to it.

    Raises:
        InvalidQueryError: `value` is not an integer of 1 or more.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidQueryError(f"{what} must be a whole number, 1 or more, not {shown(value, 40)}")
    return min(value, 2**62)
