"""`sql`: a query in DuckDB's SQL over a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click

from afterimage import storage
from afterimage.storage.cli import options, render
from afterimage.storage.cli.progress import progress_bar
from afterimage.storage.cli.stores import Tables, open_existing

__all__ = ["sql_command"]

_TABLE_ROWS = 100


@click.command("sql")
@click.argument("store", metavar="STORE", type=options.STORE)
@click.argument("query", metavar="SQL")
@options.kind("conversations", "documents")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"How many rows at most. Without it, a table has {_TABLE_ROWS} and --json has all.",
)
@options.tables
@options.as_json
def sql_command(
    store: str,
    query: str,
    kind: Any,
    limit: int | None,
    tables: Tables,
    as_json: bool,  # noqa: FBT001  click gives it by name
) -> None:
    """Ask SQL of a store, in DuckDB's dialect. Nothing in it can be changed so.

    There are the tables conversations, documents and records, and the view messages with a row for
    each message. JSON lines are read into memory for it.
    """
    source = open_existing(store, kind, tables)
    if not isinstance(source, storage.SQLStorage):
        source = _in_memory(Path(store), kind)
    names, rows = _rows(source, query, store)
    if as_json:
        render.json_lines(dict(zip(names, row, strict=True)) for row in islice(rows, limit))
        return
    most = _TABLE_ROWS if limit is None else limit
    render.table(names, islice(rows, most))
    if limit is None and next(rows, None) is not None:
        click.echo(f"The first {most} rows; --limit gives more.", err=True)


def _rows(
    store: storage.SQLStorage, query: str, name: str
) -> tuple[list[str], Iterator[Sequence[Any]]]:
    from afterimage.storage.engine.progress import followed_statement  # noqa: PLC0415  heavy
    from afterimage.storage.engine.statements import translated  # noqa: PLC0415  heavy

    def found() -> Iterator[Any]:
        with translated(name), store.engine.connect() as connection:
            connection.exec_driver_sql("ROLLBACK")  # of what SQLAlchemy has begun
            connection.exec_driver_sql("BEGIN TRANSACTION READ ONLY")
            with progress_bar("asking") as progress, followed_statement(connection, progress):
                result = connection.exec_driver_sql(query)
            yield list(result.keys()) if result.returns_rows else []
            if result.returns_rows:
                yield from result

    rows = found()
    return next(rows), rows


def _in_memory(path: Path, kind: Any) -> storage.SQLStorage:
    store = storage.SQLStorage("duckdb:///:memory:")
    with progress_bar(f"reading {path.name}") as progress:
        store.import_jsonl(path, kind=kind, progress=progress)
    return store
