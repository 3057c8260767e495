"""Records and rows on the terminal, or as lines of JSON.

What comes from the data is never read as markup, and its control characters are shown, not sent to
the terminal.
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
    """A JSON object a line; whole metadata is an object in it, not text."""
    for row in rows:
        for name in ("metadata", "extra"):
            if isinstance(row.get(name), str):
                row[name] = from_json(row[name])
        click.echo(to_json(_plain(row), fallback=str, inf_nan_mode="constants"))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under the names of their columns, each on one line."""
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        found.add_column(Text(_cell(name)), no_wrap=True, overflow="ellipsis")
    for row in rows:
        numeric = (isinstance(value, int | float) for value in row)
        found.add_row(
            *(
                Text(_cell(value), justify="right" if is_number else "left")
                for value, is_number in zip(row, numeric, strict=True)
            )
        )
    _print(found)


def summary(kind: str, rows: Iterable[dict[str, Any]]) -> None:
    """A row for each record, of `DEFAULT_COLUMNS`: what tells records apart at a glance."""
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
    """All of each record, a field a line; a conversation's messages by their roles."""
    for at, record in enumerate(records):
        found = Table.grid(padding=(0, 2))
        found.add_column(justify="right", style="bold")
        found.add_column(overflow="fold")
        for name, value in _lines_of(record):
            found.add_row(Text(name), Text(_visible(value)))
        if at:
            click.echo()
        _print(found)


def _plain(value: Any) -> Any:
    """The value with decimals, which SQL is full of, as numbers."""
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
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _print(found: Table) -> None:
    """As wide as the terminal; in a file or a pipe as wide as it is, with no blanks at the end."""
    if sys.stdout.isatty():
        Console(markup=False, highlight=False, emoji=False).print(found)
        return
    console = Console(width=_WIDE, markup=False, highlight=False, emoji=False, color_system=None)
    with console.capture() as captured:
        console.print(found)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def print_count(count: int, kind: str, where: str, *, as_json: bool) -> None:
    """The result of an import or an export: the number of records, and where they are."""
    if as_json:
        click.echo(to_json({"records": count, "kind": kind, "path": where}))
    else:
        click.echo(f"{count:,} {kind} in {where}")
