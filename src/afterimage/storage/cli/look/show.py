"""`show`: print one record in full."""

from __future__ import annotations

import re
from typing import Any

import click

from afterimage.storage.cli import options
from afterimage.storage.cli.look.printed import print_records
from afterimage.storage.cli.stores import Opening, call_of, open_existing
from afterimage.storage.errors import InvalidQueryError, counted
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.reports.faults import OnError

__all__ = ["show_command"]

_HASH = re.compile("[0-9a-f]{1,32}")
_PLACE = re.compile("#([1-9][0-9]{0,17})")
# Hashes that an error names.
_FEW = 3


@click.command("show")
@click.argument("store", metavar="STORE", type=options.STORE)
@click.argument("which", metavar="HASH|#N", type=options.NAME)
@options.kind("conversations", "documents")
@options.skip_corrupt
@options.opening
@options.as_json
def show_command(
    store: str,
    which: str,
    kind: Any,
    on_error: OnError,
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Print one record in full.

    HASH is its content_hash; the first digits are enough if no other record has them. '#12' is the
    twelfth record in the order of saving; quote it, as a shell takes # for a comment. With --json,
    the record is one line, as it was saved.
    """
    place, digits = _PLACE.fullmatch(which), which.lower()
    if place is None and not _HASH.fullmatch(digits):
        raise click.BadParameter(
            f"{which!r} is neither the first digits of a content_hash nor a place such as '#12'."
        )
    source = open_existing(store, kind, opening)
    query: dict[str, Any] = {"limit": 1, "on_error": on_error}
    if place is not None:
        query["offset"] = int(place[1]) - 1
    else:
        query["filters"] = [("content_hash", "==", _whole(source, kind, digits, on_error))]
    if not print_records(source, kind, query, full=True, as_json=as_json):
        count = call_of(source, "count", kind)()
        raise InvalidQueryError(f"there is no {which}: the store has {counted(count, kind)}.")


def _whole(store: RecordStorage, kind: str, digits: str, on_error: OnError) -> str:
    """Return the only content hash that begins with some digits.

    Raises:
        InvalidQueryError: there is none, or more than one.
    """
    filters = [("content_hash", "startswith", digits)]
    batches = call_of(store, "scan", kind)(["content_hash"], filters=filters, on_error=on_error)
    found = sorted({row["content_hash"] for batch in batches for row in batch.to_pylist()})
    if len(found) == 1:
        return str(found[0])
    one = kind.removesuffix("s")
    if not found:
        raise InvalidQueryError(f"no {one} has a content_hash that begins with {digits}.")
    named = ", ".join(found[:_FEW]) + (", …" if len(found) > _FEW else "")
    raise InvalidQueryError(
        f"{len(found):,} contents have a content_hash that begins with {digits}: {named}. Give "
        "more digits."
    )
