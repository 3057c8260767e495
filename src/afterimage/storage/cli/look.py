"""`head`, `stats` and `sql`: what is in a store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from afterimage import storage
from afterimage.storage.cli import options, show
from afterimage.storage.cli.progress import following
from afterimage.storage.cli.stores import Tables, open_existing, path_of
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.reports.faults import OnError

__all__ = ["head_command", "sql_command", "stats_command"]

_TABLE_ROWS = 100


@click.command("head")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.kind("conversations", "documents")
@options.filters
@options.order_and_slice(limit=10)
@options.columns
@click.option(
    "--view",
    type=click.Choice(["table", "full"]),
    default="table",
    show_default=True,
    help="A row for each record, or all of each: its messages, one below the other.",
)
@options.skip_corrupt
@options.tables
@options.as_json
def head_command(
    store: str,
    kind: Any,
    columns: list[str] | None,
    view: str,
    tables: Tables,
    as_json: bool,  # noqa: FBT001  click gives it by name
    **query: Any,
) -> None:
    """Show the first records: of all, or of those that match, in the order given.

    With --json there is an object a line: whole records as they were saved, or the --columns.
    """
    source = open_existing(store, kind, tables)
    if as_json and not columns:
        with _whole_lines(source, kind, query, store) as lines:
            for line in lines:
                click.echo(line, nl=False)
    elif view == "full" and not (as_json or columns):
        is_document = kind == "documents"
        model = storage.Document if is_document else storage.EvaluatedConversationWithContext
        try:
            with _whole_lines(source, kind, query, store) as lines:
                records: list[Any] = [model.model_validate_json(line) for line in lines]
        except ValidationError:  # a load says of which record, and where it is
            load = source.load_documents if is_document else source.load_conversations
            records = list(load(**query))
        show.full(records)
    else:
        scan = source.scan_documents if kind == "documents" else source.scan_conversations
        with following(f"reading {store}") as progress:
            reader = scan(columns or show.DEFAULT_COLUMNS[kind], **query, progress=progress)
            found = (row for batch in reader for row in batch.to_pylist())
            # Objects are written as they come; a filter may be long before the first one.
            rows = chain(list(islice(found, 1)), found) if as_json else list(found)
        if as_json:
            show.json_lines(rows)
        elif columns:
            show.table(columns, ([row[column] for column in columns] for row in rows))
        else:
            show.summary(kind, rows)


@click.command("stats")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.filters
@click.option(
    "--top-keys",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many metadata keys to tell of.",
)
@options.skip_corrupt
@options.tables
@options.as_json
def stats_command(
    store: str,
    filters: Sequence[Any],
    top_keys: int,
    on_error: OnError,
    tables: Tables,
    as_json: bool,  # noqa: FBT001  click gives it by name
) -> None:
    """Tell what is in a store: counts, lengths, scores, metadata keys, duplicates."""
    source = open_existing(store, tables=tables)
    with following(f"reading {store}") as progress:
        found = source.stats(list(filters), top_keys=top_keys, progress=progress, on_error=on_error)
    if as_json:
        show.json_lines([found.as_dict()])
    else:
        click.echo(str(found))


@click.command("sql")
@click.argument("store", metavar="STORE", type=options.STORE)
@click.argument("query", metavar="SQL")
@options.kind("conversations", "documents")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"How many rows at most. Without it, a table has {_TABLE_ROWS} and --json has all.",
)
@click.option(
    "--allow-files",
    is_flag=True,
    help="Let the statement read other files, too: read_csv(…), read_parquet(…), 'file.jsonl'.",
)
@options.tables
@options.as_json
def sql_command(
    store: str,
    query: str,
    kind: Any,
    limit: int | None,
    allow_files: bool,  # noqa: FBT001  click gives it by name
    tables: Tables,
    as_json: bool,  # noqa: FBT001  click gives it by name
) -> None:
    """Ask SQL of a store: one statement that reads, in DuckDB's dialect.

    That is a SELECT, also one that begins with WITH, FROM or VALUES, or a DESCRIBE, SHOW, SUMMARIZE
    or EXPLAIN; a PIVOT has to name its values (ON x IN (...)). Anything else is refused, with exit
    code 2. It can change neither the store nor any other file, and reads no other file without
    --allow-files.

    There are the tables conversations, documents and records, and the view messages with a row for
    each message. JSON lines are read into memory for it.
    """
    source = open_existing(store, kind, tables)
    names, rows = _rows(source, store, query, kind, allow_files)
    if as_json:
        show.json_lines(dict(zip(names, row, strict=True)) for row in islice(rows, limit))
        return
    most = _TABLE_ROWS if limit is None else limit
    show.table(names, islice(rows, most))
    if limit is None and next(rows, None) is not None:
        click.echo(f"The first {most} rows; --limit gives more.", err=True)


class _NotReadingError(click.ClickException):
    exit_code = 2


def _rows(
    source: RecordStorage,
    store: str,
    query: str,
    kind: Any,
    allow_files: bool,  # noqa: FBT001  passed on by position
) -> tuple[list[str], Iterator[Sequence[Any]]]:
    from afterimage.storage.engine.user_sql import run_user_sql  # noqa: PLC0415  heavy

    path = path_of(store) if isinstance(source, storage.SQLStorage) else None

    def in_memory() -> Any:
        if isinstance(source, storage.SQLStorage):
            return source.engine
        return _in_memory(Path(store), kind).engine

    try:
        return run_user_sql(
            query,
            path or in_memory,
            name=store,
            allow_files=allow_files,
            follow=lambda: following("asking"),
        )
    except InvalidQueryError as error:
        raise _NotReadingError(str(error)) from error


def _in_memory(path: Path, kind: Any) -> storage.SQLStorage:
    store = storage.SQLStorage("duckdb:///:memory:")
    with following(f"reading {path.name}") as progress:
        store.import_jsonl(path, kind=kind, progress=progress)
    return store


@contextmanager
def _whole_lines(
    store: RecordStorage, kind: Any, query: dict[str, Any], name: str
) -> Iterator[Iterable[bytes]]:
    """Whole records, as only an export gives them: with what subclasses add."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.jsonl"
        with following(f"reading {name}") as progress:
            store.export_jsonl(path, kind=kind, **query, progress=progress)
        with path.open("rb") as file:
            yield file
