"""`dedupe`: delete the records of a store that repeat another one."""

from __future__ import annotations

from typing import Any

import click

from afterimage.storage.cli import options
from afterimage.storage.cli.edit import asking
from afterimage.storage.cli.stores import Opening, call_of, open_existing
from afterimage.storage.errors import counted

__all__ = ["dedupe_command"]


@click.command("dedupe")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.kind("conversations", "documents", "records")
@click.option(
    "--by",
    default="content_hash",
    show_default=True,
    metavar="FIELD",
    help="Records with equal values of this field are equal. Without a value, a record is kept.",
)
@click.option(
    "--keep",
    type=click.Choice(["first", "last"]),
    default="first",
    show_default=True,
    help="Which of equal records is kept.",
)
@options.filters
@asking.dry_run
@asking.yes
@options.opening
@options.as_json
def dedupe_command(
    store: str,
    kind: Any,
    by: str,
    keep: Any,
    filters: list[Any],
    dry_run: bool,  # noqa: FBT001  click passes it by name
    yes: bool,  # noqa: FBT001  as above
    opening: Opening,
    as_json: bool,  # noqa: FBT001  as above
) -> None:
    """Delete the records of a store that repeat another one, all or none.

    On a terminal it asks first, unless --yes is given.
    """
    source = open_existing(store, kind, opening)
    have_value = [*filters, (by, "!=", None)]
    total = call_of(source, "count", kind)
    count = total(have_value) - total(have_value, distinct=by)
    if not dry_run and count:
        asking.ask(f"Delete {counted(count, f'repeated {kind}')} from {store}?", yes=yes)
        count = source.deduplicate(by, keep, kind=kind, filters=filters)
    asking.print_edited(count, kind, "deleted", store, as_json=as_json, dry_run=dry_run)
