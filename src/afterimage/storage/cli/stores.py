"""Open the storage for a STORE argument of the command line, and say why nothing was found in it.

The kind of an existing store is determined by its first bytes, that of a new one by its name.
Commands that only read never create a store, and never create tables in a DuckDB file.
"""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from afterimage import storage
from afterimage.storage.cli.render import say
from afterimage.storage.errors import (
    MissingFileError,
    SchemaMismatchError,
    StorageError,
    counted,
    shorten,
)
from afterimage.storage.record_storage import RecordStorage

__all__ = ["Tables", "explain_nothing", "is_database", "open_existing", "open_or_make", "path_of"]

_URL = "duckdb:///"
_MEMORY = f"{_URL}:memory:"
_DATABASES = (".duckdb", ".ddb", ".db")
# Metadata keys among which a misspelt one is searched.
_MOST_KEYS = 1000
_LINES = (".jsonl", ".ndjson", ".json", ".gz", ".zst")


class Tables(NamedTuple):
    """The names of the tables in a database; None for the default name."""

    conversations: str | None = None
    documents: str | None = None

    def names(self) -> tuple[str, str]:
        return self.conversations or "conversations", self.documents or "documents"


USUAL = Tables()


def open_existing(store: str, kind: str = "conversations", tables: Tables = USUAL) -> RecordStorage:
    """Open an existing store for reading.

    Raises:
        MissingFileError: the store does not exist.
        SchemaMismatchError: it is a DuckDB file without these tables.
        click.BadParameter: it is neither a DuckDB file nor a JSONL file; or it is a JSONL file and
            `tables` are given.
    """
    path = path_of(store)
    if path is None:
        return storage.SQLStorage(store, *tables.names(), create=store.startswith(_MEMORY))
    if not path.exists():
        raise MissingFileError(f"the store {path} does not exist. Check the path.")
    if store.startswith(_URL) or is_database(path):
        if not is_database(path):
            raise SchemaMismatchError(f"{path} is not a DuckDB file.")
        try:
            return storage.SQLStorage(path, *tables.names(), create=False)
        except SchemaMismatchError as error:
            raise SchemaMismatchError(
                f"{error} On the command line, use --conversations-table and --documents-table; "
                "`import` creates the tables."
            ) from None
    if path.suffix.lower() in _LINES or _holds_lines(path):
        return _lines(path, kind, tables)
    raise click.BadParameter(f"{path} is neither a DuckDB file nor a JSONL file.")


def open_or_make(
    store: str,
    kind: str = "conversations",
    tables: Tables = USUAL,
    metadata_fields: Sequence[str] = (),
) -> RecordStorage:
    """Open a store for writing; create it if it does not exist.

    Raises:
        click.BadParameter: the name does not determine the kind of store; or it is a JSONL file
            and `metadata_fields` or `tables` are given.
    """
    path = path_of(store)
    if path is None or store.startswith(_URL) or is_database(path) or _is(path, _DATABASES):
        return storage.SQLStorage(path or store, *tables.names(), list(metadata_fields) or None)
    if not _is(path, _LINES) and not _holds_lines(path):
        raise click.BadParameter(
            f"the kind of store is not clear from the name {path}. Use a name that ends in .duckdb "
            "or .jsonl, or give a URL."
        )
    if metadata_fields:
        raise click.BadParameter("--metadata-field is for DuckDB files only.")
    return _lines(path, kind, tables)


def explain_nothing(
    store: RecordStorage, kind: str, filters: Iterable[tuple[str, str, Any]]
) -> None:
    """Print one line on stderr that says why no record was found."""
    try:
        say(_reason(store, kind, list(filters)), err=True)
    except StorageError:  # the command itself has succeeded
        say(f"No {kind} found.", err=True)


def _reason(store: RecordStorage, kind: str, filters: list[tuple[str, str, Any]]) -> str:
    count = {
        "conversations": store.count_conversations,
        "documents": store.count_documents,
        "records": store.count_records,
    }
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
    """Return the path of the file of a store; None if a URL does not name a file."""
    if store.startswith(_URL) and not store.startswith(_MEMORY):
        store = store.removeprefix(_URL)
    return None if "://" in store or not store else Path(store)


def _is(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes


def _holds_lines(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4096).lstrip().startswith(b"{")


def _lines(path: Path, kind: str, tables: Tables) -> RecordStorage:
    if tables != USUAL:
        raise click.BadParameter(f"{path} is a JSONL file, which has no tables.")
    # JSONLStorage has one file per kind, but only one file is given here.
    none = path.with_name(f".{uuid.uuid4().hex}")  # there is no such file
    paths = (none, path) if kind == "documents" else (path, none)
    return storage.JSONLStorage(*paths)
