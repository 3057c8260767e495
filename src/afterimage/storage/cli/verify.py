"""`verify`: check that all stored records are valid."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from afterimage import storage
from afterimage.storage.cli import options, render
from afterimage.storage.cli.progress import progress_bar
from afterimage.storage.cli.stores import Opening, hidden, open_existing

__all__ = ["verify_command"]


@click.command("verify")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.kind("conversations", "documents")
@click.option(
    "--repair",
    is_flag=True,
    help="First set the columns of metadata fields again where they differ from the metadata.",
)
@options.opening
@options.as_json
@click.pass_context
def verify_command(
    context: click.Context,
    store: str,
    kind: Any,
    repair: bool,  # noqa: FBT001  click passes it by name
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Read all records of a store, and report all faults.

    The store is changed only with --repair. The exit code is 1 if a fault was found.
    """
    source = open_existing(store, kind, opening)
    with progress_bar(f"reading {hidden(store)}") as progress:
        if isinstance(source, storage.SQLStorage):
            report = source.verify(progress=progress, repair=repair)
        else:  # only the given file
            report = storage.verify_jsonl(
                Path(store), kind, progress=progress, lock_timeout=opening.lock_timeout
            )
    if as_json:
        render.json_lines([{"ok": report.ok, **asdict(report)}])
    else:
        render.say(report)
        if repair and not report.repaired:
            render.say("nothing to repair: no column of a metadata field differs from the metadata")
    context.exit(0 if report.ok else 1)
