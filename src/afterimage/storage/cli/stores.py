"""Which storage a STORE on the command line is.

What is there says it by its first bytes, what is not by its name. A store that is only read is
never made, and a DuckDB file that holds none is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from afterimage import storage
from afterimage.storage.errors import MissingFileError, SchemaMismatchError
from afterimage.storage.record_storage import RecordStorage

__all__ = ["Tables", "is_database", "open_existing", "open_or_make", "path_of"]

_URL = "duckdb:///"
_MEMORY = f"{_URL}:memory:"
_DATABASES = (".duckdb", ".ddb", ".db")
_LINES = (".jsonl", ".ndjson", ".json", ".gz", ".zst")


class Tables(NamedTuple):
    """The names of a database's tables; None for those that they have by default."""

    conversations: str | None = None
    documents: str | None = None

    def names(self) -> tuple[str, str]:
        return self.conversations or "conversations", self.documents or "documents"


USUAL = Tables()


def open_existing(store: str, kind: str = "conversations", tables: Tables = USUAL) -> RecordStorage:
    """The storage of that name, to read.

    Raises:
        MissingFileError: it is not there.
        SchemaMismatchError: it is a DuckDB file that holds no store.
        click.BadParameter: it is neither a DuckDB file nor JSON lines; or it is JSON lines, which
            have no `tables`.
    """
    path = path_of(store)
    if path is None:
        return storage.SQLStorage(store, *tables.names(), create=store.startswith(_MEMORY))
    if not path.exists():
        raise MissingFileError(f"{path}: no such store. Check the path.")
    if store.startswith(_URL) or is_database(path):
        if not is_database(path):
            raise SchemaMismatchError(f"{path} is not a DuckDB file.")
        try:
            return storage.SQLStorage(f"{_URL}{path}", *tables.names(), create=False)
        except SchemaMismatchError as error:
            raise SchemaMismatchError(
                f"{error} On the command line: --conversations-table and --documents-table; "
                "`import` makes the tables of a store."
            ) from None
    if path.suffix.lower() in _LINES or _holds_lines(path):
        return _lines(path, kind, tables)
    raise click.BadParameter(f"{path} is neither a DuckDB file nor a file of JSON lines.")


def open_or_make(
    store: str,
    kind: str = "conversations",
    tables: Tables = USUAL,
    metadata_fields: Sequence[str] = (),
) -> RecordStorage:
    """The storage of that name, to write; it is made where there is none.

    Raises:
        click.BadParameter: its name does not say what it is; or it is a file of JSON lines, which
            has no `metadata_fields` and no `tables`.
    """
    path = path_of(store)
    if path is None or store.startswith(_URL) or is_database(path) or _is(path, _DATABASES):
        url = store if path is None else f"{_URL}{path}"
        return storage.SQLStorage(url, *tables.names(), list(metadata_fields) or None)
    if not _is(path, _LINES) and not _holds_lines(path):
        raise click.BadParameter(
            f"the name {path} does not say what kind of store it is. End it in .duckdb or .jsonl, "
            "or give a URL."
        )
    if metadata_fields:
        raise click.BadParameter("only a DuckDB file has columns for metadata fields.")
    return _lines(path, kind, tables)


def is_database(path: Path) -> bool:
    """Whether a file is there and is one of DuckDB's."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(12)[8:] == b"DUCK"


def path_of(store: str) -> Path | None:
    """The file that a store is in; None where a URL says otherwise."""
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
        raise click.BadParameter(f"{path} is a file of JSON lines, which has no tables.")
    # Each kind has a file of its own, and here only one of them is given.
    none = path.with_name(f"{path.name}.none")
    paths = (none, path) if kind == "documents" else (path, none)
    return storage.JSONLStorage(*paths)
