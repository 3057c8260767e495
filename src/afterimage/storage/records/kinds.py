"""The kinds of records that a storage holds, and the declared fields of each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, get_args

from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, RecordTable

__all__ = ["RECORD_TABLES", "Kind", "check_kind"]

Kind = Literal["conversations", "documents", "records"]
"""Which records: conversations, documents, or those of other models among the conversations."""

RECORD_TABLES: Final[Mapping[str, RecordTable]] = MappingProxyType(
    {"conversations": CONVERSATIONS, "documents": DOCUMENTS, "records": CONVERSATIONS}
)
"""The declared table of each kind; that of "records" is the one they are saved among."""


def check_kind(kind: str) -> None:
    """Refuse what is no kind.

    Raises:
        InvalidQueryError: it is none.
    """
    if kind not in get_args(Kind):
        raise InvalidQueryError(
            f"unknown kind {shown(kind, 40)}; use {', '.join(map(repr, get_args(Kind)))}"
        )
