"""Hand-written DuckDB: a native table, filled from Arrow, queried with SQL."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from afterimage.storage.models import EvaluatedConversationWithContext
from benchmarks.harness.dataset import PAGE
from benchmarks.systems.base import SMALL_SAVES, RecordStore, Rows

_TABLE = """
CREATE TABLE conversations (
    id BIGINT,
    conversations STRUCT(role VARCHAR, content VARCHAR, reasoning_content VARCHAR)[],
    metadata JSON,
    instruction_context VARCHAR,
    response_context VARCHAR,
    persona VARCHAR,
    evaluation JSON,
    final_score DOUBLE
)
"""
_JSON = ("metadata", "evaluation")


class Store(RecordStore):
    """Messages are nested columns. Metadata and evaluation are JSON, so that they stay exact.

    One connection stays open for all reads; our storage opens the file for each read.
    """

    model = EvaluatedConversationWithContext

    def before(self, task: str) -> tuple[Any, ...]:
        if task != "small_saves":
            return super().before(task)
        with duckdb.connect(self.path) as connection:
            connection.execute(_TABLE)
        return (self.ready_models()[:SMALL_SAVES],)

    @property
    def path(self) -> Path:
        """The database file."""
        return self.folder / "conversations.duckdb"

    def save(self, models: Sequence[Any]) -> None:
        incoming = pa.Table.from_pylist(_encoded(self.rows(models)))
        with duckdb.connect(self.path) as connection:  # closing it writes the checkpoint
            connection.execute(_TABLE)
            connection.register("incoming", incoming)
            connection.execute("INSERT INTO conversations BY NAME SELECT * FROM incoming")

    def small_saves(self, models: Sequence[Any]) -> list[float]:
        """Open the file, insert one record and close it, per record; return the seconds of each."""
        seconds = []
        for at, model in enumerate(models):
            started = time.perf_counter()
            (row,) = _encoded(self.rows([model]), first=at)
            marks = ", ".join(f"${name}" for name in row)
            with duckdb.connect(self.path) as connection:
                connection.execute(
                    f"INSERT INTO conversations ({', '.join(row)}) VALUES ({marks})", row
                )
            seconds.append(time.perf_counter() - started)
        return seconds

    def open(self) -> None:
        self.connection = duckdb.connect(self.path, read_only=True)

    def load(self) -> list[Any]:
        return self._models("SELECT * EXCLUDE (id) FROM conversations ORDER BY id")

    def filtered(self) -> list[Any]:
        offset, limit = PAGE
        direction = "DESC" if self.data.descending else "ASC"
        sort_type = "DOUBLE" if self.data.sort_is_number else "VARCHAR"
        return self._models(
            f"""
            SELECT * EXCLUDE (id) FROM conversations
            WHERE (metadata->>?) = ?
            ORDER BY (metadata->>?)::{sort_type} {direction} NULLS LAST, id
            LIMIT {limit} OFFSET {offset}
            """,
            [self.data.filter_key, self.data.filter_value, self.data.sort_key],
        )

    def group(self) -> dict[str | None, int]:
        counted = self.connection.execute(
            "SELECT metadata->>?, count(*) FROM conversations GROUP BY 1", [self.data.filter_key]
        )
        return dict(counted.fetchall())

    def _models(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        table: pa.Table = self.connection.execute(query, parameters).to_arrow_table()
        rows = table.to_pylist()
        for row in rows:
            for name in _JSON:
                if row[name] is not None:
                    row[name] = json.loads(row[name])
        return self.validated(rows)


def _encoded(rows: Rows, first: int = 0) -> Rows:
    """The rows with metadata and evaluation as JSON text, and with their number."""
    for at, row in enumerate(rows, start=first):
        row["id"] = at
        for name in _JSON:
            if row[name] is not None:
                row[name] = json.dumps(row[name], ensure_ascii=False)
    return rows
