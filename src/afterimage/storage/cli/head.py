"""`head`: show the first records of a store."""

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
from afterimage.storage.cli.stores import (
    Opening,
    call_of,
    explain_fields,
    explain_nothing,
    explain_offset,
    hidden,
    open_existing,
)
from afterimage.storage.record_storage import RecordStorage

__all__ = ["head_command"]

# Bytes of lines that are kept in memory before they are printed; above this, in a file.
_LINES_IN_MEMORY = 16 * 2**20


@click.command("head")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.kind("conversations", "documents")
@options.filters
@options.order_and_slice(10)
@options.choice_of_reads
@options.columns
@options.view
@options.skip_corrupt
@options.opening
@options.as_json
def head_command(
    store: str,
    kind: Any,
    columns: list[str] | None,
    view: str,
    choice: dict[str, Any],
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click passes it by name
    **query: Any,
) -> None:
    """Show the first records, with the given filters, choice and order.

    With --json, each line is a JSON object: the whole record as it was saved, or the --columns.
    """
    source = open_existing(store, kind, opening)
    query |= choice
    if as_json and not columns:
        with _whole_lines(source, kind, query, store) as lines:
            for line in lines:
                render.json_line(line)
    elif view == "full" and not (as_json or columns):
        model = (
            storage.Document if kind == "documents" else storage.EvaluatedConversationWithContext
        )
        try:
            with _whole_lines(source, kind, query, store) as lines:
                records: list[Any] = [model.model_validate_json(line) for line in lines]
        except ValidationError:  # a load raises an error that names the record
            records = list(call_of(source, "load", kind)(**query))
        render.full(records)
        _explain(source, kind, records, None, query)
    else:
        scan = call_of(source, "scan", kind)
        with progress_bar(f"reading {hidden(store)}") as progress:
            reader = scan(columns or render.DEFAULT_COLUMNS[kind], **query, progress=progress)
            matching = (row for batch in reader for row in batch.to_pylist())
            # JSON is printed while it is read. Show the bar until the first match, which may take
            # long.
            rows = chain(list(islice(matching, 1)), matching) if as_json else list(matching)
        if as_json:
            whole = (name for name in columns or () if name in ("metadata", "extra"))
            render.json_lines(rows, whole)
            return
        found = list(rows)
        if columns:
            render.table(columns, ([row[column] for column in columns] for row in found))
        else:
            render.summary(kind, found)
        _explain(source, kind, found, columns, query)


def _explain(
    store: RecordStorage,
    kind: str,
    found: list[Any],
    columns: list[str] | None,
    query: dict[str, Any],
) -> None:
    """Print on stderr why there is no record, or no value of a column or of a sort key."""
    if found:
        explain_fields(store, kind, [*(columns or ()), *(field for field, _ in query["order_by"])])
    elif any(query[name] is not None for name in ("sample", "shard", "distinct")):
        return
    elif query["offset"]:
        explain_offset(store, kind, query["filters"], query["offset"])
    elif query["limit"] != 0:
        explain_nothing(store, kind, query["filters"])


@contextmanager
def _whole_lines(
    store: RecordStorage, kind: Any, query: dict[str, Any], name: str
) -> Iterator[Iterable[bytes]]:
    """Provide whole records as lines of JSON. Only an export includes extra fields."""
    with tempfile.SpooledTemporaryFile(max_size=_LINES_IN_MEMORY) as file:
        with progress_bar(f"reading {hidden(name)}") as progress:
            store.export_jsonl(file, kind=kind, **query, progress=progress)
        file.seek(0)
        yield file
