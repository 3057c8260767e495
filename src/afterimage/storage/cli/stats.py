"""`stats`: print statistics of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from afterimage.storage.cli import options, render
from afterimage.storage.cli.look.pages import check_page, write_figures
from afterimage.storage.cli.progress import progress_bar
from afterimage.storage.cli.stores import Opening, explain_nothing, hidden, open_existing
from afterimage.storage.reports.faults import OnError

__all__ = ["stats_command"]


@click.command("stats")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.filters
@click.option(
    "--top-keys",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Number of metadata keys to list.",
)
@click.option(
    "--longer-than",
    type=click.IntRange(min=1),
    metavar="CHARACTERS",
    help="Count the conversations with more characters than this.",
)
@click.option(
    "--html",
    "page",
    type=options.FILE,
    metavar="OUT",
    help="Write the figures to a page of HTML instead, such as stats.html.",
)
@options.skip_corrupt
@options.opening
@options.as_json
def stats_command(
    store: str,
    filters: Sequence[Any],
    top_keys: int,
    longer_than: int | None,
    page: Path | None,
    on_error: OnError,
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Show counts, lengths, scores, metadata keys and duplicates."""
    if page is not None:
        if as_json:
            raise click.UsageError("--html cannot be combined with --json.")
        check_page(page, store)
    source = open_existing(store, opening=opening)
    with progress_bar(f"reading {hidden(store)}") as progress:
        statistics = source.stats(
            list(filters),
            top_keys=top_keys,
            longer_than=longer_than,
            progress=progress,
            on_error=on_error,
        )
    if page is not None:
        write_figures(page, hidden(store), statistics._repr_html_())
    elif as_json:
        render.json_lines([statistics.as_dict()])
    else:
        render.say(statistics.as_text(render.output_width()))
        if not statistics.conversations:
            explain_nothing(source, "conversations", filters)
