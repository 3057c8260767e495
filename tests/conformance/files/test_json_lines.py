"""Both storages: exports and imports of JSON lines lose nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from afterimage.storage import (
    CorruptRecordError,
    Document,
    EvaluatedConversationWithContext,
    JSONLStorage,
    SkippedRecordsWarning,
    StorageError,
    verify_jsonl,
)
from tests.support.plain_python import same, select
from tests.support.records import (
    ALL_SORTS,
    Note,
    OpenConversation,
    RatedConversation,
    TracedConversation,
    conversation,
    evaluation,
    firsts,
)


def lines_of(path: Path) -> list[Any]:
    data = path.read_bytes()
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


class TestJsonLines:
    @pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
    def test_round_trip_between_storages(
        self, make_storage: Any, tmp_path: Path, suffix: str
    ) -> None:
        source, target = make_storage(), make_storage()
        source.save_conversations(ALL_SORTS)
        path = tmp_path / f"it's a file{suffix}"
        assert source.export_jsonl(path) == len(ALL_SORTS)
        assert target.import_jsonl(path) == len(ALL_SORTS)
        assert same(target.load_conversations(), source.load_conversations())
        for model in (RatedConversation, TracedConversation, OpenConversation):
            assert same(target.load_records(model), source.load_records(model))

    def test_round_trip_of_documents(self, make_storage: Any, tmp_path: Path) -> None:
        source, target = make_storage(), make_storage()
        documents = [
            Document(id="a", text="\u2028", metadata={"k": [1.0, None]}),
            Document(id="a", personas=[{"descriptions": ["x"], "metadata": {"": 2**64}}]),
        ]
        source.save_documents(documents)
        path = tmp_path / "documents.jsonl"
        assert source.export_jsonl(path, kind="documents") == 2
        assert target.import_jsonl(path, kind="documents") == 2
        assert same(target.load_documents(), documents)
        assert target.load_conversations() == []

    def test_exported_lines_equal_imported_lines(self, storage: Any, tmp_path: Path) -> None:
        # Absent fields stay absent, null stays null, and undeclared fields are kept.
        message = {"role": "user", "content": "x", "reasoning_content": "y"}
        lines = [
            {"conversations": []},
            {"conversations": [], "metadata": {}, "persona": None},
            {"conversations": [{"content": "x", "role": "assistant", "reasoning_content": None}]},
            {"conversations": [{**message, "weight": 1, "name": None}, message]},
            {"metadata": {"b": 1, "a": [1.0, 2**70]}, "conversations": [], "id": 7, "extra": {}},
            {"conversations": [], "evaluation": evaluation().model_dump(mode="json")},
            {
                "conversations": [],
                "evaluation": {**evaluation().model_dump(mode="json"), "judge": "me"},
                "final_score": None,
            },
        ]
        source, path = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        assert storage.import_jsonl(source) == len(lines)
        assert storage.export_jsonl(path) == len(lines)
        assert lines_of(path) == lines

    def test_exported_document_lines_equal_imported_lines(
        self, storage: Any, tmp_path: Path
    ) -> None:
        lines = [
            {"id": "a"},
            {"id": "b", "text": None, "_id": 3, "timestamp": "x"},
            {"id": "c", "personas": [{"descriptions": ["x"], "metadata": {}, "by": "me"}]},
        ]
        source, path = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        storage.import_jsonl(source, kind="documents")
        storage.export_jsonl(path, kind="documents")
        assert lines_of(path) == lines

    def test_an_import_is_appended(self, filled: Any, tmp_path: Path) -> None:
        path = tmp_path / "more.jsonl"
        path.write_text(conversation("more").model_dump_json() + "\n", "utf-8")
        assert filled.import_jsonl(path) == 1
        assert filled.import_jsonl(path) == 1
        assert firsts(filled.load_conversations())[29:] == ["29", "more", "more"]

    def test_lines_of_other_models_stay_unchanged(self, storage: Any, tmp_path: Path) -> None:
        path = tmp_path / "mixed.jsonl"
        records = [Note(title="a"), conversation("b"), Note(title="c", body={"k": 1})]
        path.write_text("".join(record.model_dump_json() + "\n" for record in records), "utf-8")
        storage.import_jsonl(path)
        assert firsts(storage.load_conversations()) == ["b"]
        assert storage.load_records(Note) == [records[0], records[2]]

    def test_a_last_line_without_newline_and_empty_files(
        self, storage: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "no-newline.jsonl"
        path.write_text(conversation("a").model_dump_json(), "utf-8")
        assert storage.import_jsonl(path) == 1
        path.write_bytes(b"")
        assert storage.import_jsonl(path) == 0
        assert firsts(storage.load_conversations()) == ["a"]

    def test_lines_are_split_at_newlines_only(self, storage: Any, tmp_path: Path) -> None:
        text = "\u2028 \u2029 \u0085 \x0b \x0c \x1c \x1e"
        path = tmp_path / "separators.jsonl"
        line = json.dumps({"conversations": [], "persona": text}, ensure_ascii=False)
        path.write_text(line + "\n" + line + "\n", "utf-8")
        assert storage.import_jsonl(path) == 2
        assert [record.persona for record in storage.load_conversations()] == [text, text]

    def test_an_integer_too_large_for_a_score_is_infinite_in_imports_and_loads(
        self, storage: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "large.jsonl"
        path.write_bytes(b'{"conversations":[],"final_score":' + b"9" * 400 + b"}\n")
        expected = JSONLStorage(path, tmp_path / "no documents.jsonl").load_conversations()
        assert expected[0].final_score == float("inf")
        assert verify_jsonl(path).ok
        assert storage.import_jsonl(path) == 1
        assert storage.load_conversations() == expected
        assert storage.count_conversations([("final_score", ">", 1e300)]) == 1

    def test_windows_line_ends(self, storage: Any, tmp_path: Path) -> None:
        path = tmp_path / "windows.jsonl"
        path.write_bytes(conversation("a").model_dump_json().encode() + b"\r\n")
        assert storage.import_jsonl(path) == 1
        assert firsts(storage.load_conversations()) == ["a"]

    def test_filters_order_and_slice(self, filled: Any, tmp_path: Path) -> None:
        arguments: dict[str, Any] = {
            "filters": [("metadata.domain", "==", "A")],
            "order_by": [("metadata.n", -1)],
            "limit": 3,
            "offset": 1,
        }
        path = tmp_path / "some.jsonl"
        assert filled.export_jsonl(path, **arguments) == 3
        expected = select(filled.load_conversations(), **arguments)
        assert [EvaluatedConversationWithContext(**line) for line in lines_of(path)] == expected

    def test_an_export_replaces_the_earlier_file(self, filled: Any, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_text("something much longer than what follows\n" * 1000)
        assert filled.export_jsonl(path, limit=1) == 1
        assert len(lines_of(path)) == 1
        assert filled.export_jsonl(path, limit=0) == 0
        assert path.read_bytes() == b""

    def test_the_suffix_chooses_the_compression(self, filled: Any, tmp_path: Path) -> None:
        filled.export_jsonl(tmp_path / "out.jsonl")
        plain = (tmp_path / "out.jsonl").read_bytes()
        filled.export_jsonl(tmp_path / "out.jsonl.gz")
        assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == plain
        filled.export_jsonl(tmp_path / "out.jsonl.zst")
        with pa.input_stream(str(tmp_path / "out.jsonl.zst"), compression="zstd") as stream:
            assert stream.read() == plain

    def test_only_the_target_is_left_in_the_folder(self, filled: Any, tmp_path: Path) -> None:
        folder = tmp_path / "exports"
        folder.mkdir()
        filled.export_jsonl(folder / "a.jsonl")
        filled.export_parquet(folder / "a.parquet")
        assert sorted(path.name for path in folder.iterdir()) == ["a.jsonl", "a.parquet"]

    def test_compressed_files_of_several_parts(self, storage: Any, tmp_path: Path) -> None:
        # `cat a.gz b.gz` and programs that append create such files.
        parts = [(conversation(text).model_dump_json() + "\n").encode() for text in "ab"]
        zstd = pa.Codec("zstd")
        for name, compress in (
            ("two.jsonl.gz", gzip.compress),
            ("two.jsonl.zst", lambda data: zstd.compress(data, asbytes=True)),
        ):
            (tmp_path / name).write_bytes(b"".join(compress(part) for part in parts))
            assert storage.import_jsonl(tmp_path / name) == 2
        assert firsts(storage.load_conversations()) == ["a", "b", "a", "b"]

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_a_truncated_compressed_file_stores_nothing(
        self, filled: Any, tmp_path: Path, suffix: str
    ) -> None:
        path = tmp_path / f"cut.jsonl{suffix}"
        filled.export_jsonl(path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(StorageError, match=r"cut\.jsonl"):
            filled.import_jsonl(path)
        assert filled.count_conversations() == 30

    def test_paths_may_be_text(self, filled: Any, tmp_path: Path) -> None:
        assert filled.export_jsonl(str(tmp_path / "a.jsonl"), limit=2) == 2
        assert filled.import_jsonl(str(tmp_path / "a.jsonl")) == 2


@pytest.mark.parametrize(
    "line",
    [
        '{"conversations":[],"persona":"a","persona":"b"}',
        '{"conversations":[{"role":"user","content":"a","content":"b"}]}',
        '{"conversations":[],"metadata":{"k":[{"n":1,"n":2}]}}',
        '{"title":"a","title":"b"}',
    ],
    ids=["top", "message", "metadata", "other model"],
)
def test_a_line_that_repeats_a_key_is_not_imported(storage: Any, tmp_path: Path, line: str) -> None:
    # Programs differ in the value that they take for such a key.
    path = tmp_path / "source.jsonl"
    path.write_text(f'{{"conversations":[]}}\n{line}\n')
    report = verify_jsonl(path)
    assert (report.corrupt.count, report.corrupt.first[0].line) == (1, 2)
    assert "repeated" in report.corrupt.first[0].reason
    with pytest.raises(CorruptRecordError, match=r"line 2.*repeated"):
        storage.import_jsonl(path)
    assert storage.count_conversations() == 0
    with pytest.warns(SkippedRecordsWarning):
        assert storage.import_jsonl(path, on_error="skip") == 1
