"""`update`: change the metadata of the matching records of a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from afterimage.storage.cli import options
from afterimage.storage.cli.edit import asking
from afterimage.storage.cli.stores import Opening, call_of, open_existing

__all__ = ["update_command"]


def _pairs(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> Any:
    found: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE.")
        found[key] = value
        with suppress(ValueError):
            found[key] = json.loads(value)
    return found


@click.command("update")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.kind("conversations", "documents")
@options.filters
@asking.every
@click.option(
    "--set",
    "metadata",
    multiple=True,
    required=True,
    callback=_pairs,
    metavar="KEY=VALUE",
    help="Set a metadata key. VALUE is parsed as JSON if it is valid JSON, otherwise it is a "
    "string; null removes the key. Can be repeated.",
)
@asking.dry_run
@options.opening
@options.as_json
def update_command(
    store: str,
    kind: Any,
    filters: list[Any],
    every: bool,  # noqa: FBT001  click passes it by name
    metadata: dict[str, Any],
    dry_run: bool,  # noqa: FBT001  as above
    opening: Opening,
    as_json: bool,  # noqa: FBT001  as above
) -> None:
    """Change the metadata of the matching records of a store, all or none."""
    chosen = asking.required_filters(filters, every=every)
    source = open_existing(store, kind, opening)
    if dry_run:
        count = call_of(source, "count", kind)(chosen)
    else:
        count = call_of(source, "update", kind)(chosen, metadata)
    asking.print_edited(count, kind, "updated", store, as_json=as_json, dry_run=dry_run)
