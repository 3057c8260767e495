"""`delete`: delete the matching records of a store."""

from __future__ import annotations

from typing import Any

import click

from afterimage.storage.cli import options
from afterimage.storage.cli.edit import asking
from afterimage.storage.cli.stores import Opening, call_of, open_existing
from afterimage.storage.errors import counted

__all__ = ["delete_command"]


@click.command("delete")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.kind("conversations", "documents", "records")
@options.filters
@asking.every
@asking.dry_run
@asking.yes
@options.opening
@options.as_json
def delete_command(
    store: str,
    kind: Any,
    filters: list[Any],
    every: bool,  # noqa: FBT001  click passes it by name
    dry_run: bool,  # noqa: FBT001  as above
    yes: bool,  # noqa: FBT001  as above
    opening: Opening,
    as_json: bool,  # noqa: FBT001  as above
) -> None:
    """Delete the matching records of a store, all or none.

    On a terminal it asks first, unless --yes is given.
    """
    chosen = asking.required_filters(filters, every=every)
    source = open_existing(store, kind, opening)
    count = call_of(source, "count", kind)(chosen)
    if not dry_run and count:
        asking.ask(f"Delete {counted(count, kind)} from {store}?", yes=yes)
        count = call_of(source, "delete", kind)(chosen)
    asking.print_edited(count, kind, "deleted", store, as_json=as_json, dry_run=dry_run)
