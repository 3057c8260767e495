"""JSONLStorage, SQLStorage and plain Python give equal answers to all queries over all records."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from afterimage.storage import JSONLStorage, SQLStorage
from tests.support import strategies
from tests.support.factories import Storage
from tests.support.plain_python import NEGATED, same, select
from tests.support.records import conversations, firsts

MEMORY = "duckdb:///:memory:"


def check(
    storages: list[Storage], kind: str, loaded: list[Any], query: strategies.QueryArguments
) -> None:
    """Check that loads equal plain Python over the `loaded` records, and that scans are equal."""
    expected = select(loaded, **query)
    scanned = []
    for storage in storages:
        assert same(getattr(storage, f"load_{kind}")(**query), expected)
        scanned.append(getattr(storage, f"scan_{kind}")(**query).read_all().to_pylist())
        assert len(scanned[-1]) == len(expected)
    assert all(same(scanned[0], other) for other in scanned[1:])


@given(data=st.data())
def test_conversations(data: st.DataObject) -> None:
    every = strategies.conversations | strategies.conversations | strategies.others
    records = data.draw(st.lists(every, min_size=4, max_size=9))
    with tempfile.TemporaryDirectory() as folder:
        storages: list[Any] = [
            JSONLStorage(f"{folder}/c.jsonl", f"{folder}/d.jsonl"),
            SQLStorage(MEMORY),
        ]
        for storage in storages:
            storage.save_conversations(records)
        loaded = storages[0].load_conversations()
        assert same(loaded, storages[1].load_conversations())
        for _ in range(3):
            check(storages, "conversations", loaded, data.draw(strategies.queries(loaded)))


@settings(max_examples=max(1, settings().max_examples // 2))
@given(data=st.data())
def test_documents(data: st.DataObject) -> None:
    records = data.draw(st.lists(strategies.documents, min_size=4, max_size=9))
    with tempfile.TemporaryDirectory() as folder:
        storages: list[Any] = [
            JSONLStorage(f"{folder}/c.jsonl", f"{folder}/d.jsonl"),
            SQLStorage(MEMORY),
        ]
        for storage in storages:
            storage.save_documents(records)
        loaded = storages[0].load_documents()
        for _ in range(3):
            check(storages, "documents", loaded, data.draw(strategies.queries(loaded)))


@settings(max_examples=max(1, settings().max_examples // 4))
@given(data=st.data())
def test_a_file_with_metadata_columns(data: st.DataObject) -> None:
    """Metadata columns, created before or after the data, change no answer."""
    batches: list[list[Any]] = data.draw(
        st.lists(st.lists(strategies.conversations, max_size=4), min_size=2)
    )
    with tempfile.TemporaryDirectory() as folder:
        url = f"duckdb:///{Path(folder) / 'store.duckdb'}"
        SQLStorage(url, metadata_fields=strategies.QUERIED_KEYS[:2]).save_conversations(batches[0])
        storage = SQLStorage(url, metadata_fields=strategies.QUERIED_KEYS, batch_size=3)
        for batch in batches[1:]:
            storage.save_conversations(batch)
        loaded = storage.load_conversations()
        for _ in range(3):
            check([storage], "conversations", loaded, data.draw(strategies.queries(loaded)))


@settings(max_examples=max(1, settings().max_examples // 2))
@given(data=st.data())
def test_a_filter_and_its_negation_split_the_data_in_two(data: st.DataObject) -> None:
    records: list[BaseModel] = data.draw(st.lists(strategies.conversations, min_size=4, max_size=8))
    with tempfile.TemporaryDirectory() as folder:
        storages: list[Any] = [
            JSONLStorage(f"{folder}/c.jsonl", f"{folder}/d.jsonl"),
            SQLStorage(MEMORY),
        ]
        for storage in storages:
            storage.save_conversations(records)
        path, op, value = data.draw(strategies.conditions(storages[0].load_conversations()))
        negated = {"=": "!=", **{old: new for new, old in NEGATED.items()}}
        if op in negated:
            for storage in storages:
                found = storage.count_conversations([(path, op, value)])
                rest = storage.count_conversations([(path, negated[op], value)])
                assert found + rest == len(records)


LATE: list[dict[str, Any]] = [
    {"n": 1.5},
    {"n": True},
    {"n": "1"},
    {"n": None},
    {},
    {"n": 2**64, "late": "x"},
]


@pytest.fixture(scope="module", params=["jsonl", "sql"])
def late(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Storage:
    folder = tmp_path_factory.mktemp("late")
    storage: Storage = (
        JSONLStorage(folder / "c.jsonl", folder / "d.jsonl")
        if request.param == "jsonl"
        else SQLStorage(f"duckdb:///{folder / 'store.duckdb'}")
    )
    storage.save_conversations(conversations(*[{"n": 1}] * 20_480, *LATE))
    return storage


class TestRecordsThatChangeLate:
    """Changes after the 20,480 rows from which DuckDB's reader infers types."""

    def test_values_and_types_are_exact(self, late: Storage) -> None:
        loaded = late.load_conversations(offset=20_479)
        assert same([record.metadata for record in loaded], [{"n": 1}, *LATE])

    def test_filters_find_them(self, late: Storage) -> None:
        assert late.count_conversations({"metadata.n": 1}) == 20_480
        assert late.count_conversations([("metadata.n", "!=", 1)]) == len(LATE)
        found = late.load_conversations(filters={"metadata.late": "x"})
        assert firsts(found) == ["20485"]

    @pytest.mark.parametrize("slices", [{}, {"limit": 9000, "offset": 3000}], ids=["all", "page"])
    @pytest.mark.parametrize(
        "condition",
        [("metadata.nowhere", "==", None), ("metadata.late", "!=", "y"), ("final_score", "<", 1)],
        ids=str,
    )
    def test_without_an_order_many_filtered_records_stay_in_insertion_order(
        self, late: Storage, condition: tuple[str, str, Any], slices: dict[str, int]
    ) -> None:
        # With several threads, the engine returns rows in any order unless a sort is requested.
        arguments: dict[str, Any] = {"filters": [condition], **slices}
        start = slices.get("offset", 0)
        stop = min(start + slices.get("limit", 30_000), 20_480 + len(LATE))
        expected = [str(n) for n in range(start, stop)]
        assert firsts(late.load_conversations(**arguments)) == expected
        column = late.scan_conversations(["conversations"], **arguments).read_all().column(0)
        assert [messages[0]["content"] for messages in column.to_pylist()] == expected

    def test_sorts_include_them(self, late: Storage) -> None:
        order_by = [("metadata.n", -1)]
        assert firsts(late.load_conversations(5, order_by=order_by)) == [
            "20482", "20485", "20480", "0", "1",
        ]  # fmt: skip
        assert firsts(late.load_conversations(offset=20_482, order_by=order_by)) == [
            "20479", "20481", "20483", "20484",
        ]  # fmt: skip

    def test_pages_over_several_row_groups_are_disjoint_and_complete(self, late: Storage) -> None:
        order_by = [("persona", 1)]  # null in all of them
        pages = [
            late.scan_conversations(["metadata.n"], order_by=order_by, limit=7000, offset=start)
            for start in (0, 7000, 14_000)
        ]
        values = [value for page in pages for value in page.read_all().column(0).to_pylist()]
        assert values == ["1"] * 20_480 + ["1.5", "true", "1", None, None, str(2**64)]
