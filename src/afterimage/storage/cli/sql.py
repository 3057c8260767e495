"""`sql`: run a SQL query over a store."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from afterimage import storage
from afterimage.storage.cli import options, render
from afterimage.storage.cli.progress import progress_bar
from afterimage.storage.cli.stores import Opening, hidden, open_existing, path_of
from afterimage.storage.record_storage import RecordStorage

if TYPE_CHECKING:  # loads DuckDB
    from afterimage.storage.engine.users.values import Column

__all__ = ["sql_command"]

_TABLE_ROWS = 100


@click.command("sql")
@click.argument("store", metavar="STORE", type=options.STORE)
@click.argument("query", metavar="SQL")
@options.kind("conversations", "documents")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Maximum number of rows. The default is {_TABLE_ROWS}, or all rows with --json.",
)
@click.option(
    "--allow-files",
    is_flag=True,
    help="Allow the statement to read other files: read_csv(…), read_parquet(…), 'file.jsonl'.",
)
@options.opening
@options.as_json
def sql_command(
    store: str,
    query: str,
    kind: Any,
    limit: int | None,
    allow_files: bool,  # noqa: FBT001  click gives it by name
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click gives it by name
) -> None:
    """Run a read-only SQL query, in DuckDB's dialect.

    It can be a SELECT, also one that begins with WITH, FROM or VALUES, or a DESCRIBE, SHOW,
    SUMMARIZE or EXPLAIN. A PIVOT must name its values: ON x IN (...). Every other statement is
    refused with exit code 2. The statement cannot change the store or any other file. It can read
    other files only with --allow-files.

    The tables are conversations, documents and records; the view messages has one row per message.
    JSONL files are read into memory first.
    """
    source = open_existing(store, kind, opening)
    columns, rows = _rows(source, store, query, kind, opening, allow_files=allow_files)
    names = _distinct(column.name for column in columns)
    most = (None if as_json else _TABLE_ROWS) if limit is None else min(limit, sys.maxsize)
    parsers = [column.parsed(json=as_json) for column in columns]
    values = (
        [
            value if parse is None else parse(value)
            for value, parse in zip(row, parsers, strict=True)
        ]
        for row in rows
    )
    if as_json:
        render.json_lines(dict(zip(names, row, strict=True)) for row in islice(values, most))
        return
    render.table(names, islice(values, most))
    if limit is None and next(rows, None) is not None:
        render.say(f"The first {most} rows; use --limit for more.", err=True)


def _distinct(names: Iterable[str]) -> list[str]:
    """Return the names; a name that is there already gets a number, as DuckDB does in subqueries.

    >>> _distinct(["id", "id", "id_1", "id"])
    ['id', 'id_1', 'id_1_1', 'id_2']
    """
    found: dict[str, None] = {}
    for name in names:
        fresh = name
        for number in count(1):
            if fresh not in found:
                break
            fresh = f"{name}_{number}"
        found[fresh] = None
    return list(found)


def _rows(
    source: RecordStorage,
    store: str,
    query: str,
    kind: Any,
    opening: Opening,
    *,
    allow_files: bool,
) -> tuple[list[Column], Iterator[Sequence[Any]]]:
    from afterimage.storage.engine.users.sql import run_user_sql  # noqa: PLC0415  heavy

    # A URL of a database in memory has no path.
    path = path_of(store) if isinstance(source, storage.SQLStorage) else None

    def in_memory() -> Any:
        if isinstance(source, storage.SQLStorage):
            # Of a lake, one version is opened, which no statement can change.
            versions = source.snapshots()
            if versions:
                names = opening.names()
                return storage.SQLStorage(store, *names, at=versions[-1].version).engine
            return source.engine
        return _in_memory(Path(store), kind).engine

    return run_user_sql(
        query,
        path or in_memory,
        name=hidden(store),
        allow_files=allow_files,
        lock_timeout=source.lock_timeout,
        follow=lambda: progress_bar("running SQL"),
    )


def _in_memory(path: Path, kind: Any) -> storage.SQLStorage:
    store = storage.SQLStorage("duckdb:///:memory:")
    with progress_bar(f"reading {path.name}") as progress:
        store.import_jsonl(path, kind=kind, progress=progress)
    return store
