"""Write what a command shows as a page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from afterimage.storage.cli.render import say
from afterimage.storage.cli.stores import path_of
from afterimage.storage.errors import counted
from afterimage.storage.looking.static import static_page
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.system.atomic_files import written_file
from afterimage.storage.system.targets import refuse_own_file, system_path

__all__ = ["check_page", "export_page", "is_page", "refuse_options", "write_figures"]

# A browser is slow with more records on one page.
_RECORDS = 500


def is_page(name: str) -> bool:
    """Return whether a name is that of a page.

    >>> is_page("look.html"), is_page("look.jsonl")
    (True, False)
    """
    return name.lower().endswith((".html", ".htm"))


def check_page(out: Path, store: str) -> None:
    """Refuse a file that no page can be written to, before a store is read.

    Raises:
        InvalidQueryError: it is the store's own file.
    """
    own = path_of(store)
    if not is_page(out.name):
        raise click.BadParameter(f"{out} must end in .html.")
    refuse_own_file(system_path(out), [] if own is None else [own])


def refuse_options(*given: object) -> None:
    """Refuse the options of an export that a page does not have."""
    if any(each not in (None, False) for each in given):
        raise click.UsageError(
            "a page of HTML shows whole records, without --format and its options, --columns and "
            "--split."
        )


def write_figures(out: Path, title: str, inside: str) -> None:
    """Write a page of figures; it appears when it is complete."""
    text = static_page(title, inside).encode("utf-8", "replace")
    with written_file(system_path(out)) as file:
        if isinstance(file, Path):
            file.write_bytes(text)
        else:
            file.write(text)


def export_page(
    store: RecordStorage,
    out: Path | str,
    kind: Any,
    query: dict[str, Any],
    choice: dict[str, Any],
) -> int:
    """Write records as a page of their own; return how many.

    Without a limit, they are the first 500; a line on stderr says so if there are more.
    """
    if kind == "records":
        raise click.UsageError("a page shows conversations or documents, not --kind records.")
    is_limited = query["limit"] is not None
    limit = query["limit"] if is_limited else _RECORDS
    written = store.export_html(out, kind=kind, **{**query, "limit": limit}, **choice)
    if not is_limited and written == _RECORDS:
        say(f"At most {counted(_RECORDS, kind)} are on the page; use --limit for more.", err=True)
    return written
