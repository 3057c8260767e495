"""Both storages: an import reads any readable source, once, and saves all of it or nothing."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from afterimage.storage import (
    CorruptRecordError,
    Document,
    InvalidQueryError,
    InvalidRecordError,
    JSONLStorage,
    SkippedRecordsWarning,
    StorageError,
    UnsupportedFileError,
    verify_jsonl,
)
from afterimage.storage.jsonl import sources
from tests.support.records import conversation, firsts

NAMES = [f"talk {n} 🚂" for n in range(30)]
LINES = b"".join(conversation(name).model_dump_json().encode() + b"\n" for name in NAMES)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


PACKED = {
    "plain": LINES,
    "gzip": gzip.compress(LINES),
    "zstd": zstd(LINES),
    "xz": lzma.compress(LINES),
}


def feed(path: Path, data: bytes) -> threading.Thread:
    """Write to a pipe in small pieces."""

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for start in range(0, len(data), 700):
                pipe.write(data[start : start + 700])

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


class TestSources:
    @pytest.mark.parametrize("packing", PACKED)
    @pytest.mark.parametrize("name", ["a.jsonl", "a.gz", "a.zst", "a"])
    def test_compression_is_known_by_the_first_bytes(
        self, storage: Any, tmp_path: Path, packing: str, name: str
    ) -> None:
        path = tmp_path / name
        path.write_bytes(PACKED[packing])
        assert storage.import_jsonl(path) == 30
        assert firsts(storage.load_conversations()) == NAMES
        assert verify_jsonl(path).conversations == 30

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    @pytest.mark.parametrize("packing", PACKED)
    def test_a_pipe(self, storage: Any, tmp_path: Path, packing: str) -> None:
        path = tmp_path / "pipe.jsonl"
        os.mkfifo(path)
        thread = feed(path, PACKED[packing])
        told: list[int] = []
        assert storage.import_jsonl(path, progress=told.append) == 30
        thread.join()
        assert firsts(storage.load_conversations()) == NAMES
        assert sum(told) == 30

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_corrupt_lines_of_a_pipe_can_be_skipped(self, storage: Any, tmp_path: Path) -> None:
        path = tmp_path / "pipe.jsonl"
        os.mkfifo(path)
        feed(path, LINES + b"{\n" + LINES)
        with pytest.warns(SkippedRecordsWarning, match="line 31"):
            assert storage.import_jsonl(path, on_error="skip") == 60
        feed(path, LINES + b"{\n" + LINES)
        with pytest.raises(CorruptRecordError, match="line 31"):
            storage.import_jsonl(path)
        assert storage.count_conversations() == 60

    @pytest.mark.parametrize("packing", PACKED)
    def test_streams_of_bytes_stay_open(self, storage: Any, packing: str) -> None:
        stream = io.BytesIO(PACKED[packing])
        assert storage.import_jsonl(stream) == 30
        assert not stream.closed
        assert firsts(storage.load_conversations()) == NAMES

    def test_streams_of_text_and_of_documents(self, storage: Any) -> None:
        assert storage.import_jsonl(io.StringIO(LINES.decode())) == 30
        assert firsts(storage.load_conversations()) == NAMES
        lines = "".join(Document(id=name).model_dump_json() + "\n" for name in NAMES)
        assert storage.import_jsonl(io.StringIO(lines), kind="documents") == 30
        assert storage.load_documents()[7].id == NAMES[7]

    def test_a_stream_is_read_from_its_position(self, storage: Any, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_bytes(b"a header\n" + LINES)
        with path.open("rb") as stream:
            stream.readline()
            assert storage.import_jsonl(stream) == 30
        with gzip.open(io.BytesIO(PACKED["gzip"])) as stream:
            assert storage.import_jsonl(stream) == 30
        packed = tmp_path / "a.gz"
        packed.write_bytes(gzip.compress(LINES * 50))  # smaller than what is in it
        with gzip.open(packed) as stream:
            assert storage.import_jsonl(stream) == 1500

    def test_several_sources_are_saved_all_or_none(self, storage: Any, tmp_path: Path) -> None:
        good, bad = tmp_path / "good.jsonl.gz", tmp_path / "bad.jsonl"
        good.write_bytes(PACKED["gzip"])
        bad.write_bytes(LINES + b"no\n")
        with pytest.raises(CorruptRecordError, match=r"bad\.jsonl, line 31"):
            storage.import_jsonl([good, bad])
        assert storage.count_conversations() == 0
        with pytest.warns(SkippedRecordsWarning, match=r"bad\.jsonl: skipped 1 corrupt record\n"):
            assert storage.import_jsonl([good, bad, io.BytesIO(LINES)], on_error="skip") == 90
        assert firsts(storage.load_conversations()) == NAMES * 3
        assert storage.import_jsonl([]) == 0

    def test_what_is_no_source_is_refused(self, storage: Any, tmp_path: Path) -> None:
        for wrong in (5, None, b"a.jsonl", [5]):
            with pytest.raises(InvalidQueryError, match="must be a path or a readable stream"):
                storage.import_jsonl(wrong)
        for empty in ("", ["a.jsonl", ""]):
            with pytest.raises(InvalidQueryError, match="empty path"):
                storage.import_jsonl(empty)
        for limit in (0, 1.5, "1"):
            with pytest.raises(InvalidQueryError, match="max_line_bytes"):
                storage.import_jsonl(tmp_path / "a", max_line_bytes=limit)

    def test_a_stream_is_not_given_twice(self, storage: Any, tmp_path: Path) -> None:
        stream = io.BytesIO(LINES)
        with pytest.raises(InvalidQueryError, match="given twice"):
            storage.import_jsonl([stream, stream])
        (tmp_path / "a.jsonl").write_bytes(LINES)
        assert storage.import_jsonl([stream, *[tmp_path / "a.jsonl"] * 2]) == 90

    def test_a_path_that_is_too_long(self, storage: Any) -> None:
        for name in ("n" * 256, "n/" * 4000):
            with pytest.raises(StorageError):
                storage.import_jsonl(name)

    def test_the_own_file_is_refused_as_a_stream(self, tmp_path: Path) -> None:
        own = JSONLStorage(tmp_path / "own.jsonl", tmp_path / "d.jsonl")
        own.save_conversations([conversation()])
        for wrap in (io.BufferedReader, io.TextIOWrapper):
            with own.conversations_path.open("rb") as stream:
                wrapped = wrap(stream)
                for same in (stream, wrapped):
                    with pytest.raises(InvalidQueryError, match="own file"):
                        own.import_jsonl(same)
                wrapped.detach()

    def test_another_encoding_of_the_target(self, tmp_path: Path) -> None:
        target = JSONLStorage(tmp_path / "own.jsonl", tmp_path / "d.jsonl", encoding="latin-1")
        assert target.import_jsonl(io.BytesIO(LINES)) == 30
        assert firsts(target.load_conversations()) == NAMES


class TestStreams:
    @pytest.mark.parametrize("first", [1, 300, 3000])
    def test_text_whose_characters_take_several_bytes(
        self, storage: Any, tmp_path: Path, first: int
    ) -> None:
        names = ["é" * first, "話" * 3000, "b"]
        text = "".join(conversation(name).model_dump_json() + "\n" for name in names)
        path = tmp_path / "source.jsonl"
        path.write_text(text, "utf-8")
        assert storage.import_jsonl(io.StringIO(text)) == 3
        with path.open(encoding="utf-8") as file:
            assert storage.import_jsonl(file) == 3
        assert firsts(storage.load_conversations()) == names * 2

    def test_bytes_that_come_in_larger_pieces_than_asked_for(self, storage: Any) -> None:
        class Generous(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(None if size is None else size * 5)

        assert storage.import_jsonl(Generous(LINES)) == 30
        assert firsts(storage.load_conversations()) == NAMES

    def test_what_cannot_be_read_is_refused(self, storage: Any, tmp_path: Path) -> None:
        class Numbers:
            def read(self, size: int) -> int:
                return size

        closed = io.BytesIO(LINES)
        closed.close()
        with (tmp_path / "written").open("wb") as written:
            for source in (closed, written, Numbers()):
                with pytest.raises(StorageError, match=r"stream|int instead of bytes"):
                    storage.import_jsonl(source)
        assert storage.load_conversations() == []

    @pytest.mark.parametrize("buffering", [-1, 0])
    def test_an_unfinished_save_in_the_file_of_a_stream_is_not_read(
        self, storage: Any, tmp_path: Path, buffering: int
    ) -> None:
        path = tmp_path / "source.jsonl"
        path.write_bytes(LINES + LINES[:5000])
        head = b"%d %d\n" % (len(LINES), len(LINES)) + LINES[:4096]
        path.with_name("source.jsonl.saving").write_bytes(head)
        with (
            path.open("rb", buffering=buffering) as file,
            pytest.warns(UserWarning, match="a save that was killed"),
        ):
            assert storage.import_jsonl(file) == 30
        with (
            path.open(encoding="utf-8") as text,
            pytest.raises(StorageError, match="Give its path"),
        ):
            storage.import_jsonl(text)


class TestChanges:
    def test_an_unfinished_save_of_another_storage_is_not_read(
        self, storage: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "source.jsonl"
        path.write_bytes(LINES + LINES[:5000])
        head = b"%d %d\n" % (len(LINES), len(LINES)) + LINES[:4096]
        path.with_name("source.jsonl.saving").write_bytes(head)
        with pytest.warns(UserWarning, match="a save that was killed"):
            assert storage.import_jsonl(path) == 30

    @pytest.mark.parametrize("change", ["appended", "rewritten", "truncated"])
    def test_a_changed_file_gives_what_was_there_or_an_error(
        self, storage: Any, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "CHUNK_BYTES", 4096)
        path = tmp_path / "source.jsonl"
        path.write_bytes(LINES * 200)
        steps = iter([change])

        def progress(_: int) -> None:
            match next(steps, None):
                case "appended":
                    with path.open("ab") as file:
                        file.write(LINES)
                case "rewritten":
                    path.write_bytes(LINES * 200)
                    os.utime(path, (1, 1))
                case "truncated":
                    path.write_bytes(LINES)

        if change == "appended":
            assert storage.import_jsonl(path, progress=progress) == 6000
            return
        with pytest.raises(StorageError, match="was changed while it was read"):
            storage.import_jsonl(path, progress=progress)
        assert storage.count_conversations() == 0


class TestLongLines:
    @pytest.mark.parametrize("packing", ["plain", "gzip"])
    @pytest.mark.parametrize("length", [2000, 9 * 2**20])
    @pytest.mark.parametrize("at", [0, 1, 2])
    def test_a_line_above_the_limit_is_named_or_skipped(
        self, storage: Any, tmp_path: Path, packing: str, length: int, at: int
    ) -> None:
        lines = [conversation(name).model_dump_json().encode() for name in "ab"]
        lines.insert(at, b'{"conversations":[],"x":"' + b"y" * length)
        data = b"\n".join(lines)  # the last line has no line feed
        path = tmp_path / "a"
        path.write_bytes(gzip.compress(data, 1) if packing == "gzip" else data)
        offset = sum(len(line) + 1 for line in lines[:at])
        match = rf"line {at + 1} \(byte {offset}\): longer than 1,000 bytes"
        with pytest.raises(CorruptRecordError, match=match):
            storage.import_jsonl(path, max_line_bytes=1000)
        assert storage.count_conversations() == 0
        with pytest.warns(SkippedRecordsWarning, match=match):
            assert storage.import_jsonl(path, max_line_bytes=1000, on_error="skip") == 2
        report = verify_jsonl(path, max_line_bytes=1000)
        assert (report.conversations, report.corrupt.count) == (2, 1)

    def test_a_file_of_a_storage_has_the_same_limit(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        wide = JSONLStorage(path, tmp_path / "d.jsonl")
        narrow = JSONLStorage(path, tmp_path / "d.jsonl", max_line_bytes=1000)
        with pytest.raises(InvalidRecordError, match=r"record 1 .* max_line_bytes"):
            narrow.save_conversations([conversation("a"), conversation("b" * 1000)])
        assert not path.exists()
        wide.save_conversations([conversation("a"), conversation("b" * 1000), conversation("c")])
        for call in (
            narrow.load_conversations,
            narrow.count_conversations,
            lambda **kw: narrow.load_conversations(order_by=[("persona", 1)], **kw),
        ):
            with pytest.raises(CorruptRecordError, match=r"line 2 .*max_line_bytes"):
                call()
            with pytest.warns(SkippedRecordsWarning, match=r"line 2 .*max_line_bytes"):
                call(on_error="skip")
        assert narrow.verify().corrupt.count == 1
        with pytest.raises(CorruptRecordError, match="max_line_bytes"):
            narrow.import_jsonl(io.BytesIO(path.read_bytes()), max_line_bytes=10**6)


ROWS = b'{"conversations": []}\n'
OTHER_FORMATS = {
    "UTF-16": '{"a": 1}\n'.encode("utf-16"),
    "UTF-16 without mark": '{"a": 1}\n'.encode("utf-16-le"),
    "UTF-32": '{"a": 1}\n'.encode("utf-32"),
    "JSON over several lines": b'{\n  "conversations": []\n}\n',
    "text such as CSV": b"id,text\n1,a\n2,b\n",
    "a Parquet file": b"PAR1\x15\x04",
    "a zip archive": b"PK\x03\x04\x14",
    "a tar archive": b"a.jsonl".ljust(257, b"\0") + b"ustar",
    "a SQLite database": b"SQLite format 3\0",
    "a DuckDB file": b"\0" * 8 + b"DUCK",
    "compressed with bzip2": b"BZh91AY",
    "compressed twice": gzip.compress(gzip.compress(ROWS)),
}


class TestOtherFormats:
    @pytest.mark.parametrize("what", OTHER_FORMATS)
    def test_are_named_with_what_to_do(self, storage: Any, tmp_path: Path, what: str) -> None:
        named = what.removesuffix(" without mark").removesuffix(" over lines")
        path = tmp_path / "a.jsonl"
        for data in (OTHER_FORMATS[what], gzip.compress(OTHER_FORMATS[what])):
            path.write_bytes(data)
            for call in (
                lambda: storage.import_jsonl(path),
                lambda: storage.import_jsonl(path, on_error="skip"),
                lambda: storage.import_jsonl(io.BytesIO(path.read_bytes())),
                lambda: verify_jsonl(path),
                lambda: JSONLStorage(path).load_conversations(),
                lambda: JSONLStorage(path).count_conversations(),
            ):
                with pytest.raises(UnsupportedFileError) as caught:
                    call()
                message = str(caught.value)
                assert f" is {named}" in message.replace(" text, not", ", not")
                assert "\n" not in message
        assert storage.count_conversations() == 0

    @pytest.mark.parametrize(
        "data",
        [
            b'[{"conversations": []}, {"conversations": []}]',
            b' [\n  {"conversations": []},\n  {"conversations": []}\n]\n',
        ],
    )
    def test_an_array_is_imported_and_is_no_file_of_a_storage(
        self, storage: Any, tmp_path: Path, data: bytes
    ) -> None:
        path = tmp_path / "a.jsonl"
        for text in (data, gzip.compress(data)):
            path.write_bytes(text)
            assert storage.import_jsonl(path) == 2
            assert storage.import_jsonl(io.BytesIO(text)) == 2
            for call in (verify_jsonl, lambda path: JSONLStorage(path).load_conversations()):
                with pytest.raises(UnsupportedFileError, match="a JSON array"):
                    call(path)
        assert storage.count_conversations() == 8

    @pytest.mark.parametrize("damage", [b"[{,,\n", b"a,b\n", b"\0\0\0\n", b"[\n", b"{\n", b"[]\n"])
    def test_damage_to_the_first_line_is_a_corrupt_record(
        self, storage: Any, tmp_path: Path, damage: bytes
    ) -> None:
        path = tmp_path / "a.jsonl"
        path.write_bytes(damage + ROWS * 2)
        with pytest.raises(CorruptRecordError, match="line 1 "):
            storage.import_jsonl(path)
        with pytest.warns(SkippedRecordsWarning, match="line 1 "):
            assert storage.import_jsonl(path, on_error="skip") == 2
