"""Hand-written DuckDB: one table with nested messages, and SQL for each task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.curating.base import CHANGES, DELETED, PHRASE, SHARE, UPDATED, Curator

_COLUMNS = """{conversations: 'STRUCT(role VARCHAR, content VARCHAR, reasoning_content VARCHAR)[]',
    metadata: 'JSON', final_score: 'DOUBLE'}"""
_PART = "(metadata->>'part')::INT"


class DuckdbCurator(Curator):
    """One connection stays open for reads; a write opens the file, and closing it is durable."""

    def make(self, name: str, lines: Path) -> None:
        with duckdb.connect(self._file(name)) as connection:
            connection.execute(
                f"CREATE TABLE talks AS SELECT * FROM read_json('{lines}', format = 'nd', "
                f"columns = {_COLUMNS})"
            )

    def open(self, name: str) -> tuple[Path, duckdb.DuckDBPyConnection]:
        return self._file(name), duckdb.connect(self._file(name))

    def search(self, store: Any) -> int:
        return self._one(
            store[1],
            "SELECT count(*) FROM talks WHERE list_contains(list_transform(conversations, "
            "lambda each: contains(lower(each.content), ?)), true)",
            PHRASE,
        )

    def dedupe(self, store: Any) -> int:
        return self._write(
            store,
            "DELETE FROM talks WHERE rowid NOT IN (SELECT min(rowid) FROM talks "
            "GROUP BY conversations)",
        )

    def split(self, store: Any, out: Path) -> int:
        out.mkdir()
        part = f"hash(7, conversations) % 1000 < {SHARE * 1000:.0f}"
        for name, condition in (("train", part), ("validation", f"NOT {part}")):
            store[1].execute(
                f"COPY (FROM talks WHERE {condition}) TO '{out / name}.jsonl' (FORMAT json)"
            )
        return self._one(store[1], "SELECT count(*) FROM talks")

    def delete(self, store: Any) -> int:
        return self._write(store, f"DELETE FROM talks WHERE {_PART} < {DELETED}")

    def update(self, store: Any) -> int:
        return self._write(
            store,
            f"UPDATE talks SET metadata = json_merge_patch(metadata, ?) WHERE {_PART} < {UPDATED}",
            json.dumps(CHANGES),
        )

    def diff(self, store: Any, other: Any) -> tuple[int, ...]:
        other[1].close()
        store[1].execute(f"ATTACH IF NOT EXISTS '{other[0]}' AS other (READ_ONLY)")
        found = store[1].execute(
            "SELECT count(*) FILTER (a.metadata IS NOT NULL AND b.metadata IS NOT NULL), "
            "count(*) FILTER (b.metadata IS NULL), count(*) FILTER (a.metadata IS NULL), "
            "count(*) FILTER (a.metadata <> b.metadata OR a.final_score <> b.final_score) "
            "FROM talks AS a FULL JOIN other.talks AS b USING (conversations)"
        )
        return tuple(found.fetchall()[0])

    def _file(self, name: str) -> Path:
        return self.at(name) / "talks.duckdb"

    def _one(self, connection: Any, query: str, *values: Any) -> int:
        return int(connection.execute(query, values).fetchall()[0][0])

    def _write(self, store: Any, statement: str, *values: Any) -> int:
        store[1].close()
        with duckdb.connect(store[0]) as connection:
            return self._one(connection, statement, *values)
