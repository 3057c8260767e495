"""What JSON records come in: compressed data, arrays, and other files, by their first bytes."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final, Literal

from afterimage.storage.errors import UnsupportedFileError

__all__ = [
    "HEAD_BYTES",
    "ArrayError",
    "Compression",
    "compression_of",
    "is_array",
    "lines_of_array",
    "refuse_other_formats",
]

Compression = Literal["gzip", "zstd", "xz"]

HEAD_BYTES: Final = 512
"""Number of bytes that show the compression of a file."""

_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_XZ = b"\xfd7zXZ\0"

# A line that is longer than the data at hand could be an array.
_LONG_LINE: Final = 2**20

_UNPACK = "Unpack it, and give the files in it"

# What a file is, and what to do, by the position and the bytes of its mark.
_MARKS: Final[list[tuple[int, bytes, str, str]]] = [
    (0, _GZIP, "compressed twice", "Decompress it once"),
    (0, _ZSTD, "compressed twice", "Decompress it once"),
    (0, _XZ, "compressed twice", "Decompress it once"),
    (0, b"BZh", "compressed with bzip2", "Decompress it first"),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"PAR1", "a Parquet file", "Import it with import_parquet"),
    (
        0,
        b"ARROW1",
        "an Arrow file",
        "Read it with pyarrow.ipc, and give the result to import_arrow",
    ),
    (0, b"SQLite format 3\0", "a SQLite database", "Export its rows as JSON lines"),
    (8, b"DUCK", "a DuckDB file", "Open it with SQLStorage and export it to JSON lines first"),
    (0, b"\xff\xfe\0\0", "UTF-32 text", "Convert it to UTF-8: iconv -f UTF-32 -t UTF-8"),
    (0, b"\0\0\xfe\xff", "UTF-32 text", "Convert it to UTF-8: iconv -f UTF-32 -t UTF-8"),
    (0, b"\xff\xfe", "UTF-16 text", "Convert it to UTF-8: iconv -f UTF-16 -t UTF-8"),
    (0, b"\xfe\xff", "UTF-16 text", "Convert it to UTF-8: iconv -f UTF-16 -t UTF-8"),
    (0, b'{\0"\0', "UTF-16 text", "Convert it to UTF-8: iconv -f UTF-16LE -t UTF-8"),
    (0, b'\0{\0"', "UTF-16 text", "Convert it to UTF-8: iconv -f UTF-16BE -t UTF-8"),
]

# A line that is a whole object, unless it is the last element of an array.
_OBJECT: Final = re.compile(rb"^[ \t]*\{[^\n]*\}[ \t\r]*(?:\n(?!\s*\])|\Z)", re.MULTILINE)
_ARRAY: Final = re.compile(rb"\s*\[\s*(?:\{|\Z)")
_SPREAD: Final = re.compile(rb"\s*\{[ \t\r]*\n\s*[\"}]")
# Two lines with separators, the first without brackets: a damaged record has some.
_HEADER: Final = re.compile(rb"\s*[^{}\[\]\n]*[,;\t][^{}\[\]\n]*\n[^\n]*[,;\t]")


def compression_of(head: bytes, suffix: str) -> Compression | None:
    """Return how a file is compressed; None if it is not.

    Args:
        head: its first bytes.
        suffix: the suffix of its name. It decides if the bytes are unknown: they may be damaged.
    """
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD):
        return "zstd"
    if head.startswith(_XZ):
        return "xz"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return None
    by_name: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".xz": "xz"}
    return by_name.get(suffix.lower())


def refuse_other_formats(path: Path, head: bytes) -> None:
    """Refuse data of a format that is not JSON lines.

    A file of JSON lines with damaged lines is not refused: the first object on a line of its own
    shows that it is one.

    Args:
        path: the file.
        head: its first bytes, decompressed; the more of them, the surer.

    Raises:
        UnsupportedFileError: the file has another format.
    """
    for start, mark, what, remedy in _MARKS:
        if head.startswith(mark, start):
            raise UnsupportedFileError.of(path, what, remedy)
    first = head[:HEAD_BYTES].lstrip()
    if first.startswith(b"{") and not _SPREAD.match(head):
        return
    if _OBJECT.search(head):
        return
    if is_array(head):
        raise UnsupportedFileError.of(
            path, "a JSON array", "Write one object per line, for example with jq -c '.[]'"
        )
    if _SPREAD.match(head):
        raise UnsupportedFileError.of(
            path, "JSON over several lines", "Write one object per line, for example with jq -c ."
        )
    if b"\0" not in head and _HEADER.match(head) and not re.search(rb"^\s*\{", head, re.MULTILINE):
        raise UnsupportedFileError.of(
            path,
            "text such as CSV",
            "Read it, for example with read_csv of pandas or DuckDB, and give the result to "
            "import_arrow",
        )


def is_array(head: bytes) -> bool:
    """Return whether data is a JSON array of objects, or its beginning, and no damaged record.

    >>> is_array(b'[{"a":1}]'), is_array(b'{"a":[{"b":1}]}')
    (True, False)
    """
    if not _ARRAY.match(head) or _OBJECT.search(head):
        return False
    first, feed, _ = head.strip().partition(b"\n")
    if feed:
        return first.rstrip()[-1:] in (b"[", b",")
    return first.endswith(b"]") or len(first) >= _LONG_LINE


class ArrayError(ValueError):
    """A JSON array is damaged."""


def lines_of_array(blocks: Iterator[bytes]) -> Iterator[bytes]:
    r"""Yield the elements of a JSON array as JSON lines, in blocks.

    The text of an element is not changed, but line feeds between its values become spaces. The time
    is linear, and the memory is bounded by the longest element.

    Args:
        blocks: the bytes of the array, from its opening bracket.

    Raises:
        ArrayError: the array is damaged; raised after the elements before the damage.

    >>> list(lines_of_array(iter([b'[{"a":', b'1},\n {"b":\n2}] '])))
    [b'{"a":1}\n{"b": 2}\n']
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    text, needed, elements = "", 0, _Elements()
    for block in chain(blocks, [None]):
        is_last = block is None
        try:
            text += decoder.decode(block or b"", final=is_last)
        except UnicodeDecodeError as error:
            raise ArrayError(f"not UTF-8 after {elements.count:,} elements: {error}") from None
        if len(text) < needed and not is_last:
            continue
        lines, end = elements.within(text, is_last=is_last)
        if lines:
            yield "".join(lines).encode()
        text = text[end:]
        # A long element is read from its start again only after as much text has been added.
        needed = 2 * len(text)
        if is_last and (text or not elements.is_closed):
            raise ArrayError(
                f"the array is damaged after {elements.count:,} elements: {elements.fault}"
            )


_ANY_JSON: Final = json.JSONDecoder(
    strict=False,
    # The value is not used: only where its text ends. So numbers of any size will do.
    parse_int=len,
    parse_float=len,
    parse_constant=len,
)
_ONE_LINE: Final = {ord("\n"): " ", ord("\r"): " "}
_SPACE: Final = re.compile(r"[ \t\r\n]*")
# What a number can go on with, as `.` after `3`, or nothing.
_NUMBER_REST: Final = re.compile(r"[0-9.eE+-]*")


class _Elements:
    """The elements of an array whose text comes in pieces.

    Attributes:
        count: number of elements so far.
        is_closed: whether the closing bracket was found.
        fault: why the last piece was not read to its end.
    """

    def __init__(self) -> None:
        self.count = 0
        self.is_closed = False
        self.fault = "it does not end"
        self._expected: Literal["[", "element or ]", "element", ", or ]"] = "["

    def within(self, text: str, *, is_last: bool) -> tuple[list[str], int]:
        """Return the next elements in a text as lines, and where what was not read begins."""
        lines: list[str] = []
        at = 0
        while True:
            match = _SPACE.match(text, at)
            at = match.end() if match else at
            mark = text[at : at + 1]
            if not mark:
                return lines, at
            if self.is_closed:
                self.fault = "there is more text after it"
                return lines, at
            if "element" in self._expected and mark != "]":
                try:
                    _, end = _ANY_JSON.raw_decode(text, at)
                except ValueError as error:
                    self.fault = str(error)
                    return lines, at
                if not is_last and _NUMBER_REST.fullmatch(text, end):  # a number may go on
                    return lines, at
                lines.append(text[at:end].translate(_ONE_LINE) + "\n")
                self.count += 1
                at, self._expected = end, ", or ]"
                continue
            if mark not in self._expected:
                self.fault = f"{mark!r} in place of {self._expected}"
                return lines, at
            self.is_closed = mark == "]"
            self._expected = "element or ]" if mark == "[" else "element"
            at += 1
