"""`verify` of JSON lines: truncated lines, compressed files, other encodings, any file."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from afterimage.storage import (
    Document,
    InvalidQueryError,
    JSONLStorage,
    MissingFileError,
    verify_jsonl,
)
from tests.conformance.queries.test_errors import BAD_LINES
from tests.support.records import Note, conversation

LINE = conversation("é").model_dump_json().encode() + b"\n"


def packed(text: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(text)
    return pa.compress(text, "zstd", asbytes=True) if suffix == ".zst" else text


class TestVerifyJsonl:
    @pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
    def test_valid_and_corrupt_lines(self, tmp_path: Path, suffix: str) -> None:
        text = b"".join(LINE + bad + b"\n\n" for bad in BAD_LINES)
        text += Note(title="x").model_dump_json().encode()  # a last line without a line feed
        path = tmp_path / f"talks.jsonl{suffix}"
        path.write_bytes(packed(text, suffix))
        before = path.read_bytes()
        report = verify_jsonl(path)
        assert (report.conversations, report.documents, report.records) == (len(BAD_LINES), 0, 1)
        assert report.corrupt.count == len(BAD_LINES)
        assert not report.torn_tails
        assert [place.line for place in report.corrupt.first] == [2, 5, 8, 11, 14]
        for place in report.corrupt.first:
            line = text[place.offset :].split(b"\n")[0]
            assert line in BAD_LINES
        assert report.name == str(path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
    def test_a_truncated_last_line(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"talks.jsonl{suffix}"
        path.write_bytes(packed(LINE * 3 + LINE[:17], suffix))
        report = verify_jsonl(str(path))
        assert not report.ok
        assert report.conversations == 3
        assert not report.corrupt
        (tail,) = report.torn_tails.first
        assert (tail.path, tail.line, tail.offset, tail.size) == (path, 4, 3 * len(LINE), 17)
        assert "torn last lines: 1\n" in str(report)

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_a_truncated_compressed_file(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"talks.jsonl{suffix}"
        path.write_bytes(packed(LINE * 3, suffix)[:-3])
        report = verify_jsonl(path)
        assert report.corrupt.count == 1
        assert "decompressed" in report.corrupt.first[0].reason

    def test_documents(self, tmp_path: Path) -> None:
        path = tmp_path / "texts.jsonl"
        # Without an id, each gets one of its own: two of those are not the same document.
        path.write_text(
            '{"id": "a"}\n{"text": "x"}\n{"text": "x"}\n{"id": "a"}\n{"conversations": []}'
        )
        report = verify_jsonl(path, kind="documents")
        assert report.documents == 4
        assert report.duplicate_ids.count == 1
        (place,) = report.duplicate_ids.first
        assert (place.path, place.line, place.offset) == (path, 1, 0)
        assert "it is a conversation" in report.corrupt.first[0].reason

    def test_a_missing_file(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "missing.jsonl"):
            with pytest.raises(MissingFileError):
                verify_jsonl(path)
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_kind(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidQueryError, match="'documents'"):
            verify_jsonl(tmp_path / "x.jsonl", kind="texts")  # type: ignore[arg-type]

    def test_valid_lines_are_those_that_an_import_accepts(
        self, storage: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "one.jsonl"
        for line in (*BAD_LINES, LINE.strip(), b'{"conversations": 3}', b" ", b""):
            path.write_bytes(line + b"\n")
            try:
                storage.import_jsonl(path)
            except ValueError:
                assert not verify_jsonl(path).ok
            else:
                assert verify_jsonl(path).ok


class TestVerifyOfAStorage:
    def test_truncated_last_lines_of_both_files(self, tmp_path: Path) -> None:
        store = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl")
        store.save_conversations([conversation("a"), conversation("b")])
        store.save_documents([Document(id="a"), Document(id="b")])
        for path in (store.conversations_path, store.documents_path):
            path.write_bytes(path.read_bytes()[:-5])
        report = store.verify()
        assert (report.conversations, report.documents) == (1, 1)
        tails = report.torn_tails.first
        assert [tail.path for tail in tails] == [store.conversations_path, store.documents_path]
        assert [tail.line for tail in tails] == [2, 2]
        with pytest.warns(UserWarning, match="torn"):
            store.save_conversations([conversation("c")])
        with pytest.warns(UserWarning, match="torn"):
            store.save_documents([Document(id="c")])
        assert store.verify().ok

    def test_another_encoding(self, tmp_path: Path) -> None:
        store = JSONLStorage(tmp_path / "a.jsonl", tmp_path / "b.jsonl", encoding="cp1252")
        path = store.conversations_path
        good = '{"conversations": [], "persona": "é"}\n'.encode("cp1252")
        path.write_bytes(good + good.replace(b"\xe9", b"\x81") + good)
        report = store.verify()
        assert (report.conversations, report.corrupt.count) == (2, 1)
        assert report.corrupt.first[0].offset == len(good)
        with pytest.warns(UserWarning, match="skipped 1 "):
            found = store.load_conversations(on_error="skip")
        assert [record.persona for record in found] == ["é", "é"]
        with pytest.warns(UserWarning, match="skipped 1 "):
            assert store.count_conversations({"persona": "é"}, on_error="skip") == 2
