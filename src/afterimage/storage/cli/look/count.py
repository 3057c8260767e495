"""`count`: the number of matching records of a store."""

from __future__ import annotations

from typing import Any

import click
from pydantic_core import to_json

from afterimage.storage.cli import options, render
from afterimage.storage.cli.stores import Opening, call_of, open_existing
from afterimage.storage.query.arguments import Filters
from afterimage.storage.reports.faults import OnError

__all__ = ["count_command"]


@click.command("count")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.kind("conversations", "documents", "records")
@options.filters
@options.choice_of_reads
@options.skip_corrupt
@options.opening
@options.as_json
def count_command(
    store: str,
    kind: Any,
    filters: Filters,
    choice: dict[str, Any],
    on_error: OnError,
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Print the number of records, with the given filters and choice.

    The output is the number alone, or with --json an object with the number and the kind.
    """
    source = open_existing(store, kind, opening)
    count = call_of(source, "count", kind)(filters, on_error=on_error, **choice)
    if as_json:
        render.json_line(to_json({"records": count, "kind": kind}))
    else:
        render.say(count)
