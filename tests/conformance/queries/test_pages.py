"""Both storages: slices, consecutive pages, and iterators."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document
from tests.support.factories import EVALUATORS
from tests.support.records import conversation, conversations, firsts


class TestSlices:
    @pytest.fixture
    def ten(self, storage: Any) -> Any:
        storage.save_conversations(conversations(*({"n": n} for n in range(10))))
        storage.save_documents([Document(id=str(n)) for n in range(10)])
        return storage

    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_slices_are_those_of_a_list(self, ten: Any, subtests: pytest.Subtests) -> None:
        numbers = [str(n) for n in range(10)]
        for limit, offset in [
            (None, None), (3, None), (None, 3), (3, 3), (0, None), (0, 5), (5, 0), (20, 0), (3, 9),
            (1, 10), (None, 99), (2**70, None), (None, 2**70),
        ]:  # fmt: skip
            start = offset or 0
            expected = numbers[start:] if limit is None else numbers[start : start + limit]
            with subtests.test(limit=limit, offset=offset):
                assert firsts(ten.load_conversations(limit, offset)) == expected
                assert firsts(list(ten.iter_conversations(limit, offset))) == expected
                assert [document.id for document in ten.load_documents(limit, offset)] == expected
                assert [document.id for document in ten.iter_documents(limit, offset)] == expected
                table = ten.scan_conversations(["metadata.n"], limit=limit, offset=offset)
                assert table.read_all().column(0).to_pylist() == expected

    def test_a_slice_is_cut_after_filter_and_order(self, ten: Any) -> None:
        found = ten.load_conversations(
            limit=2, offset=1, filters=[("metadata.n", "<", 5)], order_by=[("metadata.n", -1)]
        )
        assert firsts(found) == ["3", "2"]


class TestPages:
    def test_pages_never_overlap_or_skip(self, storage: Any) -> None:
        # All keys are equal, or null, or almost so: only insertion order distinguishes the records.
        nulls = [None, 1, None]
        storage.save_conversations(
            conversations(*({"tied": 7, "nulls": nulls[n % 3]} for n in range(20)))
        )
        for order_by in (
            [], [("metadata.tied", 1)], [("metadata.tied", -1)], [("persona", -1)],
            [("metadata.nulls", 1)], [("metadata.nulls", -1), ("metadata.tied", 1)],
        ):  # fmt: skip
            whole = firsts(storage.load_conversations(order_by=order_by))
            pages = [
                firsts(storage.load_conversations(limit=7, offset=start, order_by=order_by))
                for start in (0, 7, 14, 21)
            ]
            assert list(itertools.chain(*pages)) == whole, order_by
            assert sorted(whole, key=int) == [str(n) for n in range(20)], order_by

    def test_pages_read_by_several_threads(self, storage: Any) -> None:
        storage.save_conversations(conversations(*({"tied": 7} for _ in range(40))))
        pages: dict[int, list[str]] = {}

        def read(start: int) -> None:
            pages[start] = firsts(
                storage.load_conversations(limit=10, offset=start, order_by=[("metadata.tied", -1)])
            )

        threads = [threading.Thread(target=read, args=[start]) for start in range(0, 40, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [each for start in sorted(pages) for each in pages[start]] == [
            str(n) for n in range(40)
        ]


class TestIterators:
    def test_they_are_lazy_iterators_of_the_loaded_records(self, storage: Any) -> None:
        records = conversations(*({"n": n} for n in range(10)))
        storage.save_conversations(records)
        found = storage.iter_conversations(batch_size=3)
        assert isinstance(found, Iterator)
        assert next(found) == records[0]
        assert list(found) == records[1:]
        assert list(found) == []

    def test_two_iterators_are_independent(self, storage: Any) -> None:
        # DuckDB has one cursor per connection: a second query could replace the first.
        storage.save_conversations(conversations(*({"n": n} for n in range(10))))
        forth = storage.iter_conversations(batch_size=1)
        back = storage.iter_conversations(batch_size=1, order_by=[("metadata.n", -1)])
        met = [(next(forth), next(back)) for _ in range(10)]
        assert firsts([one for one, _ in met]) == [str(n) for n in range(10)]
        assert firsts([other for _, other in met]) == [str(n) for n in range(9, -1, -1)]

    def test_other_calls_do_not_affect_an_iterator(self, storage: Any) -> None:
        storage.save_conversations(conversations(*({"n": n} for n in range(10))))
        found = storage.iter_conversations(batch_size=2)
        seen = [next(found)]
        assert storage.count_conversations() == 10
        assert len(storage.load_conversations(filters={"metadata.n": 3})) == 1
        storage.save_conversations([conversation("late")])
        seen += found
        assert firsts(seen)[:10] == [str(n) for n in range(10)]

    def test_an_iterator_may_be_dropped_early(self, storage: Any) -> None:
        storage.save_conversations(conversations(*({"n": n} for n in range(10))))
        found = storage.iter_conversations(batch_size=2)
        next(found)
        del found
        storage.save_conversations([conversation("after")])
        assert storage.count_conversations() == 11

    def test_documents(self, storage: Any) -> None:
        records = [Document(id=str(n), metadata={"n": n}) for n in range(10)]
        storage.save_documents(records)
        assert list(storage.iter_documents(batch_size=3)) == records
        some = storage.iter_documents(
            limit=2, offset=1, filters=[("metadata.n", ">", 2)], order_by=[("id", -1)]
        )
        assert [document.id for document in some] == ["8", "7"]


@pytest.mark.parametrize("huge", [2**31, 2**63, 2**70])
def test_numbers_beyond_64_bits_mean_no_limit(tmp_path: Path, storage: Any, huge: int) -> None:
    storage.save_conversations(conversations({"n": 1}, {"n": 2}))
    assert len(list(storage.iter_conversations(batch_size=huge))) == 2
    assert len(storage.load_conversations(limit=huge)) == 2
    assert len(storage.stats(top_keys=huge).metadata_keys) == 1
    assert storage.export_parquet(tmp_path / "a.parquet", row_group_bytes=huge) == 2
    storage.export_jsonl(tmp_path / "lines.jsonl")
    assert storage.import_jsonl(tmp_path / "lines.jsonl", max_line_bytes=huge) == 2
