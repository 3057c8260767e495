"""What only JSONLStorage has: files of lines that others write and read too."""

from __future__ import annotations

import gc
import gzip
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from afterimage.storage import (
    CorruptRecordError,
    Document,
    JSONLStorage,
    LockTimeoutError,
    MissingFileError,
    StorageError,
    UnknownFieldError,
)
from tests.support.records import Note, conversation, conversations, firsts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conversations.jsonl"


@pytest.fixture
def storage(path: Path, tmp_path: Path) -> JSONLStorage:
    return JSONLStorage(path, tmp_path / "documents.jsonl")


def line(text: str, **fields: Any) -> bytes:
    return conversation(text, **fields).model_dump_json().encode() + b"\n"


class TestConstructor:
    def test_its_parameters_are_those_of_the_seed_and_then_keywords(self) -> None:
        parameters = list(inspect.signature(JSONLStorage).parameters.values())
        found = [(parameter.name, parameter.default) for parameter in parameters[:4]]
        assert found == [
            ("conversations_path", None),
            ("documents_path", None),
            ("encoding", "utf-8"),
            ("lock_timeout", 30),
        ]
        assert all(
            parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
            for parameter in parameters[4:]
        )

    def test_nothing_is_written_before_the_first_save(
        self, storage: JSONLStorage, tmp_path: Path
    ) -> None:
        assert storage.load_conversations() == []
        assert [each.name for each in tmp_path.iterdir() if each.suffix == ".jsonl"] == []

    def test_default_names_in_the_folder_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "new" / "folder"
        monkeypatch.setenv("AFTERIMAGE_JSONL_DIR", str(folder))
        storage = JSONLStorage()
        storage.save_conversations([conversation()])
        storage.save_documents([Document()])
        assert storage.conversations_path.parent == storage.documents_path.parent == folder
        assert storage.conversations_path.match("conversations_*.jsonl")
        assert storage.documents_path.match("documents_*.jsonl")
        assert storage.conversations_path.is_file()
        assert storage.documents_path.is_file()

    def test_default_names_in_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AFTERIMAGE_JSONL_DIR")
        monkeypatch.chdir(tmp_path)
        storage = JSONLStorage()
        storage.save_conversations([conversation()])
        [written] = tmp_path.glob("conversations_*.jsonl")
        assert storage.conversations_path.resolve() == written.resolve()

    def test_paths_may_be_text_and_hold_anything(self, tmp_path: Path) -> None:
        for name in ("it's.jsonl", 'say "hi".jsonl', "a b*[c]?.jsonl", "é😀.jsonl", "; --.jsonl"):
            storage = JSONLStorage(str(tmp_path / name), str(tmp_path / f"documents {name}"))
            storage.save_conversations(conversations({"n": 1}, {"n": 2}))
            assert firsts(storage.load_conversations(filters={"metadata.n": 2})) == ["1"], name
            assert storage.scan_conversations().read_all().num_rows == 2, name

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        storage = JSONLStorage(tmp_path / "missing" / "c.jsonl", tmp_path / "missing" / "d.jsonl")
        with pytest.raises(MissingFileError, match="missing"):
            storage.save_conversations([conversation()])
        with pytest.raises(MissingFileError, match="missing"):
            storage.save_documents([Document()])
        assert list(tmp_path.iterdir()) == []


class TestFields:
    @pytest.mark.parametrize("field", ["id", "_id", "timestamp"])
    def test_columns_of_a_database_are_unknown_here(
        self, storage: JSONLStorage, field: str
    ) -> None:
        storage.save_conversations([conversation()])
        with pytest.raises(UnknownFieldError):
            storage.load_conversations(filters={field: 1})


class TestLines:
    def test_one_json_object_a_line_and_text_as_it_is(
        self, storage: JSONLStorage, path: Path
    ) -> None:
        records: list[Any] = [conversation("é\n\u2028😀", {"k": 2**64}), conversation("b")]
        storage.save_conversations(records)
        data = path.read_bytes()
        assert data.count(b"\n") == 2
        assert data.endswith(b"\n")
        assert "é\\n\u2028😀".encode() in data
        parsed = [json.loads(each) for each in data.split(b"\n")[:-1]]
        assert parsed == [record.model_dump(mode="json") for record in records]

    def test_a_save_only_appends(self, storage: JSONLStorage, path: Path) -> None:
        storage.save_conversations([conversation("a")])
        before = path.read_bytes()
        storage.save_conversations([conversation("b")])
        assert path.read_bytes().startswith(before)

    def test_a_last_line_without_newline_is_not_joined_with_the_next(
        self, storage: JSONLStorage, path: Path
    ) -> None:
        path.write_bytes(line("a") + line("b").rstrip(b"\n"))
        assert firsts(storage.load_conversations()) == ["a", "b"]
        storage.save_conversations([conversation("c")])
        assert firsts(storage.load_conversations()) == ["a", "b", "c"]

    def test_an_empty_file(self, storage: JSONLStorage, path: Path) -> None:
        path.write_bytes(b"")
        assert storage.load_conversations() == []
        assert storage.count_conversations() == 0
        assert storage.scan_conversations().read_all().num_rows == 0

    def test_lines_that_others_append_are_seen(self, storage: JSONLStorage, path: Path) -> None:
        storage.save_conversations([conversation("a")])
        assert storage.count_conversations() == 1
        with path.open("ab") as file:
            file.write(line("b"))
        assert storage.count_conversations() == 2
        assert firsts(storage.load_conversations(filters={"metadata": {}})) == ["a", "b"]

    def test_lines_of_minimal_and_strange_spelling(self, storage: JSONLStorage, path: Path) -> None:
        path.write_text(
            '{"conversations":[]}\n'
            ' { "metadata" : { "n" : 1e2 , "\\u006e2" : "\\u0041\\/" } , "conversations" : [ ] } \n'
            '{"conversations":[],"final_score":1}\r\n'
            '{"conversations":[],"metadata":{"n":-0.0,"m":12345678901234567890123}}\n',
            "utf-8",
        )
        records = storage.load_conversations()
        assert [record.metadata for record in records] == [
            {},
            {"n": 100.0, "n2": "A/"},
            {},
            {"n": 0.0, "m": 12345678901234567890123},
        ]
        assert storage.count_conversations({"metadata.n": 100}) == 1
        assert storage.count_conversations({"metadata.n2": "A/"}) == 1
        assert storage.count_conversations({"final_score": 1}) == 1
        assert storage.count_conversations({"metadata.n": 0}) == 1
        assert storage.count_conversations({"metadata.m": 12345678901234567890123}) == 1

    def test_other_models_share_the_file(self, storage: JSONLStorage, path: Path) -> None:
        storage.save_conversations([Note(title="a"), conversation("b")])
        first, second = (json.loads(each) for each in path.read_bytes().split(b"\n")[:-1])
        assert first == {"title": "a", "body": None, "conversations": None}
        assert "conversations" in second


class TestCompressedFiles:
    def test_they_are_read_as_they_are(self, tmp_path: Path) -> None:
        lines = b"".join(line(str(n), metadata={"n": n}) for n in range(100))
        packed = {
            "c.jsonl.gz": gzip.compress(lines[:5000]) + gzip.compress(lines[5000:]),
            "c.jsonl.zst": pa.Codec("zstd").compress(lines, asbytes=True),
        }
        for name, data in packed.items():
            (tmp_path / name).write_bytes(data)
            storage = JSONLStorage(tmp_path / name, tmp_path / "d.jsonl")
            assert storage.count_conversations() == 100
            assert firsts(storage.load_conversations(3, 7)) == ["7", "8", "9"]
            found = storage.load_conversations(filters=[("metadata.n", ">", 97)])
            assert firsts(found) == ["98", "99"]

    def test_one_that_is_cut_off_is_an_error(self, tmp_path: Path) -> None:
        data = gzip.compress(b"".join(line(str(n)) for n in range(100)))
        (tmp_path / "c.jsonl.gz").write_bytes(data[:-30])
        storage = JSONLStorage(tmp_path / "c.jsonl.gz", tmp_path / "d.jsonl")
        with pytest.raises(StorageError, match=r"c\.jsonl\.gz"):
            storage.load_conversations()


class TestMalformedLines:
    @pytest.mark.parametrize(
        "bad",
        [
            b"{",
            b"nonsense",
            b"[]",
            b'{"conversations": [], "metadata": {"k": "\xff"}}',
            b'{"conversations": [{"role": "narrator", "content": "x"}]}',
            b'{"conversations": [], "final_score": "high"}',
        ],
        ids=repr,
    )
    def test_file_line_and_offset_are_named(
        self, storage: JSONLStorage, path: Path, bad: bytes
    ) -> None:
        data = line("é") + bad + b"\n" + line("b")
        path.write_bytes(data)
        reads: list[Callable[[], Any]] = [
            storage.load_conversations,
            lambda: list(storage.iter_conversations()),
            lambda: storage.load_conversations(filters={"metadata.n": None}),
            lambda: storage.load_conversations(order_by=[("persona", 1)]),
        ]
        for read in reads:
            with pytest.raises(CorruptRecordError) as caught:
                read()
            assert caught.value.path == path
            assert caught.value.line == 2
            assert caught.value.offset == len(line("é"))
            text = str(caught.value)
            assert len(text.splitlines()) < 10
            assert "conversations.jsonl" in text
            assert "2" in text
        assert path.read_bytes() == data

    @pytest.mark.parametrize(
        "bad",
        [b"{", b"nonsense", b"[]", b'{"conversations":[],"n":' + b"1" * 5000 + b"}"],
        ids=lambda bad: bad[:30].decode(),
    )
    def test_scans_and_exports_see_them_too(
        self, storage: JSONLStorage, path: Path, tmp_path: Path, bad: bytes
    ) -> None:
        path.write_bytes(line("a") + bad + b"\n" + line("b"))
        with pytest.raises(CorruptRecordError):
            storage.scan_conversations().read_all()
        with pytest.raises(CorruptRecordError):
            storage.export_jsonl(tmp_path / "out.jsonl")
        with pytest.raises(CorruptRecordError):
            storage.export_parquet(tmp_path / "out.parquet")
        assert not list(tmp_path.glob("out*"))

    @pytest.mark.parametrize("shift", [0, 1])
    def test_text_that_the_engine_quotes_in_part(
        self, storage: JSONLStorage, path: Path, shift: int
    ) -> None:
        # Its message has some of the line, and where that is cut may be inside a character.
        bad = '{"conversations": [], "persona": "' + "x" * shift + "é" * 300 + '" 3}\n'
        path.write_bytes(line("a") + bad.encode())
        for read in (
            lambda: storage.count_conversations({"persona": "x"}),
            lambda: storage.load_conversations(order_by=[("persona", 1)]),
            lambda: storage.scan_conversations(["persona"]).read_all(),
            storage.stats,
        ):
            with pytest.raises(StorageError):
                read()

    def test_a_refused_line_leaves_no_connection_to_the_garbage_collector(
        self, storage: JSONLStorage, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.write_bytes(line("a") + b'{"conversations":[],"metadata":3}\n')
        for read in (
            lambda: storage.scan_conversations().read_all(),
            lambda: storage.load_conversations(filters=[("persona", "==", None)]),
        ):
            with pytest.raises(CorruptRecordError):
                read()
            gc.collect()
        assert caplog.records == []

    def test_documents(self, storage: JSONLStorage) -> None:
        storage.save_documents([Document(id="a")])
        with storage.documents_path.open("ab") as file:
            file.write(b'{"id": 3}\n')
        with pytest.raises(CorruptRecordError) as caught:
            storage.load_documents()
        assert caught.value.line == 2
        assert caught.value.path == storage.documents_path


class TestLocks:
    def test_a_save_waits_no_longer_than_asked_for_another_process(
        self, path: Path, tmp_path: Path
    ) -> None:
        # The lock file is that of the published package, so that both keep out of each other's way.
        code = (
            "import sys, filelock\n"
            "with filelock.FileLock(sys.argv[1]):\n"
            "    print('held', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        storage = JSONLStorage(path, tmp_path / "documents.jsonl", lock_timeout=1)
        storage.save_conversations([conversation("a")])
        command = [sys.executable, "-c", code, f"{path}.lock"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            start = time.monotonic()
            with pytest.raises(LockTimeoutError, match=r"conversations\.jsonl") as caught:
                storage.save_conversations([conversation("b")])
            assert 0.9 < time.monotonic() - start < 10
            assert isinstance(caught.value, TimeoutError)
            assert len(str(caught.value).splitlines()) < 10
            holder.stdin.close()
        storage.save_conversations([conversation("c")])
        assert firsts(storage.load_conversations()) == ["a", "c"]
