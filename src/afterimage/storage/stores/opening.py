"""`open_storage`: the storage for a path or a URL, by what the file contains."""

from __future__ import annotations

import os
from pathlib import Path

from afterimage.storage.errors import MissingFileError, UnsupportedFileError
from afterimage.storage.jsonl_storage import JSONLStorage
from afterimage.storage.sql_storage import SQLStorage
from afterimage.storage.system.targets import system_path

__all__ = ["open_storage"]

_DATABASES = (".duckdb", ".ddb", ".db")
_LINES = (".jsonl", ".ndjson")
_COMPRESSED = (".gz", ".zst")
_COMPRESSED_MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


def open_storage(
    path: str | os.PathLike[str],
    documents_path: str | os.PathLike[str] | None = None,
    *,
    create: bool = False,
    lock_timeout: float = 30,
) -> SQLStorage | JSONLStorage:
    """Return the storage that a file needs: `SQLStorage` for DuckDB, `JSONLStorage` for lines.

    An existing file is recognised by its content, a new one by its ending.

    Args:
        path: a file of conversations, a DuckDB file, or a URL as of `SQLStorage`.
        documents_path: the file of the documents of a JSONL storage; by default, the file beside it
            whose name ends in `.documents.jsonl`.
        create: whether the first save may create the file. Otherwise, a missing file is an error.
        lock_timeout: seconds to wait while another process uses the file.

    Raises:
        MissingFileError: the file does not exist, and `create` is false.
        UnsupportedFileError: the file is a folder, compressed, or neither DuckDB nor JSON lines; or
            the ending of a new one is not known.
        UnsupportedURLError: the URL names another kind of database.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> type(open_storage(folder / "talks.jsonl", create=True)).__name__
    'JSONLStorage'
    >>> type(open_storage(folder / "talks.duckdb", create=True)).__name__
    'SQLStorage'
    """
    text = os.fspath(path)
    if "://" in text or text.startswith(":memory:"):
        is_memory = ":memory:" in text
        return SQLStorage(text, create=create or is_memory, lock_timeout=lock_timeout)
    file = system_path(Path(text))
    if file.is_dir():
        raise UnsupportedFileError(f"{file} is a folder. Give a file.")
    beginning = b""
    if file.exists():
        with file.open("rb") as stream:
            beginning = stream.read(4096)
    elif not create:
        raise MissingFileError(
            f"{file} does not exist. Check the path, or open it with create=True."
        )
    suffix = file.suffix.lower()
    if beginning[8:12] == b"DUCK" or (not beginning and suffix in _DATABASES):
        return SQLStorage(file, create=create, lock_timeout=lock_timeout)
    if beginning.startswith(_COMPRESSED_MAGIC) or (not beginning and suffix in _COMPRESSED):
        raise UnsupportedFileError(
            f"{file} is compressed, so it cannot be a storage. Import it: "
            "JSONLStorage('talks.jsonl').import_jsonl(path)."
        )
    if suffix not in _LINES and not beginning.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{"):
        raise UnsupportedFileError(
            f"{file} is neither a DuckDB file nor a JSONL file. Give a file that ends in .duckdb "
            "or .jsonl."
        )
    documents = documents_path or file.with_name(f"{file.stem}.documents.jsonl")
    store = JSONLStorage(file, Path(documents))
    store.lock_timeout = lock_timeout
    return store
