r"""Find keys that an object in JSON text has twice.

Programs differ in the value that they take for such a key. The exact search takes as long as
parsing the text, so a quick check comes first. A string in JSON text is between two quotation
marks. A parser that keeps one value of a repeated key loses a string, so the parsed record has
fewer strings than the text.

The invariant: the quick check accepts no text with a repeated key.
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any, Final

from pydantic_core import to_json

__all__ = ["ESCAPE", "quotation_marks", "repeated_key", "repeated_key_of"]

ESCAPE: Final = r"(?s)\\."
"""The regular expression of an escaped character in JSON text, or of its beginning."""

_escape: Final = re.compile(ESCAPE.encode())


def quotation_marks(text: bytes) -> int:
    r"""Return the number of quotation marks around the strings in JSON text: two for each string.

    >>> quotation_marks(rb'{"a": "5\" wide", "b": 1}')
    6
    """
    if b"\\" in text:
        text = _escape.sub(b"", text)
    return text.count(b'"')


def repeated_key_of(text: bytes, record: Any) -> str | None:
    """Return a key that an object in JSON text has twice, at any depth; None if there is none.

    Args:
        text: the text.
        record: the value of the text.

    >>> repeated_key_of(b'{"a": {"b": 1, "b": 2}}', {"a": {"b": 2}})
    'b'
    """
    try:
        if quotation_marks(to_json(record)) == quotation_marks(text):
            return None
    except ValueError:  # the record cannot be written again
        pass
    return repeated_key(text)


class _Objects(threading.local):
    """Collects the keys and values of each object in JSON text, without a call of Python code."""

    def __init__(self) -> None:
        self.found: list[list[tuple[str, Any]]] = []
        # An integer of any size is only copied; every number is a constant here.
        self.decode = json.JSONDecoder(
            strict=False,
            object_pairs_hook=self.found.append,
            parse_int=len,
            parse_float=len,
            parse_constant=len,
        ).decode


_objects = _Objects()


def repeated_key(text: str | bytes) -> str | None:
    """Return a key that an object in JSON text has twice, at any depth; None if there is none."""
    objects = _objects.found
    objects.clear()
    _objects.decode(text if isinstance(text, str) else text.decode("utf-8", "surrogatepass"))
    if sum(map(len, map(dict, objects))) == sum(map(len, objects)):
        return None
    keys = ([key for key, _ in pairs] for pairs in objects)
    return next(key for names in keys for key in names if names.count(key) > 1)
