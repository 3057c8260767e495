"""Both storages: `verify` reads everything and finds all faults."""

from __future__ import annotations

from typing import Any

import pytest

from afterimage.storage import Document, StorageError
from tests.support.damage import spoil_conversations, spoil_documents
from tests.support.records import ALL_SORTS, Note, conversations


def problems(report: Any) -> dict[str, int]:
    """The number of each kind of fault, without those that were not found."""
    counts = {
        "corrupt": report.corrupt,
        "torn_tails": report.torn_tails,
        "duplicate_ids": report.duplicate_ids,
        "duplicate_numbers": report.duplicate_numbers,
        "stale_columns": report.stale_columns,
    }
    return {name: found.count for name, found in counts.items() if found}


class TestVerify:
    def test_an_empty_storage_has_no_faults(self, storage: Any) -> None:
        report = storage.verify()
        assert report.ok
        assert (report.conversations, report.documents, report.records) == (0, 0, 0)

    def test_every_kind_of_record_is_counted_and_valid(self, storage: Any) -> None:
        storage.save_conversations([*ALL_SORTS, Note(title="a"), Note(title="b")])
        storage.save_documents([Document(id=text) for text in ("a", "b", "'; --")])
        report = storage.verify()
        assert report.ok, str(report)
        counts = (report.conversations, report.documents, report.records)
        assert counts == (len(ALL_SORTS), 3, 2)
        assert str(report).endswith(
            f"{len(ALL_SORTS)} conversations, 3 documents, 2 records of other models\n"
            "no faults found"
        )

    def test_corrupt_conversations(self, storage: Any) -> None:
        storage.save_conversations(conversations(*({"n": n} for n in range(12))))
        spoil_conversations(storage, range(2, 9))
        report = storage.verify()
        assert not report.ok
        assert problems(report) == {"corrupt": 7}
        assert report.conversations == 5
        assert [place.line for place in report.corrupt.first] == [3, 4, 5, 6, 7]
        assert all("role" in place.reason for place in report.corrupt.first)
        assert len(str(report).splitlines()) == 9
        assert str(report).endswith("and 2 more")

    def test_corrupt_documents(self, storage: Any) -> None:
        storage.save_documents([Document(text=f"text {n}") for n in range(4)])
        spoil_documents(storage, ["text 1", "text 3"])
        report = storage.verify()
        assert problems(report) == {"corrupt": 2}
        assert report.documents == 2

    def test_duplicate_ids_of_documents(self, storage: Any) -> None:
        ids = ["a", "b", "a", "c", "b", "a", "d\ne"]
        storage.save_documents([Document(id=text) for text in ids])
        report = storage.verify()
        assert problems(report) == {"duplicate_ids": 2}
        assert report.documents == len(ids)
        first, second = report.duplicate_ids.first
        assert (first.line, first.reason) == (1, "id 'a', 3 times")
        assert (second.line, second.reason) == (2, "id 'b', 2 times")

    def test_of_many_duplicate_ids_the_first_few_are_named(self, storage: Any) -> None:
        documents = [Document(id=str(n)) for n in range(3000)]
        storage.save_documents(documents)
        storage.save_documents(documents)
        report = storage.verify()
        assert problems(report) == {"duplicate_ids": 3000}
        assert [place.line for place in report.duplicate_ids.first] == [1, 2, 3, 4, 5]
        assert len(str(report)) < 1000

    def test_it_changes_nothing(self, storage: Any) -> None:
        records = conversations({"n": 1}, {"n": 2}, {"n": 3})
        storage.save_conversations(records)
        spoil_conversations(storage, {2})
        assert storage.verify() == storage.verify()
        with pytest.raises(StorageError):
            storage.load_conversations()
        assert storage.count_conversations() == 3
