"""Print records and rows on the terminal, or as lines of JSON.

Text from the data is never interpreted as markup. All text goes through `say` or a table cell,
which print control characters as escape sequences instead of sending them to the terminal.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import click
from pydantic import BaseModel
from pydantic_core import from_json, to_json, to_jsonable_python
from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.table import Table
from rich.text import Text

from afterimage.storage.errors import counted, shorten, visible
from afterimage.storage.models import Conversation

__all__ = [
    "DEFAULT_COLUMNS",
    "full",
    "json_line",
    "json_lines",
    "output_width",
    "print_count",
    "say",
    "summary",
    "table",
]

DEFAULT_COLUMNS = {
    "conversations": ["conversations", "evaluation.overall_grade", "final_score", "metadata"],
    "documents": ["id", "text", "personas", "metadata"],
}

_LONGEST_CELL = 200
# What JSON may contain unescaped, and a terminal may act on.
_CONTROLS = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Columns of the terminal between two cells, and between a label and its text.
_GAP = 3
_LABEL_GAP = 2
# A text has this many columns, however narrow the terminal is.
_LEAST_TEXT = 10


def say(text: object, *, err: bool = False) -> None:
    """Print a text and a line feed. Control characters in the text are printed as escapes."""
    # Not with click.echo, which would write UTF-8 to a terminal for ASCII.
    stream = sys.stderr if err else sys.stdout
    stream.write(visible(str(text), keep="\n\t") + "\n")
    if err:  # where stderr is buffered, as in a caller's own stream
        stream.flush()


def json_line(line: bytes) -> None:
    r"""Print a line of JSON. On a terminal, control characters in its strings become `\uXXXX`."""
    if sys.stdout.isatty():
        text = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode())
        line = text.encode(sys.stdout.encoding or "utf-8", "replace")
    click.echo(line, nl=not line.endswith(b"\n"))


def json_lines(rows: Iterable[dict[str, Any]], parsed: Iterable[str] = ()) -> None:
    """Print one JSON object per line. NaN and the infinities, which JSON lacks, become strings.

    Args:
        rows: the objects.
        parsed: names whose values are JSON text, which is printed as what it contains.
    """
    names = list(parsed)
    for row in rows:
        for name in names:
            if isinstance(row.get(name), str):
                row[name] = from_json(row[name])
        json_line(to_json(_plain(row), fallback=str, inf_nan_mode="strings"))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table with column names and one line per row.

    Where the width is limited, long cells are cut. Columns that do not fit with their names are
    left out, and are named below the table.
    """
    names = [_cell(name) for name in columns]
    cells = [
        [
            Text(_cell(each), justify="right" if isinstance(each, int | float) else "left")
            for each in row
        ]
        for row in rows
    ]
    needed = [
        max(map(cell_len, [name, *(row[index].plain for row in cells)]))
        for index, name in enumerate(names)
    ]
    widths = needed
    if (space := output_width()) is not None:
        widths = _fitting(needed, [*map(cell_len, names)], space)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, width in zip(names, widths, strict=False):
        grid.add_column(Text(name), no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        grid.add_row(*row[: len(widths)])
    _print(grid, sum(widths) + _GAP * len(widths))
    if left_out := names[len(widths) :]:
        say(f"Columns that do not fit: {', '.join(left_out)}. Use --json or a wider terminal.")


def output_width() -> int | None:
    """Return the width to print for; None if there is no limit, as in a file.

    It is `COLUMNS`, if that is set, as for other programs, or the width of the terminal.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    return Console().width if sys.stdout.isatty() else None


def _fitting(needed: Sequence[int], least: Sequence[int], space: int) -> list[int]:
    """Return the widths of as many columns as fit, from the left, and at least one.

    Args:
        needed: the width of the longest cell of each column.
        least: the width of its name, which is never cut.
        space: the width of the terminal.
    """
    count, used = 0, 0
    while count < len(least) and (not count or used + least[count] <= space):
        used += least[count] + _GAP
        count += 1
    left = space - _GAP * (count - 1)
    if count == 1:
        return [min(needed[0], space)]
    # All columns get the same width, except those that need less or whose name is longer.
    low, high = 0, space
    while low < high:
        middle = (low + high + 1) // 2
        total = sum(
            max(name, min(want, middle)) for name, want in zip(least[:count], needed, strict=False)
        )
        low, high = (middle, high) if total <= left else (low, middle - 1)
    return [max(name, min(want, low)) for name, want in zip(least[:count], needed, strict=False)]


def summary(kind: str, rows: Iterable[dict[str, Any]]) -> None:
    """Print one row per record. The rows must have the `DEFAULT_COLUMNS` of the kind."""
    if kind == "documents":
        names = ["id", "text", "personas", "metadata"]
        table(names, ([r["id"], r["text"], len(r["personas"]), r["metadata"]] for r in rows))
        return
    names = ["turns", "first message", "grade", "score", "metadata"]
    table(
        names,
        (
            [len(messages), messages[0]["content"] if messages else None, grade, score, metadata]
            for messages, grade, score, metadata in map(dict.values, rows)
        ),
    )


def full(records: Iterable[BaseModel]) -> None:
    """Print whole records: one line per field, and one per message, labelled with its role.

    The time is proportional to the length of the text.
    """
    wide = output_width()
    labelled = click.style("{}", bold=True) if sys.stdout.isatty() else "{}"
    for index, record in enumerate(records):
        fields = [(visible(name), value) for name, value in _lines_of(record)]
        margin = max((cell_len(name) for name, _ in fields), default=0)
        space = None if wide is None else max(_LEAST_TEXT, wide - margin - _LABEL_GAP)
        if index:
            sys.stdout.write("\n")
        for name, value in fields:
            label = " " * (margin - cell_len(name)) + labelled.format(name)
            for line in visible(value, keep="\n\t").expandtabs().split("\n"):
                for part in [line] if space is None else _wrapped(line, space):
                    sys.stdout.write(f"{label}{' ' * _LABEL_GAP}{part}".rstrip() + "\n")
                    label = " " * margin


def _wrapped(line: str, space: int) -> Iterable[str]:
    """Yield a line in parts of at most `space` columns of a terminal, cut between words."""
    start = 0
    while True:
        part = line[start : start + space]
        if not part.isascii() and cell_len(part) > space:
            part = chop_cells(part, space)[0]
        end = start + len(part)
        if end == len(line):
            yield part
            return
        cut = end if line[end] == " " else line.rfind(" ", start, end)
        if cut <= start:  # a word that is longer than the line
            yield part
            start = end
        else:
            yield line[start:cut]
            start = cut + 1


def _plain(value: Any) -> Any:
    """Return the value with floats instead of decimals and text instead of bytes, at any depth."""
    match value:
        case Decimal():
            return float(value)
        case bytes():
            return value.decode(errors="backslashreplace")
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return value


def _lines_of(record: BaseModel) -> Iterable[tuple[str, str]]:
    if isinstance(record, Conversation):
        for entry in record.conversations:
            if entry.reasoning_content:
                yield "reasoning", entry.reasoning_content
            name = getattr(entry, "name", None)
            role = entry.role.value if name is None else f"{entry.role.value} {name}"
            calls: Sequence[Any] = getattr(entry, "tool_calls", None) or ()
            if entry.content is not None or not calls:
                yield role, _content(entry.content)
            for call in calls:
                yield "tool call", _text(call)
    for name, value in record:
        if name == "conversations" or value is None or value in ({}, []):
            continue
        yield name, _text(value)


def _content(content: Any) -> str:
    """Return the content of a message; each part that is not text as JSON on a line."""
    parts = content if isinstance(content, list) else [content]
    return "\n".join("" if each is None else _part(each) for each in parts)


def _part(part: Any) -> str:
    is_text = isinstance(part, dict) and isinstance(part.get("text"), str)
    return part["text"] if is_text else _text(part)


def _cell(value: Any) -> str:
    return "" if value is None else shorten(_text(value), _LONGEST_CELL)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    plain = to_jsonable_python(_plain(value), fallback=str, inf_nan_mode="constants")
    # A time and other values that JSON has as a string are printed as such a string.
    return plain if isinstance(plain, str) else to_json(plain, inf_nan_mode="constants").decode()


def _print(grid: Table, wide: int) -> None:
    """Print a table: as wide as the terminal, or `wide` if stdout is a file or a pipe."""
    if sys.stdout.isatty():
        Console(markup=False, highlight=False, emoji=False).print(grid)
        return
    console = Console(width=wide, markup=False, highlight=False, emoji=False, color_system=None)
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        say(line.rstrip())


def _name_of(path: str) -> str:
    """Return a path as JSON can have it."""
    return os.fsencode(path).decode(errors="backslashreplace")


def print_count(
    count: int, kind: str, where: str, path: str, *, as_json: bool, others: int | None = None
) -> None:
    """Print the result of an import or an export: the number of records and the path.

    Args:
        count: the number of records.
        kind: their kind.
        where: the path with "into" or "to".
        path: the path.
        as_json: whether to print a line of JSON.
        others: how many of them are records of other models; None for an export.
    """
    if as_json:
        known = {} if others is None else {"others": others}
        json_line(to_json({"records": count, **known, "kind": kind, "path": _name_of(path)}))
    else:
        more = f" and {counted(others, 'records of other models')}" if others else ""
        done = "exported" if others is None else "imported"
        say(f"{counted(count - (others or 0), kind)}{more} {done} {where}")
