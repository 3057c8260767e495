"""`head`: the first records of a store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import click
from pydantic import ValidationError

from afterimage import storage
from afterimage.storage.cli import options, render
from afterimage.storage.cli.progress import progress_bar
from afterimage.storage.cli.stores import Tables, open_existing
from afterimage.storage.record_storage import RecordStorage

__all__ = ["head_command"]

# Lines up to so many bytes stay in memory before they are printed.
_LINES_IN_MEMORY = 16 * 2**20


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
        except ValidationError:  # a load names the record and its place
            load = source.load_documents if is_document else source.load_conversations
            records = list(load(**query))
        render.full(records)
    else:
        scan = source.scan_documents if kind == "documents" else source.scan_conversations
        with progress_bar(f"reading {store}") as progress:
            reader = scan(columns or render.DEFAULT_COLUMNS[kind], **query, progress=progress)
            found = (row for batch in reader for row in batch.to_pylist())
            # Objects are printed as they come; the first match can take a while.
            rows = chain(list(islice(found, 1)), found) if as_json else list(found)
        if as_json:
            render.json_lines(rows)
        elif columns:
            render.table(columns, ([row[column] for column in columns] for row in rows))
        else:
            render.summary(kind, rows)


@contextmanager
def _whole_lines(
    store: RecordStorage, kind: Any, query: dict[str, Any], name: str
) -> Iterator[Iterable[bytes]]:
    """Whole records, with the fields of subclasses, which only an export gives."""
    with tempfile.SpooledTemporaryFile(max_size=_LINES_IN_MEMORY) as file:
        with progress_bar(f"reading {name}") as progress:
            store.export_jsonl(file, kind=kind, **query, progress=progress)
        file.seek(0)
        yield file
