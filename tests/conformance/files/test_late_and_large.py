"""Values that only some paths would change, keys that come late, and more than fits in a step."""

from __future__ import annotations

import json
import os
import struct
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from afterimage.storage import Conversation, JSONLStorage
from tests.support.factories import Storage
from tests.support.plain_python import path_of, same
from tests.support.processes import KINDS, opened
from tests.support.records import conversation, conversations, firsts

ABSENT_OR_EMPTY: list[dict[str, Any]] = [
    {}, {"a": None}, {"a": {}}, {"a": []}, {"a": ""}, {"b": None}, {"a": [{}]}, {"a": [None]},
    {"a": {"b": None}}, {"a": {"b": {}}}, {"a": 2**63}, {"a": -0.0}, {"a": 2**53 + 1},
]  # fmt: skip

UNICODE = [
    "\u2028", "a\u2029b", "\u0085", "\x0b\x0c\x1c\x1e", "\x00", "a\x00b", "\ufeff", "\ufeffb",
    "😀", "👩‍👩‍👧", "e\u0301", "é", "\uffff", "\U0010ffff", "\\u0041", "\r\n", "\x7f", '"\\/',
]  # fmt: skip


class TestEveryPath:
    def test_lines_database_arrow_parquet_lines(self, tmp_path: Path) -> None:
        records = conversations(*ABSENT_OR_EMPTY, *({text: text} for text in UNICODE))
        folders = [tmp_path / name for name in ("first", "second")]
        for folder in folders:
            folder.mkdir()
        lines = opened("jsonl", folders[0])
        lines.save_conversations(records)
        database = opened("sql", folders[0])
        database.import_jsonl(folders[0] / "talks.jsonl")
        arrow = database.scan_conversations().read_all()
        database.export_parquet(tmp_path / "talks.parquet")
        from_parquet = pq.read_table(tmp_path / "talks.parquet")
        assert from_parquet.to_pylist() == arrow.to_pylist()
        again = opened("jsonl", folders[1])
        again.save_conversations(
            [
                type(records[0]).model_validate(
                    {
                        **{name: row[name] for name in type(records[0]).model_fields},
                        "metadata": json.loads(row["metadata"]),
                    }
                )
                for row in from_parquet.to_pylist()
            ]
        )
        assert same(again.load_conversations(), records)

    @pytest.mark.parametrize("kind", KINDS)
    def test_text_by_every_way_in_and_out(self, tmp_path: Path, kind: str) -> None:
        records: list[Any] = [
            conversation(text, {"t": text, text: 1}, persona=text) for text in UNICODE
        ]
        storage = opened(kind, tmp_path)
        storage.save_conversations(records)
        assert storage.load_conversations() == records
        columns = storage.scan_conversations(["persona", "metadata.t"]).read_all()
        assert columns.column(0).to_pylist() == columns.column(1).to_pylist() == UNICODE
        ordered = storage.load_conversations(order_by=[("metadata.t", 1)])
        assert firsts(ordered) == sorted(UNICODE)
        for text in UNICODE:
            for field in ("persona", "metadata.t"):
                assert firsts(storage.load_conversations(filters={field: text})) == [text]
            assert firsts(storage.load_conversations(filters={path_of("metadata", text): 1})) == [
                text
            ]
        storage.export_parquet(tmp_path / "out.parquet")
        assert pq.read_table(tmp_path / "out.parquet").column("persona").to_pylist() == UNICODE
        for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst"):
            folder = tmp_path / suffix
            folder.mkdir()
            storage.export_jsonl(folder / f"out{suffix}")
            other = opened(kind, folder)
            other.import_jsonl(folder / f"out{suffix}")
            assert other.load_conversations() == records

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_key_that_the_first_record_has_not(self, tmp_path: Path, kind: str) -> None:
        records = conversations({}, {"late": 2**70}, {"later": [None]}, {"late": "x"})
        storage = opened(kind, tmp_path)
        storage.save_conversations(records)
        storage.export_jsonl(tmp_path / "out.jsonl")
        storage.import_jsonl(tmp_path / "out.jsonl")
        assert same(storage.load_conversations(), records * 2)
        assert storage.count_conversations({"metadata.late": 2**70}) == 2

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_that_begins_with_a_byte_order_mark(self, tmp_path: Path, kind: str) -> None:
        # As Windows programs write them; what else has one inside its text keeps it.
        records: list[Any] = [conversation("a", {"n": 1}), conversation("\ufeffb", {"n": 2})]
        lines = "".join(record.model_dump_json() + "\n" for record in records)
        (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
        storage = opened(kind, tmp_path)
        assert storage.import_jsonl(tmp_path / "in.jsonl") == 2
        assert storage.load_conversations() == records
        own = JSONLStorage(tmp_path / "in.jsonl", tmp_path / "none.jsonl")
        assert own.load_conversations() == records
        own.save_conversations(records)
        assert firsts(own.load_conversations(filters={"metadata.n": 1})) == ["a", "a"]

    def test_a_database_is_in_a_format_that_the_oldest_duckdb_reads(self, tmp_path: Path) -> None:
        # Whatever DuckDB command line the other tests find here: 1.5 reads up to version 68.
        opened("sql", tmp_path).save_conversations([conversation()])
        header = (tmp_path / "store.duckdb").read_bytes()[:20]
        assert header[8:12] == b"DUCK"
        assert struct.unpack("<Q", header[12:]) == (68,)


ROWS = 3 * 122_880 + 1000
"""More than three of DuckDB's row groups."""


@pytest.fixture(scope="module", params=KINDS)
def many(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Storage:
    folder = tmp_path_factory.mktemp("many")
    lines = folder / "in.jsonl"
    with lines.open("w") as file:
        for n in range(ROWS):
            file.write(json.dumps({"conversations": [], "metadata": {"n": n, "tied": 7}}) + "\n")
    storage = opened(request.param, folder)
    assert storage.import_jsonl(lines) == ROWS
    return storage


@pytest.mark.slow
class TestPagesOverRowGroups:
    @pytest.mark.parametrize("order_by", [[("metadata.tied", -1)], [("persona", 1)], []], ids=str)
    def test_pages_read_by_threads_are_disjoint_and_complete(
        self, many: Storage, order_by: Any
    ) -> None:
        size = 100_000
        pages: dict[int, list[str]] = {}

        def read(start: int) -> None:
            limit = size if start < 2 * size else None  # an offset without a limit at the end
            reader = many.scan_conversations(
                ["metadata.n"], order_by=order_by, limit=limit, offset=start
            )
            pages[start] = reader.read_all().column(0).to_pylist()

        threads = [threading.Thread(target=read, args=[start]) for start in (0, size, 2 * size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(pages[start]) for start in sorted(pages)] == [size, size, ROWS - 2 * size]
        assert [n for start in sorted(pages) for n in pages[start]] == [str(n) for n in range(ROWS)]


@pytest.mark.slow
@pytest.mark.skipif("AFTERIMAGE_LARGE" not in os.environ, reason="takes 10 GB and minutes")
class TestOverTwoGibibytes:
    """More text than 32-bit offsets reach: in all, and in what one step sorts or hands over."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_load_sort_and_export(self, tmp_path: Path, kind: str) -> None:
        count, size = 2300, 2**20
        lines = tmp_path / "in.jsonl"
        with lines.open("w") as file:
            for n in range(count):
                record = {"conversations": [], "metadata": {"n": n}, "persona": f"{n:07}" * 150_000}
                file.write(json.dumps(record) + "\n")
        assert lines.stat().st_size > 2**31
        storage = opened(kind, tmp_path)
        storage.import_jsonl(lines)
        assert size < len(next(iter(storage.iter_conversations())).persona or "")
        total = 0
        for at, found in enumerate(storage.iter_conversations(batch_size=50)):
            assert found.metadata == {"n": at}
            total += len(found.persona or "")
        assert total > 2**31
        table = storage.scan_conversations(
            ["metadata.n", "persona"], order_by=[("metadata.n", -1)]
        ).read_all()
        assert table.nbytes > 2**31
        assert table.column(0).to_pylist() == [str(n) for n in reversed(range(count))]
        assert table.column(1)[0].as_py()[:7] == f"{count - 1:07}"
        del table
        assert storage.export_parquet(tmp_path / "out.parquet") == count
        read = pq.ParquetFile(tmp_path / "out.parquet")
        assert sum(read.read_row_group(n).num_rows for n in range(read.num_row_groups)) == count
        assert storage.export_jsonl(tmp_path / "out.jsonl") == count
        assert JSONLStorage(tmp_path / "out.jsonl", tmp_path / "d").count_conversations() == count

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_save(self, tmp_path: Path, kind: str) -> None:
        storage = opened(kind, tmp_path)
        record = Conversation(conversations=[], metadata={"text": "x" * 2**20})
        storage.save_conversations([record] * 2300)
        assert storage.count_conversations() == 2300
        assert (
            list(storage.iter_conversations(2, 2297, batch_size=1))[-1].metadata == record.metadata
        )
