"""The physical floor: only the steps that every storage of this kind needs."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter
from pydantic_core import from_json

from afterimage.storage import EvaluatedConversationWithContext, SQLStorage
from benchmarks.harness.dataset import Dataset
from benchmarks.systems.base import Measured, Rows, fsync_tree


class Store(Measured):
    """Each task starts from data that is ready in memory."""

    def __init__(self, folder: Path, data: Dataset) -> None:
        super().__init__(folder, data)
        self._adapter = TypeAdapter(list[EvaluatedConversationWithContext])

    def before(self, task: str) -> tuple[Any, ...]:
        match task:
            case "insert_table" | "write_parquet":
                return (self._ready_table(),)
            case "build_models":
                return ([from_json(line) for line in self.data.lines()],)
            case _:
                return (b"".join(self.data.lines()),)

    def insert_table(self, table: pa.Table) -> None:
        """DuckDB's own insert and checkpoint, in the same storage version as ours."""
        path = self.folder / "inserted.duckdb"
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{path}' AS file (STORAGE_VERSION 'v1.5.0')")
            connection.register("incoming", table)
            connection.execute("CREATE TABLE file.conversations AS SELECT * FROM incoming")
            connection.execute("CHECKPOINT file")

    def build_models(self, rows: Rows) -> list[EvaluatedConversationWithContext]:
        """Pydantic's validation of ready values, with the garbage collector disabled."""
        gc.disable()
        try:
            return self._adapter.validate_python(rows)
        finally:
            gc.enable()

    def write_bytes(self, data: bytes) -> None:
        """One write of the ready bytes."""
        path = self.folder / "written.jsonl"
        path.write_bytes(data)
        fsync_tree(path)

    def write_parquet(self, table: pa.Table) -> None:
        """Arrow's own Parquet file of the ready table, with the same compression as ours."""
        path = self.folder / "written.parquet"
        pq.write_table(table, path, compression="zstd")
        fsync_tree(path)

    def _ready_table(self) -> pa.Table:
        """The columns of our storage, in memory."""
        storage = SQLStorage("duckdb:///:memory:")
        storage.import_jsonl(self.data.path)
        return storage.scan_conversations().read_all()
