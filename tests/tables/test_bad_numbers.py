"""Rows that SQL left without a number, or with the number of another row."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest

from afterimage.storage import DatabaseError, Document, SkippedRecordsWarning, SQLStorage
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


def test_skipping_leaves_rows_without_a_number_out_and_reports_them() -> None:
    store = changed("UPDATE conversations SET id = NULL WHERE id > 4")
    reads: list[Callable[[], int]] = [
        lambda: len(store.load_conversations(on_error="skip")),
        lambda: len(store.load_conversations(limit=99, on_error="skip")),
        lambda: len(store.load_conversations(order_by=[("metadata.n", -1)], on_error="skip")),
        lambda: len(
            store.load_conversations(order_by=[("metadata.n", -1)], limit=9, on_error="skip")
        ),
        lambda: len([*store.iter_conversations(on_error="skip")]),
        lambda: store.scan_conversations(on_error="skip").read_all().num_rows,
        lambda: store.count_conversations(on_error="skip"),
        lambda: store.stats(on_error="skip").conversations,
        lambda: store.export_jsonl(BytesIO(), on_error="skip"),
    ]
    for read in reads:
        with pytest.warns(SkippedRecordsWarning, match="skipped 2 corrupt records") as caught:
            assert read() == 4
        assert "without a number" in str(caught[0].message)
    none = store.load_conversations(filters={"metadata.n": 0}, on_error="skip")
    assert len(none) == 1


def test_documents_without_a_number_are_left_out_too() -> None:
    store = SQLStorage("duckdb:///:memory:")
    store.save_documents([Document(id=str(n)) for n in range(4)])
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE documents ALTER _id DROP NOT NULL")
        connection.exec_driver_sql("UPDATE documents SET _id = NULL WHERE id = '2'")
    with pytest.warns(SkippedRecordsWarning, match="skipped 1 corrupt record"):
        assert [each.id for each in store.load_documents(on_error="skip")] == ["0", "1", "3"]
    report = store.verify()
    assert (report.documents, report.corrupt.count) == (3, 1)


def test_verify_checks_the_other_rows() -> None:
    store = changed("UPDATE conversations SET id = NULL WHERE id > 5")
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE conversations SET metadata = '[1]' WHERE id = 2")
    report = store.verify()
    assert (report.conversations, report.corrupt.count) == (4, 2)
    assert [place.line for place in report.corrupt.first] == [None, 2]


@pytest.mark.parametrize("order", [[], [("metadata.same", 1)]])
@pytest.mark.parametrize("size", [2, 1500])
def test_pages_never_repeat_or_lose_rows_of_one_number(order: list[Any], size: int) -> None:
    store = SQLStorage("duckdb:///:memory:")
    count = size * 3
    store.save_conversations(conversations(*({"n": n, "same": 0} for n in range(count))))
    with store.engine.begin() as connection:
        edge = size + size // 2
        connection.exec_driver_sql(f"UPDATE conversations SET id = {size} WHERE id = {size + 1}")
        connection.exec_driver_sql(f"UPDATE conversations SET id = {edge} WHERE id = {edge + 1}")
    found: list[Any] = []
    refused = 0
    for offset in range(0, count, size):
        try:
            page = store.load_conversations(limit=size, offset=offset, order_by=order)
        except DatabaseError:
            refused += 1
        else:
            assert len(page) == size
            found += [each.metadata["n"] for each in page]
    assert len(set(found)) == len(found) == count - refused * size
    everything = [each.metadata["n"] for each in store.load_conversations(order_by=order)]
    assert sorted(everything) == list(range(count))
