"""The storages of the conformance suite, restricted variants included.

A test gets a storage and never knows which: all of them must behave the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import JSONLStorage, SQLStorage
from tests.support.postgres import missing_for_lakes, shared_server

Storage = JSONLStorage | SQLStorage


class Reopened:
    """Passes every call to a new storage, so that no state is kept between calls."""

    def __init__(self, construct: Callable[[], Storage]) -> None:
        self._construct = construct

    def __getattr__(self, name: str) -> Any:
        return getattr(self._construct(), name)


@dataclass(frozen=True)
class Factory:
    """One kind of storage.

    Attributes:
        name: id of the test parameter.
        storage_class: the class to construct, or the base of a subclass that a test needs.
        construct: makes a storage of the given class, with its files in the given empty folder.
        reopened: whether every call goes to a new storage.
        missing: returns what is missing on this machine for such a storage; None if nothing is.
    """

    name: str
    storage_class: type[Any]
    construct: Callable[[type[Any], Path], Storage]
    reopened: bool = False
    missing: Callable[[], str | None] = lambda: None

    def open(self, folder: Path, mixin: type | None = None) -> Any:
        """Open a storage in `folder`; `mixin` comes first in the method resolution order."""
        cls = self.storage_class
        if mixin is not None:
            cls = type(f"{mixin.__name__}{cls.__name__}", (mixin, cls), {})
        if self.reopened:
            return Reopened(lambda: self.construct(cls, folder))
        return self.construct(cls, folder)


def _jsonl(cls: type[Any], folder: Path) -> Any:
    return cls(folder / "conversations.jsonl", folder / "documents.jsonl")


def _sql_file(cls: type[Any], folder: Path) -> Any:
    return cls(f"duckdb:///{folder / 'store.duckdb'}")


def _sql_memory(cls: type[Any], folder: Path) -> Any:
    return cls("duckdb:///:memory:")


def _sql_tiny_batches(cls: type[Any], folder: Path) -> Any:
    return cls("duckdb:///:memory:", batch_size=1)


def _sql_metadata_fields(cls: type[Any], folder: Path) -> Any:
    # Keys that the suite filters and sorts by, so that its queries use their columns.
    return cls("duckdb:///:memory:", metadata_fields=_METADATA_FIELDS)


_METADATA_FIELDS = ["domain", "n", "k.l", 'q"x', "late"]


def _lake_file(cls: type[Any], folder: Path) -> Any:
    return cls(f"ducklake:///{folder / 'store.ducklake'}?data_path={folder / 'data'}")


def _lake_url(folder: Path) -> str:
    # The folder of a storage names its schema too, so that it can be opened again.
    schema = f"lake_{sha256(str(folder).encode()).hexdigest()[:16]}"
    return shared_server().url(folder / "data", schema)


def _server_missing() -> str | None:
    return missing_for_lakes(server=True)


def _lake_postgres(cls: type[Any], folder: Path) -> Any:
    return cls(_lake_url(folder))


def _lake_metadata_fields(cls: type[Any], folder: Path) -> Any:
    return cls(_lake_url(folder), metadata_fields=_METADATA_FIELDS)


# Variants that do not test the file are in memory: opening a file takes longer than most tests.
_LOCAL = [
    Factory("jsonl", JSONLStorage, _jsonl),
    Factory("jsonl-reopened", JSONLStorage, _jsonl, reopened=True),
    Factory("sql-file", SQLStorage, _sql_file),
    Factory("sql-file-reopened", SQLStorage, _sql_file, reopened=True),
    Factory("sql-memory", SQLStorage, _sql_memory),
    Factory("sql-tiny-batches", SQLStorage, _sql_tiny_batches),
    Factory("sql-metadata-fields", SQLStorage, _sql_metadata_fields),
]

# The session `lake` runs the suite with them: they need extensions of DuckDB, and a server.
LAKES = [
    Factory("lake-file", SQLStorage, _lake_file, missing=lambda: missing_for_lakes(server=False)),
    Factory("lake-postgres", SQLStorage, _lake_postgres, missing=_server_missing),
    Factory("lake-metadata-fields", SQLStorage, _lake_metadata_fields, missing=_server_missing),
]

FACTORIES = [*_LOCAL, *(LAKES if os.environ.get("AFTERIMAGE_LAKES") else [])]

# Variants of the others, which the session `slow` runs.
_SLOW = {"jsonl-reopened", "sql-file-reopened", "sql-tiny-batches"}


def parameters(factories: list[Factory]) -> list[Any]:
    """Return factories as parameters of a fixture; the variants are marked slow."""
    return [
        pytest.param(each, id=each.name, marks=pytest.mark.slow if each.name in _SLOW else ())
        for each in factories
    ]


LARGE_FACTORIES = [factory for factory in FACTORIES if factory.name != "sql-tiny-batches"]
"""The storages for tests with thousands of records: one record a batch would take seconds."""

_EVALUATORS = {"jsonl", "sql-memory", "sql-metadata-fields", *(each.name for each in LAKES)}
EVALUATORS = [
    factory for factory in FACTORIES if factory.name in _EVALUATORS and factory.missing() is None
]
"""The storages with different query implementations, for tests with hundreds of queries."""
