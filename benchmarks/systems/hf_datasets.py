"""Hugging Face `datasets`: a memory-mapped Arrow file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from afterimage.storage.models import EvaluatedConversationWithContext
from benchmarks.harness.dataset import PAGE
from benchmarks.systems.base import RecordStore, fsync_tree

datasets.disable_progress_bars()

_PREFIX = "metadata."


class Store(RecordStore):
    """Saved with `save_to_disk`, and queried in the Arrow format, as its guide recommends.

    The cache of earlier queries is not used, because a program runs a page query only once.
    """

    model = EvaluatedConversationWithContext

    def save(self, models: Sequence[Any]) -> None:
        path = self.folder / "dataset"
        datasets.Dataset.from_list(self.rows(models)).save_to_disk(path)
        fsync_tree(path)

    def open(self) -> None:
        self.dataset = datasets.load_from_disk(self.folder / "dataset")

    def load(self) -> list[Any]:
        return self.validated(self.dataset.to_list())

    def filtered(self) -> list[Any]:
        value = self.data.filter_value

        def wanted(column: pa.ChunkedArray) -> pa.ChunkedArray:
            return pc.fill_null(pc.equal(column, value), fill_value=False)

        found = (
            self.dataset.flatten()  # sorts take top-level columns only
            .with_format("arrow")
            .filter(
                wanted,
                input_columns=[_PREFIX + self.data.filter_key],
                batched=True,
                load_from_cache_file=False,
            )
            .sort(
                _PREFIX + self.data.sort_key,
                reverse=self.data.descending,
                load_from_cache_file=False,
            )
        )
        offset, limit = PAGE
        page: pa.Table = found[offset : offset + limit]
        return self.validated([_nested(row) for row in page.to_pylist()])

    def group(self) -> dict[str | None, int]:
        column = _PREFIX + self.data.filter_key
        values = self.dataset.flatten().with_format("arrow")[column]
        counted = pc.value_counts(values).to_pylist()
        return Counter({found["values"]: found["counts"] for found in counted})


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a flattened data set, nested again."""
    nested: dict[str, Any] = {}
    for name, value in row.items():
        *parents, last = name.split(".")
        at = nested
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
    return nested
