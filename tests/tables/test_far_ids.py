"""Rows whose sequence numbers are far apart, as SQL by hand may give them: work grows with rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from afterimage.storage import (
    Conversation,
    Document,
    JSONLStorage,
    SQLStorage,
    StorageError,
)
from tests.support.messages import assert_short
from tests.support.records import Capital, conversation, firsts

LOWEST, HIGHEST = -(2**63), 2**63 - 1
NOW = 1_790_000_000_000_000  # epoch_us

# Names of the tables, and of the sequence in each.
SEQUENCES = {"conversations": "id", "documents": "_id", "records": "id"}

NUMBERS = {
    "one that is far off": [*range(1, 11), NOW],
    "one that is far below": [-NOW, *range(1, 11)],
    "blocks with gaps between": [
        *range(1, 40),
        *range(NOW, NOW + 40),
        *range(2 * NOW, 2 * NOW + 9),
    ],
    "each far from the next": [at * 10**12 for at in range(-30, 30)],
    "all below zero": [*range(-NOW, -NOW + 5), -3, -2, -1],
    "at both ends": [LOWEST, LOWEST + 1, -1, 0, 1, HIGHEST - 1, HIGHEST],
    "only the ends": [LOWEST, HIGHEST],
    "only the highest": [HIGHEST],
    "only the lowest": [LOWEST],
}


@contextmanager
def statements_counted() -> Iterator[list[str]]:
    """The statements that are run meanwhile, by any engine of this process."""
    run: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        run.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield run
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def numbered(path: Path, numbers: list[int]) -> SQLStorage:
    """A store of three kinds of records, as many of each as there are numbers."""
    store = SQLStorage(f"duckdb:///{path}")
    names = [f"{at}" for at in range(len(numbers))]
    store.save_conversations([conversation(name, {"n": int(name)}) for name in names])
    store.save_documents([Document(text=name) for name in names])
    store.save_conversations([Capital(country=name, inhabitants=1) for name in names])
    listed = ", ".join(f"'{number}'" for number in numbers)
    with store.engine.begin() as connection:
        for table, column in SEQUENCES.items():
            number = f"(CAST([{listed}] AS BIGINT[]))[{column}]"
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = {number}")
    return store


@pytest.fixture(params=NUMBERS.values(), ids=list(NUMBERS))
def numbers(request: pytest.FixtureRequest) -> list[int]:
    found: list[int] = request.param
    return found


@pytest.fixture
def store(tmp_path: Path, numbers: list[int]) -> SQLStorage:
    return numbered(tmp_path / "far.duckdb", numbers)


class TestReads:
    def test_give_all_records_in_order(self, store: SQLStorage, numbers: list[int]) -> None:
        names = [f"{at}" for at in range(len(numbers))]
        assert firsts(store.load_conversations()) == names
        assert firsts(list(store.iter_conversations())) == names
        assert store.scan_conversations(["id"]).read_all().column(0).to_pylist() == numbers
        assert [each.text for each in store.load_documents()] == names
        assert [each.country for each in store.load_records(Capital)] == names

    def test_give_pages_and_matches(self, store: SQLStorage, numbers: list[int]) -> None:
        names = [f"{at}" for at in range(len(numbers))]
        assert firsts(store.load_conversations(limit=3, offset=1)) == names[1:4]
        assert (
            firsts(store.load_conversations(filters={"metadata.n": len(names) - 1})) == names[-1:]
        )
        assert firsts(store.load_conversations(order_by=[("metadata.n", -1)])) == names[::-1]
        page = store.load_conversations(order_by=[("metadata.n", -1)], limit=2)
        assert firsts(page) == names[::-1][:2]
        assert store.count_conversations() == len(names)

    def test_run_no_more_statements_than_rows_need(self, store: SQLStorage) -> None:
        for read in (
            store.load_conversations,
            store.load_documents,
            lambda: store.load_records(Capital),
            lambda: store.load_conversations(filters={"metadata.n": 1}),
            lambda: store.stats(progress=lambda rows: None),
        ):
            with statements_counted() as run:
                read()
            assert len(run) < 12

    def test_verify_and_statistics_end(self, store: SQLStorage, numbers: list[int]) -> None:
        told: list[int] = []
        report = store.verify(progress=told.append)
        assert report.ok
        assert sum(told) == 3 * len(numbers)
        told.clear()
        assert store.stats(progress=told.append).conversations == len(numbers)
        assert sum(told) == len(numbers)

    def test_exports_end(self, store: SQLStorage, numbers: list[int], tmp_path: Path) -> None:
        store.export_jsonl(tmp_path / "out.jsonl")
        lines = JSONLStorage(tmp_path / "out.jsonl", tmp_path / "documents.jsonl")
        assert lines.load_conversations() == store.load_conversations()

    def test_skip_what_is_corrupt(self, store: SQLStorage, numbers: list[int]) -> None:
        with store.engine.begin() as connection:
            connection.exec_driver_sql(
                f"UPDATE conversations SET conversations = NULL WHERE id = '{numbers[-1]}'"
            )
        assert not store.verify().ok
        with pytest.warns(UserWarning, match="1 "):
            found = list(store.iter_conversations(on_error="skip"))
        assert len(found) == len(numbers) - 1


@pytest.mark.slow
class TestManyRows:
    COUNT = 12_000

    @pytest.fixture
    def store(self, tmp_path: Path) -> SQLStorage:
        store = SQLStorage(f"duckdb:///{tmp_path / 'many.duckdb'}")
        store.save_conversations([conversation(f"{at}", {"n": at % 7}) for at in range(self.COUNT)])
        return store

    @pytest.mark.parametrize(
        "number", ["id * 1000000007", "id + (id // 5000) * 10000000000000", "id // 3 * 10000000"]
    )
    def test_need_as_many_statements_as_without_gaps(self, store: SQLStorage, number: str) -> None:
        with statements_counted() as dense:
            before = store.load_conversations()
        with store.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE conversations SET id = {number}")
        with statements_counted() as sparse:
            after = store.load_conversations()
        assert sorted(firsts(after)) == sorted(firsts(before))
        assert len(sparse) <= len(dense) + 4
        ids = store.scan_conversations(["id"]).read_all().column(0).to_pylist()
        assert ids == sorted(ids)
        assert store.count_conversations(filters={"metadata.n": 3}) == len(
            store.load_conversations(filters={"metadata.n": 3})
        )

    def test_without_gaps_need_no_statement_for_their_ranges(self, store: SQLStorage) -> None:
        with statements_counted() as run:
            store.load_conversations()
        assert not any("row_number" in statement for statement in run)


class TestSaves:
    def test_go_on_after_the_highest_number(self, tmp_path: Path) -> None:
        store = numbered(tmp_path / "far.duckdb", [1, 2, NOW])
        store.save_conversations([conversation("next")])
        assert store.scan_conversations(["id"]).read_all().column(0).to_pylist()[-1] == NOW + 1

    @pytest.mark.parametrize("highest", [HIGHEST, HIGHEST - 1])
    def test_are_refused_where_no_number_is_left(self, tmp_path: Path, highest: int) -> None:
        store = numbered(tmp_path / "far.duckdb", [1, highest])
        (tmp_path / "two.jsonl").write_text('{"conversations": []}\n' * 2)
        for save in (
            lambda: store.save_conversations([conversation("a"), conversation("b")]),
            lambda: store.save_documents([Document(text="a"), Document(text="b")]),
            lambda: store.save_conversations(
                [conversation("a"), *(Capital(country=name, inhabitants=1) for name in "bc")]
            ),
            lambda: store.import_jsonl(tmp_path / "two.jsonl"),
            lambda: asyncio.run(store.asave_conversations([Conversation(conversations=[])] * 2)),
        ):
            with pytest.raises(StorageError) as caught:
                save()
            assert_short(caught.value, "9223372036854775807")
        assert firsts(store.load_conversations()) == ["0", "1"]
        assert len(store.load_documents()) == len(store.load_records(Capital)) == 2

    def test_take_the_last_number_there_is(self, tmp_path: Path) -> None:
        store = numbered(tmp_path / "far.duckdb", [1, HIGHEST - 1])
        store.save_conversations([conversation("last")])
        assert firsts(store.load_conversations()) == ["0", "1", "last"]
