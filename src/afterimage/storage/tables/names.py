"""Names of tables: how DuckDB compares them, and the names that follow from others."""

from __future__ import annotations

import string
from typing import Final

from afterimage.storage.records.fields import CONVERSATIONS

__all__ = ["folded", "messages_view", "records_table"]

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


def _is_usual(conversations_table: str) -> bool:
    return folded(conversations_table) == CONVERSATIONS.name
