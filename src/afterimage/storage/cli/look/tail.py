"""`tail`: show the last records of a store, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from afterimage.storage.cli import options
from afterimage.storage.cli.look.printed import print_records
from afterimage.storage.cli.stores import Opening, call_of, explain_nothing, open_existing
from afterimage.storage.reports.faults import OnError

__all__ = ["tail_command"]


@click.command("tail")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.kind("conversations", "documents")
@options.filters
@options.order_by
@options.limit(10)
@options.view
@options.skip_corrupt
@options.opening
@options.as_json
def tail_command(
    store: str,
    kind: Any,
    filters: Sequence[Any],
    order_by: Sequence[Any],
    limit: int,
    view: str,
    on_error: OnError,
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Show the last records in order, the newest ones without --order-by.

    With --json, each line is a whole record as it was saved.
    """
    source = open_existing(store, kind, opening)
    total = call_of(source, "count", kind)(list(filters), on_error=on_error)
    query = {
        "filters": list(filters),
        "order_by": list(order_by),
        "on_error": on_error,
        "limit": limit,
        "offset": max(0, total - limit),
    }
    found = print_records(source, kind, query, full=view == "full", as_json=as_json)
    if not (found or as_json) and limit:
        explain_nothing(source, kind, filters)
