"""Polars: a frame written as NDJSON and scanned lazily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from afterimage.storage.models import EvaluatedConversationWithContext
from benchmarks.harness.dataset import PAGE
from benchmarks.systems.base import RecordStore, fsync_tree


class Store(RecordStore):
    """The schema is inferred from the whole file when it is opened, and passed to each query.

    By default, Polars infers it from the first rows. That schema is wrong if a metadata key
    appears later.
    """

    model = EvaluatedConversationWithContext

    def save(self, models: Sequence[Any]) -> None:
        path = self.folder / "conversations.ndjson"
        pl.DataFrame(self.rows(models), infer_schema_length=None).write_ndjson(path)
        fsync_tree(path)

    def open(self) -> None:
        self.path = self.folder / "conversations.ndjson"
        self.schema = pl.scan_ndjson(self.path, infer_schema_length=None).collect_schema()

    def load(self) -> list[Any]:
        return self.validated(pl.read_ndjson(self.path, schema=self.schema).to_dicts())

    def filtered(self) -> list[Any]:
        offset, limit = PAGE
        metadata = pl.col("metadata").struct
        found = (
            pl.scan_ndjson(self.path, schema=self.schema)
            .filter(metadata.field(self.data.filter_key) == self.data.filter_value)
            .sort(
                metadata.field(self.data.sort_key),
                descending=self.data.descending,
                nulls_last=True,
                maintain_order=True,
            )
            .slice(offset, limit)
            .collect()
        )
        return self.validated(found.to_dicts())

    def group(self) -> dict[str | None, int]:
        key = pl.col("metadata").struct.field(self.data.filter_key)
        counted = pl.scan_ndjson(self.path, schema=self.schema).group_by(key).len().collect()
        return dict(counted.iter_rows())
