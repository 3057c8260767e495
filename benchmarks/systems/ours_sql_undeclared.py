"""Our `SQLStorage` as it is constructed without a thought: no key of the metadata is declared."""

from __future__ import annotations

from afterimage.storage import SQLStorage
from benchmarks.systems.ours import OurStore


class Store(OurStore):
    """A DuckDB file, all metadata in one column."""

    def open(self) -> None:
        self.storage = SQLStorage(f"duckdb:///{self.folder / 'store.duckdb'}")
