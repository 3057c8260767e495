"""The columns and values of a user's statement, as Python and JSON have them.

Python has no infinite dates, no year above 9999 and no interval above 999,999,999 days. The driver
replaces the first by other dates, and cannot read the last. So all values with dates or intervals
are read as text, and become Python values where there is one of equal value.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

__all__ = ["Column"]

_Parser = Callable[[Any], Any]


class Column(NamedTuple):
    """A column of the result of a statement.

    Attributes:
        name: its name; several columns can have the same.
        type: its DuckDB type in the statement.
    """

    name: str
    type: Any

    def parsed(self, *, json: bool = True) -> _Parser | None:
        """Return a function that parses the texts in a value; None if the type has none.

        Args:
            json: whether JSON texts are parsed too.
        """
        return _parser(self.type, json=json)

    def read_as(self) -> str | None:
        """Return the type that the value must be cast to before it is read; None for its own."""
        return _text_type(self.type) if _has_times(self.type) else None


def _moment(text: str) -> Any:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return text


def _date(text: str) -> Any:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return text


_INTERVAL: Final = re.compile(
    r"(?:(-?\d+) years? ?)?(?:(-?\d+) months? ?)?(?:(-?\d+) days? ?)?"
    r"(?:(-?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?)?"
)


def _interval(text: str) -> Any:
    """Return a duration, in which a month has 30 days, as the driver does."""
    found = _INTERVAL.fullmatch(text)
    if found is None:
        return text
    years, months, days, sign, *clock, fraction = found.groups(default="")
    hours, minutes, seconds = (int(each or 0) for each in clock)
    time = dt.timedelta(0, seconds, int(fraction[:6].ljust(6, "0")), 0, minutes, hours)
    whole = (12 * int(years or 0) + int(months or 0)) * 30 + int(days or 0)
    try:
        return dt.timedelta(whole) + (-time if sign else time)
    except OverflowError:
        return text


_TIMES: Final[dict[str, _Parser]] = {
    "date": _date,
    "interval": _interval,
    "timestamp": _moment,
    "timestamp_s": _moment,
    "timestamp_ms": _moment,
    "timestamp_ns": _moment,
    "timestamp with time zone": _moment,
}


def _children(kind: Any) -> list[tuple[str, Any]]:
    if kind.id not in ("list", "array", "struct", "map"):
        return []
    # The size of an array is among its children, and is no type.
    return [(name, child) for name, child in kind.children if hasattr(child, "id")]


def _has_times(kind: Any) -> bool:
    return kind.id in _TIMES or any(_has_times(child) for _, child in _children(kind))


def _text_type(kind: Any) -> str:
    """Return a type as SQL, with text instead of dates and intervals."""
    if kind.id in _TIMES:
        return "VARCHAR"
    if kind.id == "struct":
        fields = (
            '"{}" {}'.format(name.replace('"', '""'), _text_type(child))
            for name, child in kind.children
        )
        return f"STRUCT({', '.join(fields)})"
    if kind.id == "map":
        key, item = (_text_type(child) for _, child in _children(kind))
        return f"MAP({key}, {item})"
    if kind.id in ("list", "array"):
        size = dict(kind.children).get("size", "")
        return f"{_text_type(dict(kind.children)['child'])}[{size}]"
    return str(kind)


def _parser(kind: Any, *, json: bool) -> _Parser | None:
    parse = _TIMES.get(kind.id)
    if str(kind) == "JSON" and json:
        parse = from_json
    if parse is not None:
        leaf = parse
        return lambda text: None if text is None else leaf(text)
    parsers = {name: _parser(child, json=json) for name, child in _children(kind)}
    if not any(parsers.values()):
        return None
    if kind.id == "struct":
        return lambda value: value and {name: _use(parsers[name], value[name]) for name in value}
    if kind.id == "map":
        key, item = parsers["key"], parsers["value"]
        return lambda value: value and {_use(key, k): _use(item, v) for k, v in value.items()}
    return lambda value: value and [_use(parsers["child"], item) for item in value]


def _use(parser: _Parser | None, value: Any) -> Any:
    return value if parser is None else parser(value)
