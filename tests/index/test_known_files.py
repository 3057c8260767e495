"""A file that is queried again and again is answered from an outline, with the same results."""

from __future__ import annotations

import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterimage.storage import CorruptRecordError, JSONLStorage
from afterimage.storage.jsonl.index import known_files, outline
from afterimage.storage.jsonl.index.outline import Outline
from tests.support import strategies
from tests.support.plain_python import same, select
from tests.support.records import conversation, firsts

FILTER = {"metadata.n": 2}


@pytest.fixture
def store(tmp_path: Path) -> JSONLStorage:
    store = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "documents.jsonl")
    store.save_conversations([conversation(f"talk {n}", {"n": n % 4}) for n in range(12)])
    return store


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outlines are made for new files, too, and may be large."""
    monkeypatch.setattr(known_files, "_FIRST_QUERIES", 2)
    monkeypatch.setattr(known_files, "_SETTLED_NANOSECONDS", -(10**15))
    monkeypatch.setattr(outline, "_MOST_SHARE", 10)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Outline | None]:
    """The outlines that were made."""
    found: list[Outline | None] = []

    def make(*arguments: Any) -> Outline | None:
        found.append(outline.outline_of(*arguments))
        return found[-1]

    monkeypatch.setattr(known_files, "outline_of", make)
    return found


def queried(store: JSONLStorage, times: int = 1) -> list[str]:
    for _ in range(times):
        found = firsts(store.load_conversations(filters=FILTER))
    return found


class TestAnswers:
    @settings(max_examples=max(1, settings().max_examples // 2))
    @given(data=st.data())
    def test_equal_those_of_plain_python(self, data: st.DataObject) -> None:
        every = strategies.conversations | strategies.conversations | strategies.others
        records = data.draw(st.lists(every, min_size=4, max_size=9))
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(known_files, "_FIRST_QUERIES", 0)
            patch.setattr(known_files, "_SETTLED_NANOSECONDS", -(10**15))
            patch.setattr(outline, "_MOST_SHARE", 10)
            store = JSONLStorage(f"{folder}/c.jsonl", f"{folder}/d.jsonl")
            store.save_conversations(records)
            loaded = store.load_conversations()
            for _ in range(3):
                query = data.draw(strategies.queries(loaded))
                expected = select(loaded, **query)
                assert same(store.load_conversations(**query), expected)
                filters = query["filters"]
                assert store.count_conversations(filters) == len(select(loaded, filters))
                fresh = JSONLStorage(f"{folder}/c.jsonl", f"{folder}/d.jsonl")
                patch.setattr(known_files, "_FIRST_QUERIES", 99)
                columns = ["metadata.n", "final_score", "persona", "evaluation.overall_grade"]
                scan = fresh.scan_conversations(columns, **query).read_all()
                patch.setattr(known_files, "_FIRST_QUERIES", 0)
                assert store.scan_conversations(columns, **query).read_all() == scan

    def test_keep_the_digits_of_other_programs(self, store: JSONLStorage) -> None:
        line = json.loads(store.conversations_path.read_bytes().split(b"\n")[0])
        text = json.dumps({**line, "metadata": {"n": 0}})
        with store.conversations_path.open("a") as file:
            file.write(text.replace('"n": 0', '"n": 1E0, "big": 12345678901234567890123') + "\n")
        before = store.scan_conversations(["metadata.n", "metadata.big"]).read_all()
        for _ in range(5):
            queried(store)
        assert store.scan_conversations(["metadata.n", "metadata.big"]).read_all() == before
        assert store.count_conversations({"metadata.n": 1}) == 4

    def test_find_messages_that_look_like_the_end_of_messages(self, store: JSONLStorage) -> None:
        for content in ('], "metadata": {"n": 2}}', "]", ']}]}], "x": [1]', '"], "n": [2'):
            store.save_conversations([conversation(content, {"n": [2], "m": content})])
        store.save_conversations([conversation("last", {"n": 2})])
        assert [queried(store) for _ in range(5)] == [["talk 2", "talk 6", "talk 10", "last"]] * 5
        found = store.load_conversations(filters=[("metadata.n", "has", 2)])
        assert len(found) == 4

    def test_leave_out_records_of_other_models(self, store: JSONLStorage) -> None:
        with store.conversations_path.open("a") as file:
            file.write('{"metadata": {"n": 2}}\n\n{"conversations": 5, "metadata": {"n": 2}}\n')
        store.save_conversations([conversation("last", {"n": 2})])
        assert [queried(store) for _ in range(5)] == [["talk 2", "talk 6", "talk 10", "last"]] * 5


class TestOutlines:
    def test_are_made_for_the_third_query(
        self, store: JSONLStorage, made: list[Outline | None]
    ) -> None:
        queried(store, 2)
        assert made == []
        queried(store, 3)
        [known] = made
        assert known is not None
        assert len(known.places) == 12
        assert sum(map(len, known.chunks[0].lines)) < store.conversations_path.stat().st_size

    def test_are_made_again_after_a_save(
        self, store: JSONLStorage, made: list[Outline | None]
    ) -> None:
        queried(store, 4)
        store.save_conversations([conversation("more", {"n": 2})])
        assert queried(store) == ["talk 2", "talk 6", "talk 10", "more"]
        assert len(made) == 1
        queried(store, 2)
        assert len(made) == 2

    def test_are_not_believed_for_another_content_of_the_same_size_and_time(
        self, store: JSONLStorage
    ) -> None:
        assert queried(store, 4) == ["talk 2", "talk 6", "talk 10"]
        path = store.conversations_path
        status = path.stat()
        changed = path.read_bytes().replace(b'"n":2', b'"n":9', 1)
        with path.open("r+b") as file:
            file.write(changed)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size
        assert queried(store, 4) == ["talk 6", "talk 10"]

    def test_are_not_believed_for_a_file_that_was_replaced(self, store: JSONLStorage) -> None:
        queried(store, 4)
        other = store.conversations_path.with_name("other.jsonl")
        other.write_bytes(store.conversations_path.read_bytes().replace(b'"n":2', b'"n":9', 1))
        other.replace(store.conversations_path)
        assert queried(store, 4) == ["talk 6", "talk 10"]
        store.conversations_path.unlink()
        assert queried(store, 4) == []

    def test_are_not_made_of_a_file_that_changed_just_now(
        self, store: JSONLStorage, made: list[Outline | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(known_files, "_SETTLED_NANOSECONDS", 10**15)
        queried(store, 5)
        assert made == []

    @pytest.mark.parametrize(
        "line", [b"{", b"[]", b'{"conversations":[{"role":"user","content":5}]}', b'{"a":"\xff"}']
    )
    def test_are_not_made_of_a_file_with_a_corrupt_line(
        self, store: JSONLStorage, made: list[Outline | None], line: bytes
    ) -> None:
        with store.conversations_path.open("ab") as file:
            file.write(line + b"\n")
        wanted: dict[str, Any] = {"filters": {"metadata.n": 3}, "on_error": "skip"}
        with pytest.warns(UserWarning, match="corrupt"):
            store.load_conversations(**wanted)
        for _ in range(4):
            try:
                queried(store)
            except CorruptRecordError as error:
                assert error.line == 13  # noqa: PT017  not every such line stops a filter
        assert set(made) <= {None}

    def test_are_not_kept_if_they_are_large(
        self, store: JSONLStorage, made: list[Outline | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outline, "_MOST_BYTES", 100)
        queried(store, 5)
        assert made == [None]

    def test_keep_few_columns(self, store: JSONLStorage) -> None:
        for n in range(80):
            store.count_conversations({f"metadata.k{n}": 1})
        assert queried(store) == ["talk 2", "talk 6", "talk 10"]


def test_threads_share_an_outline(store: JSONLStorage) -> None:
    queried(store, 4)

    def count(key: int) -> list[int]:
        fields = [f"metadata.k{key}_{number}" for number in range(20)]
        return [store.count_conversations([(each, "==", None)]) for each in fields]

    with ThreadPoolExecutor(4) as threads:
        assert all(counts == [12] * 20 for counts in threads.map(count, range(4)))


def test_a_generator_goes_on_writing(tmp_path: Path) -> None:
    store = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "documents.jsonl")
    for count in range(1, 12):
        store.save_conversations([conversation("more", {"n": count})])
        for _ in range(4):
            assert store.count_conversations([("metadata.n", ">=", 0)]) == count
