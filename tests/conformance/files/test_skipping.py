"""Both storages: `on_error="skip"` returns all valid records, and reports the others."""

from __future__ import annotations

import gzip
import json
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from afterimage.storage import (
    CorruptRecordError,
    Document,
    EvaluatedConversationWithContext,
    InvalidQueryError,
    SkippedRecords,
    SkippedRecordsWarning,
)
from tests.conformance.queries.test_errors import BAD_LINES
from tests.support.damage import spoil_conversations, spoil_documents
from tests.support.factories import EVALUATORS
from tests.support.plain_python import select
from tests.support.records import Note, conversation, conversations

BAD = {0, 3, 4, 11, 19}


@contextmanager
def skipping(count: int | None = None) -> Iterator[list[SkippedRecords]]:
    """Check that the block warns exactly once, that `count` records were skipped."""
    reports: list[SkippedRecords] = []
    with pytest.warns(SkippedRecordsWarning) as caught:
        yield reports
    (warning,) = caught
    assert warning.filename == __file__, "the warning names the caller's line"
    assert isinstance(warning.message, SkippedRecordsWarning)
    reports.append(warning.message.report)
    assert count in (None, reports[0].count)


@pytest.fixture
def records() -> list[EvaluatedConversationWithContext]:
    return conversations(
        *({"n": n, "domain": "ABC"[n % 3], "late": n if n % 2 else None} for n in range(20))
    )


@pytest.fixture
def damaged(storage: Any, records: list[Any]) -> Any:
    """Twenty conversations, five of them corrupt, and a record of another model."""
    storage.save_conversations([*records[:10], Note(title="between"), *records[10:]])
    spoil_conversations(storage, BAD)
    return storage


@pytest.fixture
def good(records: list[Any]) -> list[Any]:
    return [record for record in records if record.metadata["n"] not in BAD]


QUERIES: list[dict[str, Any]] = [
    {},
    {"limit": 4},
    {"offset": 2},
    {"limit": 3, "offset": 2},
    {"limit": 0},
    {"filters": [("metadata.domain", "==", "A")]},
    {"filters": [[("metadata.n", "<", 5)], [("metadata.n", ">", 17)]]},
    {"order_by": [("metadata.domain", -1)]},
    {"order_by": [("metadata.n", -1)], "limit": 3, "offset": 1},
    {"filters": [("metadata.n", ">", 2)], "order_by": [("metadata.late", 1)], "limit": 5},
]


class TestReads:
    def test_they_raise_by_default(self, damaged: Any) -> None:
        for read in (damaged.load_conversations, lambda: list(damaged.iter_conversations())):
            with pytest.raises(CorruptRecordError):
                read()

    @pytest.mark.parametrize("query", QUERIES, ids=str)
    def test_a_query_is_answered_from_the_valid_records(
        self, damaged: Any, good: list[Any], query: dict[str, Any]
    ) -> None:
        expected = select(good, **query)
        with warnings.catch_warnings():
            # It is not guaranteed how far a slice is read, and so whether it finds corrupt records.
            warnings.simplefilter("ignore", SkippedRecordsWarning)
            assert damaged.load_conversations(**query, on_error="skip") == expected
            found = damaged.iter_conversations(**query, batch_size=3, on_error="skip")
            assert list(found) == expected
            table = damaged.scan_conversations(["metadata.n"], **query, on_error="skip").read_all()
        numbers = [str(record.metadata["n"]) for record in expected]
        assert table.column(0).to_pylist() == numbers

    def test_skipped_records_are_reported(self, damaged: Any) -> None:
        reads: list[Callable[[], Any]] = [
            lambda: damaged.load_conversations(on_error="skip"),
            lambda: damaged.load_conversations(order_by=[("metadata.n", 1)], on_error="skip"),
            lambda: list(damaged.iter_conversations(batch_size=2, on_error="skip")),
            lambda: damaged.scan_conversations(on_error="skip").read_all(),
            lambda: damaged.count_conversations(on_error="skip"),
            lambda: damaged.stats(on_error="skip"),
        ]
        for read in reads:
            with skipping(len(BAD)) as reports:
                read()
            (report,) = reports
            assert len(report.places) == len(BAD)
            assert all("role" in place.reason for place in report.places)
            lines = [place.line or 0 for place in report.places]
            assert lines == sorted(lines)
            assert pickle.loads(pickle.dumps(report)) == report
            assert str(report).splitlines()[0].endswith("skipped 5 corrupt records")

    def test_counts(self, damaged: Any, good: list[Any]) -> None:
        with skipping():
            assert damaged.count_conversations(on_error="skip") == len(good)
        filters = {"metadata.domain": "A"}
        with skipping():
            counted = damaged.count_conversations(filters, on_error="skip")
        assert counted == len(select(good, filters=filters))

    def test_statistics(self, damaged: Any, good: list[Any], make_storage: Any) -> None:
        sound = make_storage()
        sound.save_conversations([*good, Note(title="between")])
        for filters in (None, {"metadata.domain": "A"}):
            expected = sound.stats(filters)
            with skipping() as reports:
                assert damaged.stats(filters, on_error="skip") == expected
            assert reports[0].count <= len(BAD)
            with skipping():
                assert damaged.stats(filters, on_error="skip", progress=[].append) == expected

    def test_exports(self, damaged: Any, good: list[Any], tmp_path: Path) -> None:
        lines, parquet = tmp_path / "out.jsonl", tmp_path / "out.parquet"
        with skipping(len(BAD)):
            assert damaged.export_jsonl(lines, on_error="skip") == len(good)
        found = [json.loads(line) for line in lines.read_bytes().splitlines()]
        assert [EvaluatedConversationWithContext(**line) for line in found] == good
        with skipping(len(BAD)):
            assert damaged.export_parquet(parquet, on_error="skip") == len(good)
        assert pq.read_table(parquet).num_rows == len(good)

    def test_records_of_models(self, damaged: Any, good: list[Any]) -> None:
        assert damaged.load_records(Note, on_error="skip") == [Note(title="between")]
        with skipping(len(BAD)):
            found = damaged.load_records(EvaluatedConversationWithContext, on_error="skip")
        assert found == good

    def test_documents(self, storage: Any) -> None:
        documents = [Document(id=str(n), text=f"text {n}") for n in range(6)]
        storage.save_documents(documents)
        spoil_documents(storage, ["text 1", "text 4"])
        good = [document for document in documents if document.id not in ("1", "4")]
        with pytest.raises(CorruptRecordError):
            storage.load_documents()
        with skipping(2):
            assert storage.load_documents(on_error="skip") == good
        with skipping(2):
            assert list(storage.iter_documents(on_error="skip")) == good
        with skipping(2):
            assert storage.count_documents(on_error="skip") == 4
        with skipping(2):
            found = storage.load_documents(order_by=[("text", -1)], limit=2, on_error="skip")
        assert found == good[:-3:-1]
        with skipping(2):
            assert storage.scan_documents(["id"], on_error="skip").read_all().num_rows == 4

    def test_without_corrupt_records_there_is_no_warning(self, storage: Any) -> None:
        records = conversations({"n": 1}, {"n": 2})
        storage.save_conversations(records)  # warnings are errors here
        assert storage.load_conversations(on_error="skip") == records
        assert storage.count_conversations(on_error="skip") == 2

    def test_an_iterator_that_is_closed_early_warns_too(self, damaged: Any) -> None:
        found = damaged.iter_conversations(batch_size=1, on_error="skip")
        next(found)
        with pytest.warns(SkippedRecordsWarning):
            del found

    @pytest.mark.parametrize("bad", ["ignore", "", None, True, "Skip"])
    def test_an_unknown_on_error(self, storage: Any, tmp_path: Path, bad: Any) -> None:
        path = tmp_path / "x.jsonl"
        path.write_bytes(b"")
        calls: list[Callable[..., Any]] = [
            storage.load_conversations,
            storage.iter_conversations,
            storage.scan_conversations,
            storage.count_conversations,
            storage.load_documents,
            lambda **given: storage.load_records(Note, **given),
            lambda **given: storage.import_jsonl(path, **given),
            lambda **given: storage.export_jsonl(tmp_path / "y.jsonl", **given),
        ]
        for call in calls:
            with pytest.raises(InvalidQueryError, match="'raise' or 'skip'"):
                call(on_error=bad)


GOOD_LINE = conversation("é").model_dump_json().encode() + b"\n"


class TestImports:
    def test_valid_lines_are_saved_and_the_others_named(self, storage: Any, tmp_path: Path) -> None:
        path = tmp_path / "some lines.jsonl"
        path.write_bytes(b"".join(GOOD_LINE + bad + b"\n" for bad in BAD_LINES) + GOOD_LINE)
        with pytest.raises(CorruptRecordError) as caught:
            storage.import_jsonl(path)
        assert storage.count_conversations() == 0
        with skipping(len(BAD_LINES)) as reports:
            assert storage.import_jsonl(path, on_error="skip") == len(BAD_LINES) + 1
        assert storage.load_conversations() == [conversation("é")] * (len(BAD_LINES) + 1)
        (report,) = reports
        assert report.path == path
        assert [place.line for place in report.places] == [2, 4, 6, 8, 10]
        first, second = report.places[:2]
        assert (first.line, first.offset) == (caught.value.line, caught.value.offset)
        assert second.offset == 2 * len(GOOD_LINE) + len(BAD_LINES[0]) + 1
        assert len(str(report).splitlines()) == 7

    def test_bad_documents(self, storage: Any, tmp_path: Path) -> None:
        path = tmp_path / "documents.jsonl"
        path.write_text('{"id": "a"}\n{"id": 3}\n{"conversations": []}\n{"id": "b"}')
        with skipping(2):
            assert storage.import_jsonl(path, kind="documents", on_error="skip") == 2
        assert [document.id for document in storage.load_documents()] == ["a", "b"]

    def test_without_any_valid_line(self, storage: Any, tmp_path: Path) -> None:
        path = tmp_path / "bad.jsonl"
        path.write_bytes(b"nonsense\n[]\n")
        with skipping(2):
            assert storage.import_jsonl(path, on_error="skip") == 0
        assert storage.load_conversations() == []

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_the_rest_of_a_truncated_compressed_file_is_saved(
        self, storage: Any, tmp_path: Path, suffix: str
    ) -> None:
        # Incompressible text, so that part of the file has the same part of the lines.
        text = b"".join(
            conversation(str(n), {"text": f"{n * 2**400 // 3:x}"}).model_dump_json().encode()
            + b"\n"
            for n in range(1, 3001)
        )
        whole = gzip.compress(text) if suffix == ".gz" else pa.compress(text, "zstd", asbytes=True)
        path = tmp_path / f"cut.jsonl{suffix}"
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CorruptRecordError, match="decompressed") as caught:
            storage.import_jsonl(path)
        assert storage.count_conversations() == 0
        with skipping(1) as reports:
            saved = storage.import_jsonl(path, on_error="skip")
        assert saved == storage.count_conversations() == caught.value.line - 1
        assert saved > 600
        assert reports[0].places[0].line == saved + 1


@pytest.mark.slow
@pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
class TestAHundredThousandBadLines:
    COUNT = 100_000

    def test_leave_messages_short(self, storage: Any, tmp_path: Path) -> None:
        path = tmp_path / "bad.jsonl"
        bad = b'{"conversations": [{"role": "narrator", "content": "x"}]}\n'
        path.write_bytes(GOOD_LINE + bad * self.COUNT + GOOD_LINE)
        with pytest.raises(CorruptRecordError) as caught:
            storage.import_jsonl(path)
        assert len(str(caught.value)) < 1000
        start = time.monotonic()
        with skipping(self.COUNT) as reports:
            assert storage.import_jsonl(path, on_error="skip") == 2
        assert time.monotonic() - start < 60  # on a busy machine; usually a few seconds
        report = reports[0]
        assert len(report.places) == 5
        assert len(str(report)) < 2000
        assert str(report).endswith(f"and {self.COUNT - 5:,} more")
        assert storage.count_conversations() == 2

    def test_in_the_storage(self, storage: Any, tmp_path: Path) -> None:
        path = tmp_path / "good.jsonl"
        line = b'{"conversations": [], "metadata": {"n": %d}}\n'
        path.write_bytes(b"".join(line % n for n in [0] + [1] * self.COUNT + [0]))
        storage.import_jsonl(path)
        spoil_conversations(storage, {1})
        with pytest.raises(CorruptRecordError) as caught:
            storage.load_conversations()
        assert len(str(caught.value)) < 1000
        with skipping(self.COUNT):
            found = storage.load_conversations(order_by=[("metadata.n", 1)], on_error="skip")
        assert len(found) == 2
        report = storage.verify()
        assert report.corrupt.count == self.COUNT
        assert report.conversations == 2
        assert len(str(report)) < 3000
