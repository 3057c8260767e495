"""What the editing commands share: their options, the question, and the printed number."""

from __future__ import annotations

import sys
from typing import Any

import click
from pydantic_core import to_json

from afterimage.storage.cli.render import json_line, say
from afterimage.storage.errors import counted

__all__ = ["ask", "dry_run", "every", "print_edited", "required_filters", "yes"]

dry_run = click.option(
    "--dry-run", is_flag=True, help="Change nothing; print how many records it would be."
)
yes = click.option("--yes", is_flag=True, help="Do not ask before records are deleted.")
every = click.option("--all", "every", is_flag=True, help="Edit all records, without a filter.")


def required_filters(filters: list[Any], *, every: bool) -> list[Any]:
    """Return the filters; there must be some, or `--all`."""
    if every == bool(filters):
        raise click.UsageError("Give --filter to say which records, or --all for all of them.")
    return filters


def ask(question: str, *, yes: bool) -> None:
    """Ask on a terminal, and end the command if the answer is no. A script is not asked."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


def print_edited(
    count: int, kind: str, verb: str, store: str, *, as_json: bool, dry_run: bool
) -> None:
    """Print how many records were edited, or would be."""
    if as_json:
        json_line(to_json({"records": count, "kind": kind, verb: not dry_run}))
        return
    named = counted(count, "records of other models" if kind == "records" else kind)
    say(f"{named} would be {verb} in {store}" if dry_run else f"{named} {verb} in {store}")
