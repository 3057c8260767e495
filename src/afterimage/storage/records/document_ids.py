"""Ids for documents whose lines have none.

An id follows from the content and the number of the line. So it is the same in every read of the
file, and an import into any storage saves the same one.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

from pydantic_core import from_json

__all__ = ["ID_FIRST", "with_id"]

ID_FIRST: Final = b'{"id"'
"""How a line begins that a storage has written; its document has an id."""


def with_id(text: bytes, number: int) -> bytes:
    """Return a line of UTF-8 with an id as its first field, unless it has one or is no object.

    >>> with_id(b'{"text": "x"}', 1)
    b'{"id":"c710f358-484b-55e6-8226-df73a6115008","text": "x"}'
    >>> with_id(b'{"text": "x", "id": "a"}', 2)
    b'{"text": "x", "id": "a"}'
    """
    stripped = text.strip()
    inner = stripped[1:].lstrip()
    if not stripped.startswith(b"{") or _has_id(stripped):
        return text
    # The bits of a UUID of version 5, which is made of a SHA-1 hash.
    content = b"%d:%b" % (number, stripped)
    digest = hashlib.sha1(content, usedforsecurity=False).digest()
    own = uuid.UUID(bytes=digest[:16], version=5)
    separator = b"" if inner == b"}" else b","
    return b'{"id":"%b"%b%b' % (str(own).encode(), separator, inner)


def _has_id(text: bytes) -> bool:
    """Return whether an object has an id, or is not valid JSON."""
    if b'"id"' not in text and b"\\u" not in text:  # a key can be written with escapes
        return False
    try:
        return "id" in from_json(text)
    except ValueError:
        return True
