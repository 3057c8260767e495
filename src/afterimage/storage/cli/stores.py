"""Open the storage for a STORE argument of the command line, and say why nothing was found in it.

The kind of an existing store is determined by its first bytes, that of a new one by its name.
Commands that only read never create a store, and never create tables in a DuckDB file.
"""

from __future__ import annotations

import codecs
import difflib
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from afterimage import storage
from afterimage.storage.cli.render import say
from afterimage.storage.errors import (
    InvalidQueryError,
    MissingFileError,
    SchemaMismatchError,
    StorageError,
    UnsupportedFileError,
    counted,
    shorten,
)
from afterimage.storage.jsonl.containers import HEAD_BYTES, compression_of, refuse_other_formats
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.transfer.remote import is_url, without_secrets

__all__ = [
    "USUAL",
    "Opening",
    "call_of",
    "explain_fields",
    "explain_nothing",
    "explain_offset",
    "hidden",
    "is_database",
    "open_existing",
    "open_or_make",
    "path_of",
]

_URL = "duckdb:///"
_MEMORY = f"{_URL}:memory:"
_DATABASES = (".duckdb", ".ddb", ".db")
# Metadata keys among which a misspelt one is searched.
_MOST_KEYS = 1000
# Bytes that show the format of a file, as many as a read of it checks.
_HEAD_BYTES = 4 * 2**20
_LINES = (".jsonl", ".ndjson", ".json", ".gz", ".zst", ".xz")


class Opening(NamedTuple):
    """How a store is opened.

    Attributes:
        conversations: name of the table of conversations in a database; None for the default name.
        documents: name of the table of documents, likewise.
        lock_timeout: seconds to wait while another process uses the store.
    """

    conversations: str | None = None
    documents: str | None = None
    lock_timeout: float = 30

    def names(self) -> tuple[str, str]:
        return self.conversations or "conversations", self.documents or "documents"


USUAL = Opening()


def call_of(store: RecordStorage, verb: str, kind: str) -> Any:
    """Return a method of a store, such as `delete_documents`."""
    return getattr(store, f"{verb}_{kind}")


def open_existing(
    store: str, kind: str = "conversations", opening: Opening = USUAL
) -> RecordStorage:
    """Open an existing store for reading.

    Raises:
        MissingFileError: the store does not exist.
        SchemaMismatchError: it is a DuckDB file without these tables.
        UnsupportedFileError: it is neither a DuckDB file nor a JSONL file.
        InvalidQueryError: it is a JSONL file and tables are given.
    """
    path = path_of(store)
    if path is None:
        return storage.SQLStorage(
            store,
            *opening.names(),
            create=store.startswith(_MEMORY),
            lock_timeout=opening.lock_timeout,
        )
    if not path.exists():
        raise MissingFileError(f"the store {path} does not exist. Check the path.")
    _refuse_folder(path)
    if store.startswith(_URL) or is_database(path):
        if not is_database(path):
            raise UnsupportedFileError(f"{path} is not a DuckDB file.")
        try:
            return storage.SQLStorage(
                path, *opening.names(), create=False, lock_timeout=opening.lock_timeout
            )
        except SchemaMismatchError as error:
            raise SchemaMismatchError(
                f"{error} On the command line, use --conversations-table and --documents-table; "
                "`import` creates the tables."
            ) from None
    if path.suffix.lower() in _LINES or _holds_lines(path):
        return _lines(path, kind, opening)
    raise UnsupportedFileError(f"{path} is neither a DuckDB file nor a JSONL file.")


def open_or_make(
    store: str,
    kind: str = "conversations",
    opening: Opening = USUAL,
    metadata_fields: Sequence[str] = (),
) -> RecordStorage:
    """Open a store for writing; create it if it does not exist.

    Raises:
        InvalidQueryError: the name does not determine the kind of store; or it is a JSONL file
            and `metadata_fields` or tables are given.
        UnsupportedFileError: it is a folder, or a file of another kind.
    """
    path = path_of(store)
    is_named = store.startswith(_URL) or (path is not None and _is(path, _DATABASES))
    if path is not None:
        _refuse_folder(path)
        if is_named and path.exists() and path.stat().st_size and not is_database(path):
            raise UnsupportedFileError(f"{path} is not a DuckDB file.")
    if path is None or is_named or is_database(path):
        return storage.SQLStorage(
            path or store,
            *opening.names(),
            list(metadata_fields) or None,
            lock_timeout=opening.lock_timeout,
        )
    if not _is(path, _LINES) and not _holds_lines(path):
        raise InvalidQueryError(
            f"the kind of store is not clear from the name {path}. Use a name that ends in .duckdb "
            "or .jsonl, or give a URL."
        )
    if metadata_fields:
        raise InvalidQueryError("--metadata-field is for DuckDB files only.")
    return _lines(path, kind, opening)


def hidden(store: str) -> str:
    """Return an argument without the password that its URL may have.

    >>> hidden("ducklake+postgresql://me:secret@db/talks"), hidden("talks.duckdb")
    ('ducklake+postgresql://me:***@db/talks', 'talks.duckdb')
    >>> hidden("sftp://me:secret@host/talks.jsonl")
    'sftp://host/talks.jsonl'
    """
    if is_url(store):
        return without_secrets(store)
    return re.sub(r"^([a-z0-9+]+://[^:/@]*:).*@", r"\1***@", store, flags=re.I)


def explain_nothing(
    store: RecordStorage, kind: str, filters: Iterable[tuple[str, str, Any]]
) -> None:
    """Print one line on stderr that says why no record was found."""
    try:
        say(_reason(store, kind, list(filters)), err=True)
    except StorageError:  # the command itself has succeeded
        say(f"No {kind} found.", err=True)


def explain_fields(store: RecordStorage, kind: str, fields: Iterable[str]) -> None:
    """Print a line on stderr for each field that is a metadata key that no record has."""
    with suppress(StorageError):  # the command itself has succeeded
        for field in dict.fromkeys(fields):
            if field.startswith("metadata.") and not _has(store, kind, field):
                total = counted(_counts(store)[kind](), kind)
                say(f"None of the {total} has {field}.{_similar(store, kind, field)}", err=True)


def explain_offset(
    store: RecordStorage, kind: str, filters: Sequence[tuple[str, str, Any]], offset: int
) -> None:
    """Print one line on stderr that says that there are not as many records as were skipped."""
    with suppress(StorageError):
        count = counted(_counts(store)[kind](filters), kind)
        matching = " that match" if filters else ""
        say(f"--offset {offset} is past the end: there are {count}{matching}.", err=True)


def _has(store: RecordStorage, kind: str, field: str) -> bool:
    scan = {
        "conversations": store.scan_conversations,
        "documents": store.scan_documents,
    }.get(kind)
    if scan is None:  # records of other models have no declared columns
        return bool(store.count_records([(field, "!=", None)]))
    found = scan([field], filters=[(field, "!=", None)], limit=1)
    return any(batch.num_rows for batch in found)


def _counts(store: RecordStorage) -> dict[str, Callable[..., int]]:
    return {
        "conversations": store.count_conversations,
        "documents": store.count_documents,
        "records": store.count_records,
    }


def _reason(store: RecordStorage, kind: str, filters: list[tuple[str, str, Any]]) -> str:
    count = _counts(store)
    total = count[kind]()
    if not total:
        others = [
            counted(number, "records of other models" if name == "records" else name)
            for name, call in count.items()
            if name != kind and (number := call())
        ]
        return f"The store has no {kind}" + (f", but {' and '.join(others)}." if others else ".")
    for field, _, _ in filters:
        if field.startswith("metadata.") and not count[kind]([(field, "!=", None)]):
            return f"None of the {counted(total, kind)} has {field}.{_similar(store, kind, field)}"
    return f"None of the {counted(total, kind)} matches."


def _similar(store: RecordStorage, kind: str, field: str) -> str:
    if kind != "conversations":
        return ""
    keys = [each.key for each in store.stats(top_keys=_MOST_KEYS).metadata_keys]
    near = difflib.get_close_matches(field.removeprefix("metadata."), keys, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(f'metadata.{key}' for key in near)}?"
    return f" Keys: {shorten(', '.join(keys), 300)}." if keys else ""


def is_database(path: Path) -> bool:
    """Return whether a file exists and is a DuckDB file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(12)[8:] == b"DUCK"


def path_of(store: str) -> Path | None:
    """Return the path of the file of a store; None for a URL of something else.

    Raises:
        InvalidQueryError: it is a URL without a name.
    """
    if store == _URL:
        raise InvalidQueryError(f"{_URL} does not name a file. Give {_URL}talks.duckdb.")
    if store.startswith(_URL) and not store.startswith(_MEMORY):
        store = store.removeprefix(_URL)
    return None if "://" in store else Path(store)


def _is(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes


def _holds_lines(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4096).lstrip().startswith(b"{")


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise UnsupportedFileError(f"{path} is a folder. Give a file.")


def _lines(path: Path, kind: str, opening: Opening) -> RecordStorage:
    if opening.names() != USUAL.names():
        raise InvalidQueryError(f"{path} is a JSONL file, which has no tables.")
    if path.is_file():  # before the storage creates a lock file next to it
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
        if compression_of(head[:HEAD_BYTES], path.suffix) is None:
            refuse_other_formats(path, head)
    # JSONLStorage has one file per kind, but only one file is given here.
    none = path.with_name(f".{uuid.uuid4().hex}")  # there is no such file
    paths = (none, path) if kind == "documents" else (path, none)
    store = storage.JSONLStorage(*paths)
    store.lock_timeout = opening.lock_timeout
    return store
