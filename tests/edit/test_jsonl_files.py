"""An edit of a JSONL file leaves every other byte as it is, and appears whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    Conversation,
    CorruptRecordError,
    InvalidRecordError,
    JSONLStorage,
    StorageError,
)


def stored(folder: Path, text: str | bytes, **options: Any) -> tuple[JSONLStorage, Path]:
    path = folder / "talks.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return JSONLStorage(path, folder / "documents.jsonl", **options), path


def line(n: int, more: str = "") -> str:
    return f'{{ "conversations" : [],{more} "metadata": {{"n": {n}}} }}'


class TestBytes:
    def test_lines_that_are_not_deleted_keep_their_bytes(self, tmp_path: Path) -> None:
        lines = [
            "\ufeff" + line(1),
            "",
            line(2, ' "x": 1.50e0,') + "\r",
            '{"own": 1}',
            "  ",
            line(3),
        ]
        store, path = stored(tmp_path, "\n".join(lines))
        assert store.delete_conversations({"metadata.n": 3}) == 1
        assert path.read_bytes().decode() == "\n".join(lines[:-1]) + "\n"
        assert store.delete_records([]) == 1
        assert path.read_bytes().decode() == "\n".join([*lines[:3], "  ", ""])
        assert store.delete_conversations({"metadata.n": 1}) == 1
        assert path.read_bytes().decode() == "\ufeff" + "\n".join(["", lines[2], "  ", ""])

    def test_an_update_changes_the_metadata_alone(self, tmp_path: Path) -> None:
        start = (
            '{"persona": "\\u0041", "x": 1.50e0, "metadata":{"n":1,"s":"a"}, "conversations":[]}'
        )
        store, path = stored(tmp_path, start + "\r\n" + line(2))
        assert store.update_conversations({"metadata.n": 1}, {"n": 3}) == 1
        changed = start.replace('"n":1', '"n":3')
        assert path.read_bytes().decode() == changed + "\r\n" + line(2)

    def test_metadata_that_is_written_in_another_way(self, tmp_path: Path) -> None:
        store, path = stored(tmp_path, line(1, ' "x": 2.0,') + "\r\n" + '{"conversations":[]}')
        assert store.update_conversations([], {"m": "é"}) == 2
        first, second = path.read_bytes().decode().split("\n")
        assert first == '{"conversations":[],"x":2.0,"metadata":{"n":1,"m":"é"}}\r'
        assert second == '{"conversations":[],"metadata":{"m":"é"}}'

    def test_a_file_in_another_encoding(self, tmp_path: Path) -> None:
        text = line(1, ' "persona": "café",') + "\n" + line(2, ' "persona": "thé",') + "\n"
        store, path = stored(tmp_path, text.encode("latin-1"), encoding="latin-1")
        assert store.update_conversations({"persona": "café"}, {"m": "é"}) == 1
        assert path.read_bytes().split(b"\n")[1:] == text.encode("latin-1").split(b"\n")[1:]
        assert [each.persona for each in store.load_conversations()] == ["café", "thé"]
        assert store.load_conversations()[0].metadata == {"n": 1, "m": "é"}

    def test_documents_without_an_id_keep_the_id_that_they_had(self, tmp_path: Path) -> None:
        path = tmp_path / "documents.jsonl"
        path.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "b"}\n{"text": "d", "id": "d"}\n')
        store = JSONLStorage(tmp_path / "talks.jsonl", path)
        ids = [each.id for each in store.load_documents()]
        assert store.delete_documents({"text": "a"}) == 1
        assert [each.id for each in store.load_documents()] == ids[1:]
        assert store.update_documents({"id": ids[2]}, {"m": 1}) == 1
        assert [each.id for each in store.load_documents()] == ids[1:]


class TestRefusals:
    @pytest.mark.parametrize("bad", ["nonsense", "[]", '{"conversations": [], "met'])
    def test_a_line_that_is_no_record_stops_the_edit(self, tmp_path: Path, bad: str) -> None:
        text = f"{line(1)}\n{bad}\n{line(2)}\n"
        store, path = stored(tmp_path, text)
        edits: list[Callable[[], int]] = [
            lambda: store.delete_conversations({"metadata.n": 1}),
            lambda: store.update_conversations({"metadata.n": 1}, {"m": 1}),
            store.deduplicate,
        ]
        for edit in edits:
            with pytest.raises(CorruptRecordError, match="line 2"):
                edit()
        assert path.read_text() == text

    def test_an_update_refuses_metadata_that_is_no_object(self, tmp_path: Path) -> None:
        text = '{"conversations": [], "metadata": 3}\n'
        store, path = stored(tmp_path, text)
        with pytest.raises(CorruptRecordError, match="metadata is not an object"):
            store.update_conversations([], {"m": 1})
        assert path.read_text() == text

    def test_a_line_that_repeats_a_key_is_not_rewritten(self, tmp_path: Path) -> None:
        text = line(1, ' "x": 1, "x": 2,') + "\n"
        store, path = stored(tmp_path, text)
        with pytest.raises(CorruptRecordError, match="repeated"):
            store.update_conversations([], {"m": 1})
        assert path.read_text() == text

    def test_a_line_that_would_become_too_long(self, tmp_path: Path) -> None:
        store, path = stored(tmp_path, line(1) + "\n", max_line_bytes=100)
        with pytest.raises(InvalidRecordError, match="max_line_bytes"):
            store.update_conversations([], {"m": "x" * 100})
        assert path.read_text() == line(1) + "\n"

    def test_a_compressed_file_is_read_only(self, tmp_path: Path) -> None:
        store, _ = stored(tmp_path, line(1) + "\n")
        store.export_jsonl(tmp_path / "talks.jsonl.gz")
        packed = JSONLStorage(tmp_path / "talks.jsonl.gz", tmp_path / "documents.jsonl")
        with pytest.raises(StorageError, match="read-only"):
            packed.delete_conversations([])

    def test_a_file_with_hard_links_is_refused(self, tmp_path: Path) -> None:
        store, path = stored(tmp_path, line(1) + "\n")
        os.link(path, tmp_path / "other.jsonl")
        with pytest.raises(StorageError, match="hard link"):
            store.delete_conversations([])

    def test_a_line_that_another_program_appends_meanwhile_is_not_lost(
        self, tmp_path: Path
    ) -> None:
        store, path = stored(tmp_path, line(1) + "\n")

        def change(metadata: dict[str, Any]) -> dict[str, Any]:
            with path.open("a") as file:
                file.write(line(2) + "\n")
            return {"n": 5}

        with pytest.raises(StorageError, match="changed by another program"):
            store.update_conversations([], change)
        assert path.read_text() == f"{line(1)}\n{line(2)}\n"


class TestFiles:
    def test_a_link_and_the_mode_stay(self, tmp_path: Path) -> None:
        real = tmp_path / "data"
        real.mkdir()
        store, path = stored(real, line(1) + "\n" + line(2) + "\n")
        path.chmod(0o640)
        link = tmp_path / "link.jsonl"
        link.symlink_to(path)
        linked = JSONLStorage(link, tmp_path / "documents.jsonl")
        assert linked.delete_conversations({"metadata.n": 1}) == 1
        assert link.is_symlink()
        assert path.stat().st_mode & 0o777 == 0o640
        assert store.count_conversations() == 1
        assert sorted(each.name for each in real.iterdir()) in (
            ["talks.jsonl"],
            ["talks.jsonl", "talks.jsonl.lock"],
        )

    def test_the_file_becomes_smaller(self, tmp_path: Path) -> None:
        store, path = stored(tmp_path, "".join(line(n) + "\n" for n in range(1000)))
        before = path.stat().st_size
        assert store.delete_conversations([("metadata.n", ">=", 500)]) == 500
        assert path.stat().st_size < 0.6 * before

    def test_what_a_killed_edit_left_is_removed(self, tmp_path: Path) -> None:
        store, _ = stored(tmp_path, line(1) + "\n")
        left = tmp_path / ".talks.jsonl.0123456789abcdef0123456789abcdef.editing"
        left.write_text("half")
        assert store.update_conversations([], {"m": 1}) == 1
        assert not left.exists()

    def test_an_unfinished_save_is_moved_away_first(self, tmp_path: Path) -> None:
        store, path = stored(tmp_path, line(1) + "\n" + line(2)[:20])
        with pytest.raises(CorruptRecordError, match="torn"):
            store.delete_conversations({"metadata.n": 1})
        with pytest.warns(UserWarning, match="torn"):
            store.save_conversations([Conversation(conversations=[], metadata={"n": 3})])
        assert store.delete_conversations({"metadata.n": 1}) == 1
        assert [each.metadata["n"] for each in store.load_conversations()] == [3]
        assert path.exists()
