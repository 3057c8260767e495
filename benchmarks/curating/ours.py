"""This package: the same calls for both storages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import afterimage.storage.jsonl.select  # noqa: F401  the other systems import their engine, too
from afterimage.storage import JSONLStorage, SQLStorage
from benchmarks.curating.base import (
    CHANGES,
    DELETED,
    PHRASE,
    SHARE,
    UPDATED,
    Curator,
    synced,
)


class Ours(Curator):
    """The public calls; `saved_…` and `copied` are what edits are compared with."""

    def make(self, name: str, lines: Path) -> None:
        self.open(name).import_jsonl(lines)

    def search(self, store: Any) -> Any:
        return store.count_conversations([("messages.content", "icontains", PHRASE)])

    def dedupe(self, store: Any) -> Any:
        return store.deduplicate()

    def split(self, store: Any, out: Path) -> Any:
        parts = {"train": SHARE, "validation": 1 - SHARE}
        return int(store.export_jsonl(out, split=parts, seed=7))

    def delete(self, store: Any) -> Any:
        return store.delete_conversations([("metadata.part", "<", DELETED)])

    def update(self, store: Any) -> Any:
        return store.update_conversations([("metadata.part", "<", UPDATED)], CHANGES)

    def diff(self, store: Any, other: Any) -> Any:
        found = store.diff(other)
        return found.both, found.only_here, found.only_there, found.changed


class SqlCurator(Ours):
    """A DuckDB file without declared metadata keys."""

    def open(self, name: str) -> SQLStorage:
        return SQLStorage(self.at(name) / "talks.duckdb")

    def records(self, store: SQLStorage, part: int) -> Any:
        """The records that an edit touches."""
        return store.load_conversations(filters=[("metadata.part", "<", part)])

    def saved(self, store: SQLStorage, records: Any) -> int:
        store.save_conversations(records)
        return len(records)


class JsonlCurator(Ours):
    """A JSON lines file."""

    def open(self, name: str) -> JSONLStorage:
        return JSONLStorage(self.at(name) / "talks.jsonl", self.at(name) / "documents.jsonl")

    def copied(self, store: JSONLStorage) -> int:
        target = store.conversations_path.with_name("copy.jsonl")
        shutil.copyfile(store.conversations_path, target)
        synced(target)
        return target.stat().st_size
