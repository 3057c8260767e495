"""Complete lines, torn lines, and blanks in place of lines that nobody reads."""

from __future__ import annotations

import codecs

from pydantic_core import from_json

__all__ = ["blank", "is_object", "is_torn"]

_BLANKS = bytes(10 if byte == 10 else 32 for byte in range(256))


def is_object(line: bytes, encoding: str = "utf-8") -> bool:
    """Return whether a line is a complete JSON object; a truncated write never is."""
    try:
        return isinstance(from_json(line.decode(encoding)), dict)
    except ValueError:
        return False


def is_torn(line: bytes, encoding: str = "utf-8") -> bool:
    """Return whether a last line without a line feed can be the start of a record.

    After a power cut, zeros can follow the start of the record, or replace all of it.

    >>> is_torn(b'{"conversations":[{"role":"us'), is_torn(b"]"), is_torn(b'{"a":1}')
    (True, False, False)
    """
    start = line.partition(b"\0")[0].lstrip()
    if not start:
        return bool(line)
    if not start.startswith(b"{"):
        return False
    try:
        # The last character may be incomplete.
        from_json(codecs.getincrementaldecoder(encoding)().decode(start))
    except ValueError as error:
        return str(error).startswith("EOF while parsing")
    return start != line.lstrip()  # zeros after a whole record


def blank(data: bytes | bytearray) -> bytes:
    """Return as many blanks, with the same line feeds: readers skip these lines."""
    return bytes(data.translate(_BLANKS))
