"""Print records and rows on the terminal, or as lines of JSON.

Text from the data is never interpreted as markup. Its control characters are printed as escape
sequences instead of being sent to the terminal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import click
from pydantic import BaseModel
from pydantic_core import from_json, to_json
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from afterimage.storage.errors import shorten
from afterimage.storage.models import Conversation

__all__ = ["DEFAULT_COLUMNS", "full", "json_lines", "print_count", "summary", "table"]

DEFAULT_COLUMNS = {
    "conversations": ["conversations", "evaluation.overall_grade", "final_score", "metadata"],
    "documents": ["id", "text", "personas", "metadata"],
}

_LONGEST_CELL = 200
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WIDE = 10_000


def json_lines(rows: Iterable[dict[str, Any]]) -> None:
    """Print one JSON object per line; whole metadata is printed as an object, not as text."""
    for row in rows:
        for name in ("metadata", "extra"):
            if isinstance(row.get(name), str):
                row[name] = from_json(row[name])
        click.echo(to_json(_plain(row), fallback=str, inf_nan_mode="constants"))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table with column names and one line per row."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        grid.add_column(Text(_cell(name)), no_wrap=True, overflow="ellipsis")
    for row in rows:
        numeric = (isinstance(value, int | float) for value in row)
        grid.add_row(
            *(
                Text(_cell(value), justify="right" if is_number else "left")
                for value, is_number in zip(row, numeric, strict=True)
            )
        )
    _print(grid)


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
    """Print whole records: one line per field, and one per message, labelled with its role."""
    for index, record in enumerate(records):
        grid = Table.grid(padding=(0, 2))
        grid.add_column(justify="right", style="bold")
        grid.add_column(overflow="fold")
        for name, value in _lines_of(record):
            grid.add_row(Text(name), Text(_visible(value)))
        if index:
            click.echo()
        _print(grid)


def _plain(value: Any) -> Any:
    """Return the value with floats instead of decimals, at any depth."""
    match value:
        case Decimal():
            return float(value)
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
            yield entry.role.value, entry.content
    for name, value in record:
        if name == "conversations" or value is None or value in ({}, []):
            continue
        yield name, _text(value)


def _cell(value: Any) -> str:
    return "" if value is None else _visible(shorten(_text(value), _LONGEST_CELL))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return to_json(value, fallback=str, inf_nan_mode="constants").decode()


def _visible(text: str) -> str:
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _print(grid: Table) -> None:
    """Print a table: as wide as the terminal, or untruncated if stdout is a file or a pipe."""
    if sys.stdout.isatty():
        Console(markup=False, highlight=False, emoji=False).print(grid)
        return
    console = Console(width=_WIDE, markup=False, highlight=False, emoji=False, color_system=None)
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def print_count(count: int, kind: str, where: str, *, as_json: bool) -> None:
    """Print the result of an import or an export: the number of records and the path."""
    if as_json:
        click.echo(to_json({"records": count, "kind": kind, "path": where}))
    else:
        click.echo(f"{count:,} {kind} in {where}")
