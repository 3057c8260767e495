"""`import` and `export`: whole files in and out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from pydantic_core import to_json

from afterimage import storage
from afterimage.storage.cli import options
from afterimage.storage.cli.progress import following
from afterimage.storage.cli.stores import Tables, is_database, open_existing, open_or_make
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.reports.faults import OnError

__all__ = ["export_command", "import_command"]


@click.command("import")
@click.argument(
    "sources",
    metavar="SRC...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.argument("dest", metavar="DEST", type=options.STORE)
@options.kind("conversations", "documents")
@click.option(
    "--metadata-field",
    "metadata_fields",
    multiple=True,
    metavar="KEY",
    help="Give this metadata key a column of its own, in a DuckDB file. Repeat for more.",
)
@options.skip_corrupt
@options.tables
@options.as_json
def import_command(
    sources: Sequence[Path],
    dest: str,
    kind: Any,
    tables: Tables,
    metadata_fields: Sequence[str],
    on_error: OnError,
    as_json: bool,  # noqa: FBT001  click gives it by name
) -> None:
    """Add JSON lines to a store, which is made where there is none.

    SRC is .jsonl, .jsonl.gz or .jsonl.zst. Each file is saved whole or, where a line of it is no
    valid record, not at all; then nothing of the files after it is, either.
    """
    for source in sources:
        if is_database(source):
            raise click.BadParameter(f"{source} is a DuckDB file: export it to .jsonl first.")
    store = open_or_make(dest, kind, tables, metadata_fields)
    saved = 0
    for source in sources:
        with following(f"import {source.name}") as progress:
            saved += store.import_jsonl(source, kind=kind, on_error=on_error, progress=progress)
    _tell(saved, kind, dest, as_json=as_json)


@click.command("export")
@click.argument("store", metavar="STORE", type=options.STORE)
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@options.kind("conversations", "documents", "records")
@options.filters
@options.order_and_slice(limit=None)
@options.columns
@options.partition_by
@options.training_format
@options.skip_corrupt
@options.tables
@options.as_json
def export_command(
    store: str,
    out: Path,
    kind: Any,
    columns: list[str] | None,
    partition_by: list[str] | None,
    line_format: Any,
    system_prompt: str | None,
    reasoning: Any,
    tables: Tables,
    as_json: bool,  # noqa: FBT001  click gives it by name
    **query: Any,
) -> None:
    """Write records of a store to a file.

    OUT ends in .parquet, in .jsonl, .jsonl.gz or .jsonl.zst, or is a new folder where
    --partition-by is given. It appears when it is complete; what was there stays until then.
    Lines are records as they were saved or, with --format, what trainers read; Parquet has columns.
    """
    lines = out.name.lower().endswith((".jsonl", ".jsonl.gz", ".jsonl.zst"))
    if lines and (columns or partition_by):
        raise click.UsageError("JSON lines are whole records: give no --columns, --partition-by.")
    training = {"format": line_format, "system_prompt": system_prompt, "reasoning": reasoning}
    if not line_format and (system_prompt is not None or reasoning):
        raise click.UsageError("--system-prompt and --reasoning go with a --format.")
    if not lines and line_format:
        raise click.UsageError("A --format is one of JSON lines: end OUT in .jsonl.")
    if not lines and not partition_by and out.suffix.lower() != ".parquet":
        raise click.BadParameter(f"{out} must end in .parquet, .jsonl, .jsonl.gz or .jsonl.zst.")
    source = open_existing(store, kind, tables)
    arguments = {"kind": kind, **query}
    with following(f"export {out.name}") as progress:
        if progress and not isinstance(source, storage.JSONLStorage):  # which tells the share
            progress.expect(_record_count(source, kind, query))
        if lines:
            written = source.export_jsonl(out, **arguments, **training, progress=progress)
        else:
            written = source.export_parquet(
                out, **arguments, columns=columns, partition_by=partition_by, progress=progress
            )
    _tell(written, kind, str(out), as_json=as_json)


def _tell(count: int, kind: str, where: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json({"records": count, "kind": kind, "path": where}))
    else:
        click.echo(f"{count:,} {kind} in {where}")


def _record_count(store: RecordStorage, kind: str, query: dict[str, Any]) -> int:
    count = {
        "conversations": store.count_conversations,
        "documents": store.count_documents,
        "records": store.count_records,
    }
    left = max(0, count[kind](query["filters"]) - (query["offset"] or 0))
    return left if query["limit"] is None else min(left, query["limit"])
