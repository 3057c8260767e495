"""What `batch_size` promises: so many records at a time, and the same answers for every size."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Conversation, Document, JSONLStorage, SQLStorage
from tests.support.records import conversation, firsts

ROWS = 2100
PUBLISHED_DEFAULT, ENGINES_OWN = 100, 2048
QUERIES: list[dict[str, Any]] = [
    {},
    {"columns": ["metadata.n"]},
    {"filters": [("metadata.n", ">", 10)]},
    {"order_by": [("metadata.n", -1)]},
    {"order_by": [("metadata.n", -1)], "limit": 900},
    {"offset": 3, "limit": 2080},
]
RECORDS: list[Any] = [
    Conversation(conversations=[{"role": "user", "content": f"{n}"}], metadata={"n": n})
    for n in range(ROWS)
]


def sql(folder: Path, batch_size: int, rows: int = ROWS) -> SQLStorage:
    store = SQLStorage(f"duckdb:///{folder / f'{batch_size}.duckdb'}", batch_size=batch_size)
    store.save_conversations(RECORDS[:rows])
    return store


def rows_for(size: int) -> int:
    """Few batches, as each of them is a statement, but more records than one holds."""
    return min(ROWS, 20 * size)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> JSONLStorage:
    folder = tmp_path_factory.mktemp("lines")
    store = JSONLStorage(folder / "talks.jsonl", folder / "texts.jsonl")
    store.save_conversations(RECORDS)
    store.save_documents([Document(id=f"{n}") for n in range(ROWS)])
    return store


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> SQLStorage:
    store = sql(tmp_path_factory.mktemp("many"), PUBLISHED_DEFAULT)
    store.save_documents([Document(id=f"{n}") for n in range(ROWS)])
    return store


def assert_scans_hold_at_most(most: int, store: Any) -> list[Any]:
    """The result of each query, as Python objects."""
    found = []
    for query in QUERIES:
        batches = list(store.scan_conversations(**query))
        assert max(map(len, batches), default=0) <= most, query
        found.append([row for batch in batches for row in batch.to_pylist()])
    return found


class TestScans:
    @pytest.mark.parametrize("size", [1, 7, 2048, 5000])
    def test_record_batches_hold_at_most_so_many(self, tmp_path: Path, size: int) -> None:
        rows = rows_for(size)
        lines = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl")
        lines.save_conversations(RECORDS[:rows])
        found = assert_scans_hold_at_most(size, sql(tmp_path, size, rows))
        assert found == assert_scans_hold_at_most(ENGINES_OWN, lines)

    def test_the_default_is_the_engines_own_size(self, many: SQLStorage) -> None:
        assert_scans_hold_at_most(ENGINES_OWN, many)

    @pytest.mark.parametrize(("size", "most"), [(7, 7), (PUBLISHED_DEFAULT, ENGINES_OWN)])
    def test_so_it_is_where_rows_are_not_in_the_order_of_their_ids(
        self, tmp_path: Path, size: int, most: int
    ) -> None:
        rows = rows_for(size) if size == most else ROWS
        store = sql(tmp_path, size, rows)
        with store.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE conversations SET id = {rows + 1} - id")
        assert_scans_hold_at_most(most, store)
        assert firsts(store.load_conversations()) == [f"{n}" for n in reversed(range(rows))]


class TestIterators:
    @pytest.mark.parametrize("size", [1, 7, 2048, 5000])
    @pytest.mark.parametrize("query", [{}, *QUERIES[2:]], ids=str)
    def test_results_are_equal_for_every_size(
        self, lines: JSONLStorage, many: SQLStorage, query: dict[str, Any], size: int
    ) -> None:
        expected = firsts(lines.load_conversations(**query))
        for store in (lines, many):
            assert firsts(list(store.iter_conversations(**query, batch_size=size))) == expected

    @pytest.mark.parametrize("size", [1, 7, 2048, 5000])
    def test_documents(self, lines: JSONLStorage, many: SQLStorage, size: int) -> None:
        for store in (lines, many):
            found = [each.id for each in store.iter_documents(batch_size=size)]
            assert found == [f"{n}" for n in range(ROWS)]

    @pytest.mark.parametrize(
        "size", [7, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 100))]
    )
    @pytest.mark.parametrize("query", [{}, QUERIES[2]], ids=str)
    def test_hold_at_most_so_many_records(
        self, lines: JSONLStorage, many: SQLStorage, query: dict[str, Any], size: int
    ) -> None:
        for store in (lines, many):
            gc.collect()
            others = _live()
            records = store.iter_conversations(**query, batch_size=size)
            for at, _record in zip(range(300), records, strict=False):
                if at in (0, size - 1, size, 250):
                    assert 1 <= _live() - others <= size + 1  # this loop still has one
            del records, _record


def _live() -> int:
    kind = type(conversation())
    return sum(type(each) is kind for each in gc.get_objects())


def test_a_size_beyond_64_bits_means_no_limit(tmp_path: Path) -> None:
    store = sql(tmp_path, 2**70, 3)
    assert firsts(store.load_conversations()) == ["0", "1", "2"]
    assert store.scan_conversations(order_by=[("metadata.n", -1)]).read_all().num_rows == 3
