"""Our `JSONLStorage`."""

from __future__ import annotations

from afterimage.storage import JSONLStorage
from benchmarks.systems.ours import OurStore


class Store(OurStore):
    """A JSONL file."""

    def open(self) -> None:
        self.storage = JSONLStorage(
            self.folder / "conversations.jsonl", self.folder / "documents.jsonl"
        )
