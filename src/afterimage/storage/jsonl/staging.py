"""A temporary file that takes the lines of an import before they are appended to a JSONL file.

The invariant: the file has no name, so nothing of it remains after the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from afterimage.storage.errors import StorageError
from afterimage.storage.jsonl.sources import CHUNK_BYTES

__all__ = ["staged"]

# Bytes that are kept in memory; above this, in a file.
_BYTES_IN_MEMORY: Final = 16 * 2**20

_Writer = Callable[[bytes], object]
_Staged = Callable[[], tuple[int, Iterator[bytes]]]


@contextmanager
def staged(target: Path) -> Iterator[tuple[_Writer, _Staged]]:
    """Provide a function that takes bytes, and one that returns their number and blocks of them.

    Args:
        target: the file that will get the bytes; a temporary file is in its folder.
    """

    def refused(error: OSError) -> StorageError:
        return StorageError(
            f"{target.parent} cannot take a temporary file for the import: "
            f"{error.strerror or error}. Nothing was saved."
        )

    with tempfile.SpooledTemporaryFile(max_size=_BYTES_IN_MEMORY, dir=str(target.parent)) as file:

        def write(data: bytes) -> None:
            try:
                file.write(data)
            except OSError as error:
                raise refused(error) from error

        def result() -> tuple[int, Iterator[bytes]]:
            try:
                size = file.tell()
                file.seek(0)  # writes what is buffered
            except OSError as error:
                raise refused(error) from error
            return size, _blocks(file)

        yield write, result


def _blocks(file: IO[Any]) -> Iterator[bytes]:
    while data := file.read(CHUNK_BYTES):
        yield data
