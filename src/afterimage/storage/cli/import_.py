"""`import`: add the records of JSONL files to a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from afterimage.storage.cli import options
from afterimage.storage.cli.progress import progress_bar
from afterimage.storage.cli.render import print_count
from afterimage.storage.cli.stores import Tables, is_database, open_or_make
from afterimage.storage.reports.faults import OnError

__all__ = ["import_command"]


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
    help="Add a separate column for this metadata key (DuckDB files only). Can be repeated.",
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
    as_json: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Add the records of JSONL files to a store. DEST is created if it does not exist.

    SRC is a .jsonl, .jsonl.gz or .jsonl.zst file. An invalid line stops the import, unless
    --skip-corrupt is given: no record of its file is saved, but those of earlier files are.
    """
    for source in sources:
        if is_database(source):
            raise click.BadParameter(f"{source} is a DuckDB file; export it to .jsonl first.")
    store = open_or_make(dest, kind, tables, metadata_fields)
    saved = 0
    for source in sources:
        with progress_bar(f"import {source.name}") as progress:
            saved += store.import_jsonl(source, kind=kind, on_error=on_error, progress=progress)
    print_count(saved, kind, dest, as_json=as_json)
