"""Lance: a columnar data set on disk, filtered and sorted by its scanner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lance
import pyarrow as pa
import pyarrow.acero  # otherwise, the first count would import it
from lance.dataset import ColumnOrdering

from afterimage.storage.models import EvaluatedConversationWithContext
from benchmarks.harness.dataset import PAGE
from benchmarks.systems.base import RecordStore, fsync_tree


class Store(RecordStore):
    """Written with `write_dataset`; metadata is a struct that Arrow infers."""

    model = EvaluatedConversationWithContext

    def save(self, models: Sequence[Any]) -> None:
        path = self.folder / "conversations.lance"
        lance.write_dataset(pa.Table.from_pylist(self.rows(models)), path)
        fsync_tree(path)

    def open(self) -> None:
        self.dataset = lance.dataset(self.folder / "conversations.lance")

    def load(self) -> list[Any]:
        return self.validated(self.dataset.to_table().to_pylist())

    def filtered(self) -> list[Any]:
        offset, limit = PAGE
        value = self.data.filter_value.replace("'", "''")
        scanner = self.dataset.scanner(
            filter=f"metadata.`{self.data.filter_key}` = '{value}'",
            order_by=[
                ColumnOrdering(
                    f"metadata.{self.data.sort_key}",
                    ascending=not self.data.descending,
                    nulls_first=False,
                )
            ],
            offset=offset,
            limit=limit,
        )
        return self.validated(scanner.to_table().to_pylist())

    def group(self) -> dict[str | None, int]:
        table = self.dataset.to_table(columns={"key": f"metadata.`{self.data.filter_key}`"})
        counted = table.group_by("key").aggregate([([], "count_all")])
        return dict(zip(*(column.to_pylist() for column in counted.columns), strict=True))
