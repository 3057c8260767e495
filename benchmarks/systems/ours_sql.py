"""Our `SQLStorage`, with columns for the metadata keys of the filter and the sort."""

from __future__ import annotations

from afterimage.storage import SQLStorage
from benchmarks.systems.ours import OurStore


class Store(OurStore):
    """A DuckDB file with `metadata_fields`."""

    def open(self) -> None:
        url = f"duckdb:///{self.folder / 'store.duckdb'}"
        self.storage = SQLStorage(url, metadata_fields=self.data.declared)
