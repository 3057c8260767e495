"""`diff`: compare the records of two stores."""

from __future__ import annotations

from typing import Any

import click

from afterimage.storage.cli import options, render
from afterimage.storage.cli.stores import Opening, open_existing

__all__ = ["diff_command"]


@click.command("diff")
@click.argument("store", metavar="STORE", type=options.STORE)
@click.argument("other", metavar="OTHER", type=options.STORE)
@options.kind("conversations", "documents")
@options.filters
@options.opening
@options.as_json
@click.pass_context
def diff_command(
    context: click.Context,
    store: str,
    other: str,
    kind: Any,
    filters: list[Any],
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Compare the records of two stores by their content, in any order.

    The exit code is 1 if they differ.
    """
    here, there = (open_existing(each, kind, opening) for each in (store, other))
    found = here.diff(there, kind=kind, filters=filters)
    if as_json:
        render.json_lines([{**found.as_dict(), "here": store, "there": other}])
    else:
        render.say(found)
    context.exit(0 if found.equal else 1)
