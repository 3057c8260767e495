"""Recognise compressed data, and files that are not JSON lines, by their first bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

from afterimage.storage.errors import UnsupportedFileError

__all__ = ["HEAD_BYTES", "Compression", "compression_of", "refuse_other_formats"]

Compression = Literal["gzip", "zstd"]

HEAD_BYTES: Final = 512
"""Number of bytes that show the compression of a file."""

_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"

# A line that is longer than the data at hand could be an array.
_LONG_LINE: Final = 2**20

_UNPACK = "Unpack it, and give the files in it"

# What a file is, and what to do, by the position and the bytes of its mark.
_MARKS: Final[list[tuple[int, bytes, str, str]]] = [
    (0, _GZIP, "compressed twice", "Decompress it once"),
    (0, _ZSTD, "compressed twice", "Decompress it once"),
    (0, b"\xfd7zXZ\0", "compressed with xz", "Decompress it first"),
    (0, b"BZh", "compressed with bzip2", "Decompress it first"),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"PAR1", "a Parquet file", "Convert it, for example with to_json(…, lines=True) of pandas"),
    (0, b"ARROW1", "an Arrow file", "Convert it, for example with write_ndjson of Polars"),
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
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return None
    by_name: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
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
    if _ARRAY.match(head) and _is_array(head):
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
            "Convert it, for example with to_json(…, lines=True) of pandas",
        )


def _is_array(head: bytes) -> bool:
    """Return whether data is a JSON array, or its beginning, and no damaged record."""
    first, feed, _ = head.strip().partition(b"\n")
    if feed:
        return first.rstrip()[-1:] in (b"[", b",")
    return first.endswith(b"]") or len(first) >= _LONG_LINE
