"""Hand-written Parquet: written with pyarrow, queried with DuckDB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset  # otherwise, the first load would import it
import pyarrow.parquet as pq

from afterimage.storage.models import EvaluatedConversationWithContext
from benchmarks.harness.dataset import PAGE
from benchmarks.systems.base import RecordStore, fsync_tree


class Store(RecordStore):
    """One file, compressed with zstd; metadata is a struct that Arrow infers."""

    model = EvaluatedConversationWithContext

    def save(self, models: Sequence[Any]) -> None:
        path = self.folder / "conversations.parquet"
        pq.write_table(pa.Table.from_pylist(self.rows(models)), path, compression="zstd")
        fsync_tree(path)

    def open(self) -> None:
        self.path = str(self.folder / "conversations.parquet")
        self.connection = duckdb.connect()

    def load(self) -> list[Any]:
        return self.validated(pq.read_table(self.path).to_pylist())

    def filtered(self) -> list[Any]:
        offset, limit = PAGE
        key, sort_key = self.data.filter_key, self.data.sort_key
        direction = "DESC" if self.data.descending else "ASC"
        found = self.connection.execute(
            f"""
            SELECT * EXCLUDE (file_row_number)
            FROM read_parquet(?, file_row_number = true)
            WHERE metadata."{key}" = ?
            ORDER BY metadata."{sort_key}" {direction} NULLS LAST, file_row_number
            LIMIT {limit} OFFSET {offset}
            """,
            [self.path, self.data.filter_value],
        )
        table: pa.Table = found.to_arrow_table()
        return self.validated(table.to_pylist())

    def group(self) -> dict[str | None, int]:
        counted = self.connection.execute(
            f'SELECT metadata."{self.data.filter_key}", count(*) FROM read_parquet(?) GROUP BY 1',
            [self.path],
        )
        return dict(counted.fetchall())
