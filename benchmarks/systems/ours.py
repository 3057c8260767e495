"""The measured calls of the public API, which our storages share."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.acero  # otherwise, the first count would import it

import afterimage.storage
from afterimage.storage import EvaluatedConversationWithContext
from benchmarks.harness.dataset import PAGE
from benchmarks.systems.base import SMALL_SAVES, RecordStore

if TYPE_CHECKING:  # earlier versions, which compare.py measures, have them elsewhere
    from afterimage.storage.query.arguments import OrderBy
    from afterimage.storage.record_storage import RecordStorage

__all__ = ["OurStore"]

# Import now everything that calls import on first use, so that only the work is measured.
for _module in pkgutil.walk_packages(afterimage.storage.__path__, "afterimage.storage."):
    if not _module.name.startswith("afterimage.storage.cli."):  # needs an extra
        importlib.import_module(_module.name)


class OurStore(RecordStore):
    """One of our storages; `open` constructs it, and creates its files if they do not exist."""

    model = EvaluatedConversationWithContext
    storage: RecordStorage

    def before(self, task: str) -> tuple[Any, ...]:
        match task:
            case "import_jsonl":
                return ()
            case "small_saves":
                self.open()
                return (self.ready_models()[:SMALL_SAVES],)
            case _:
                return super().before(task)

    def save(self, models: Sequence[Any]) -> None:
        self.open()
        self.storage.save_conversations(list(models))

    def load(self) -> list[Any]:
        return self.storage.load_conversations()

    def filtered(self) -> list[Any]:
        return self._page([(f"metadata.{self.data.sort_key}", -1 if self.data.descending else 1)])

    def unsorted_page(self) -> list[Any]:
        """The filtered page in insertion order."""
        return self._page(None)

    def _page(self, order_by: OrderBy) -> list[Any]:
        offset, limit = PAGE
        filters = {f"metadata.{self.data.filter_key}": self.data.filter_value}
        return self.storage.load_conversations(limit, offset, filters, order_by)

    def group(self) -> dict[str | None, int]:
        column = f"metadata.{self.data.filter_key}"
        table = self.storage.scan_conversations(columns=[column]).read_all()
        counted = table.group_by(column).aggregate([([], "count_all")])
        return dict(zip(*(column.to_pylist() for column in counted.columns), strict=True))

    def small_saves(self, models: Sequence[Any]) -> list[float]:
        """Save one record per call, and return the seconds of each call."""
        seconds = []
        for model in models:
            started = time.perf_counter()
            self.storage.save_conversations([model])
            seconds.append(time.perf_counter() - started)
        return seconds

    def stats(self) -> int:
        """All statistics."""
        return self.storage.stats().conversations

    def verify(self) -> int:
        """Check every record."""
        return self.storage.verify().conversations

    # -- bulk calls, whose memory is measured as the data grows --------------------------------

    def import_jsonl(self) -> int:
        """Import the file of the data set into a new store."""
        self.open()
        return self.storage.import_jsonl(self.data.path)

    def iter_conversations(self) -> int:
        """Iterate over all records."""
        return sum(1 for _ in self.storage.iter_conversations())

    def scan_conversations(self) -> int:
        """Read every record as Arrow."""
        reader: pa.RecordBatchReader = self.storage.scan_conversations()
        return sum(batch.num_rows for batch in reader)

    def export_jsonl(self) -> int:
        """Write every record to a JSONL file."""
        return self.storage.export_jsonl(self.folder / "exported.jsonl")

    def export_parquet(self) -> int:
        """Write every record to a Parquet file."""
        return self.storage.export_parquet(self.folder / "exported.parquet")
