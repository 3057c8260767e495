"""The published package `afterimage`: JSON lines, and every query is a loop in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from afterimage.types import EvaluatedConversationWithContext

from afterimage.storage import JSONLStorage
from benchmarks.systems.base import RecordStore, fsync_tree


class Store(RecordStore):
    """It cannot filter, sort or count: users load all records and do this themselves."""

    model = EvaluatedConversationWithContext

    def open(self) -> None:
        self.path = self.folder / "conversations.jsonl"
        self.storage = JSONLStorage(self.path, self.folder / "documents.jsonl")

    def save(self, models: Sequence[Any]) -> None:
        self.open()
        self.storage.save_conversations(list(models))
        fsync_tree(self.path)

    def load(self) -> list[Any]:
        return list(self.storage.load_conversations())

    def filtered(self) -> list[Any]:
        return self.data.pick(self.storage.load_conversations(), lambda record: record.metadata)

    def group(self) -> dict[str | None, int]:
        key = self.data.filter_key
        return Counter(record.metadata.get(key) for record in self.storage.load_conversations())
