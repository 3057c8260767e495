"""`compact`: make the file of a store as small as its records are."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic_core import to_json

from afterimage.storage.cli import options, render
from afterimage.storage.cli.stores import Opening, hidden, open_existing, path_of

__all__ = ["compact_command"]


@click.command("compact")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.opening
@options.as_json
def compact_command(
    store: str,
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Give the space of deleted records back.

    A DuckDB file is written again beside the old one, which it then replaces, if it is smaller. It
    must not be open elsewhere. A JSONL file is as small as its records already. Of a lake, the
    small files are merged, and what no version of the last week needs is removed.
    """
    source = open_existing(store, "conversations", opening)
    path = path_of(store)
    before = _size(path)
    source.compact()
    after = _size(path)
    if as_json:
        render.json_line(to_json({"path": hidden(store), "before": before, "after": after}))
    elif before is None or after is None:
        render.say(f"{hidden(store)} is compact")
    else:
        render.say(f"{store}: {before:,} bytes before, {after:,} bytes after")


def _size(path: Path | None) -> int | None:
    """Return the size of a file; None if the store is not one file."""
    return None if path is None else path.stat().st_size
