"""Our `SQLStorage` with default arguments: no metadata key is declared."""

from __future__ import annotations

from afterimage.storage import SQLStorage
from benchmarks.systems.ours import OurStore


class Store(OurStore):
    """A DuckDB file with all metadata in one column."""

    def open(self) -> None:
        self.storage = SQLStorage(f"duckdb:///{self.folder / 'store.duckdb'}")
