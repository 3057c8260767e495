"""Rows that SQL left without a number, or with the number of another row."""

from __future__ import annotations

import pytest

from afterimage.storage import DatabaseError, SQLStorage
from tests.support.records import conversations


def changed(statement: str) -> SQLStorage:
    store = SQLStorage("duckdb:///:memory:")
    store.save_conversations(conversations(*({"n": n} for n in range(6))))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE conversations ALTER id DROP NOT NULL")
        connection.exec_driver_sql(statement)
    return store


def test_rows_without_a_number_are_named_and_counted() -> None:
    store = changed("UPDATE conversations SET id = NULL WHERE id > 4")
    with pytest.raises(DatabaseError, match="2 rows without a number"):
        store.load_conversations()
    with pytest.raises(DatabaseError, match="rows without a number"):
        store.load_conversations(order_by=[("metadata.n", -1)], limit=3)
    report = store.verify()
    assert (report.conversations, report.corrupt.count) == (4, 2)


def test_a_sorted_page_never_repeats_or_loses_a_row() -> None:
    store = changed("UPDATE conversations SET id = 2 WHERE id = 3")
    assert len(store.load_conversations()) == 6
    for offset in (1, 2):
        with pytest.raises(DatabaseError, match="the same number"):
            store.load_conversations(order_by=[("metadata.n", 1)], limit=1, offset=offset)
    assert store.verify().duplicate_numbers.count == 1
