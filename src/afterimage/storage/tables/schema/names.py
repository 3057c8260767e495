"""Names of tables and columns: how DuckDB compares them, and those that follow from others."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Final

from afterimage.storage.errors import SchemaMismatchError
from afterimage.storage.records.fields import CONVERSATIONS

__all__ = ["folded", "free_names", "messages_view", "records_table", "rows_table"]

_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def folded(name: str) -> str:
    """Return a name as DuckDB compares it.

    >>> folded("Talks"), folded("É")
    ('talks', 'É')
    """
    return name.translate(_LOWER)


def records_table(conversations_table: str) -> str:
    """Return the name of the table of records of other models."""
    return "records" if _is_usual(conversations_table) else f"{conversations_table}_records"


def messages_view(conversations_table: str) -> str:
    """Return the name of the view with one row per message."""
    return "messages" if _is_usual(conversations_table) else f"{conversations_table}_messages"


def rows_table(table: str) -> str:
    """Return the name of the table below a view that adds the numbers of the engine to its rows."""
    return f"{table}_rows"


def _is_usual(conversations_table: str) -> bool:
    return folded(conversations_table) == CONVERSATIONS.name


def free_names(key: str, taken: Iterable[str]) -> tuple[str, str]:
    """Return the names for the columns of a metadata key: the key itself if it is not taken.

    Raises:
        SchemaMismatchError: no name is free.
    """
    used = {name.casefold() for name in taken}
    for name in (key, f"metadata.{key}"):
        pair = (name, f"{name}_type")
        if name and not used & {part.casefold() for part in pair}:
            return pair
    raise SchemaMismatchError(
        f"metadata field {key!r} cannot get a column: {key!r} and {f'metadata.{key}'!r} are taken "
        "(column names are case-insensitive). Omit it; filters work without the column."
    )
