"""The kept text of a query answers only the same query, with any slice."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from afterimage.storage import SQLStorage
from afterimage.storage.query import prepared as module
from afterimage.storage.query.query import Query
from afterimage.storage.records.fields import CONVERSATIONS
from tests.support.records import conversation, firsts


@pytest.fixture
def store(tmp_path: Path) -> SQLStorage:
    store = SQLStorage(tmp_path / "talks.duckdb")
    values: list[Any] = [1, True, "1", 1.5, None, [1], {"a": 1}, 0, False, -1]
    store.save_conversations([conversation(str(n), {"v": value}) for n, value in enumerate(values)])
    return store


def page(store: SQLStorage, value: Any, **slice_: Any) -> list[str]:
    return firsts(
        store.load_conversations(
            filters=[("metadata.v", "==", value)], order_by="-metadata.v", **{"limit": 5, **slice_}
        )
    )


def test_values_that_python_takes_for_equal_have_their_own_texts(store: SQLStorage) -> None:
    expected: list[tuple[Any, list[str]]] = [
        (1, ["0"]),
        (True, ["1"]),
        (1.0, ["0"]),
        ("1", ["2"]),
        (None, ["4"]),
        ([1], ["5"]),
        ([True], []),
        ({"a": 1}, ["6"]),
        ({"a": True}, []),
        (0, ["7"]),
        (False, ["8"]),
    ]
    for _ in range(2):
        for value, found in expected:
            assert page(store, value) == found
            assert store.count_conversations([("metadata.v", "==", value)]) == len(found)


def test_every_slice_has_its_own_rows(store: SQLStorage) -> None:
    every = firsts(store.load_conversations(order_by="-metadata.v"))
    for limit in (1, 3, 10):
        for offset in (0, 2, 9, 20):
            found = store.load_conversations(order_by="-metadata.v", limit=limit, offset=offset)
            assert firsts(found) == every[offset : offset + limit]


def test_a_new_metadata_column_is_used(store: SQLStorage, tmp_path: Path) -> None:
    assert page(store, 1.5) == ["3"]
    path = tmp_path / "talks.duckdb"
    SQLStorage(path, metadata_fields=["v"]).save_conversations([conversation("new", {"v": 1.5})])
    assert page(store, 1.5) == ["3", "new"]
    assert store.count_conversations({"metadata.v": 1.5}) == 2


def test_other_columns_have_their_own_texts(store: SQLStorage) -> None:
    for columns in (["metadata.v"], ["final_score", "metadata.v"], ["metadata.v", "final_score"]):
        for _ in range(2):
            found = store.scan_conversations(columns, order_by="metadata.v", limit=2).read_all()
            assert found.schema.names == columns
            assert found.column("metadata.v").to_pylist() == ["false", "true"]


def test_few_texts_are_kept(store: SQLStorage) -> None:
    for number in range(200):
        assert store.count_conversations([("metadata.v", ">", 100 + number)]) == 0
    long = "x" * 10_000
    assert store.count_conversations([("metadata.v", "!=", long)]) == 10
    assert all(len(texts) <= module._MOST_TEXTS for texts in module._kept.values())
    assert not any(long in key for texts in module._kept.values() for key in texts)


def test_the_texts_of_a_table_go_with_it() -> None:
    engine = sa.create_engine("duckdb:///:memory:")
    table = sa.table("talks", sa.column("id"))
    ids: sa.Select[Any] = sa.select(sa.column("id"))
    with engine.connect() as connection:
        query = Query.of(CONVERSATIONS.queried, limit=2)
        made = module.prepared(connection, table, "ids", query, lambda _: ids)
    assert made.text.endswith(" LIMIT 2")
    known = weakref.ref(table)
    assert known() in module._kept
    del table
    gc.collect()
    assert known() is None
