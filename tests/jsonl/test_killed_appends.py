"""A save that was killed hides exactly the bytes it wrote; lines of other programs stay."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from afterimage.storage import Document, JSONLStorage, StorageError, verify_jsonl
from afterimage.storage.jsonl.append import append_lines
from tests.support.processes import child
from tests.support.records import conversation

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX"),
]


def line(text: str) -> bytes:
    return conversation(text).model_dump_json().encode() + b"\n"


BEFORE = line("before")
SAVE = [line("a") + line("b é 🚂"), line("c") * 2 + line("d")]
# The first one begins as the lines of the save do.
THEIRS = line("a") + b'{"conversations":[],"metadata":{"by":"others"}}\n' + line("zzz")


def save_until_killed(pipe: Connection, path: Path) -> None:
    def blocks() -> Iterator[bytes]:
        yield from SAVE
        os.kill(os.getpid(), signal.SIGKILL)

    append_lines(path, blocks(), sum(map(len, SAVE)) + 100, "utf-8", print)


class Killed(NamedTuple):
    """The files after a save that was killed; all bytes of `SAVE` are in the first one."""

    path: Path
    store: JSONLStorage
    file: bytes
    journal: bytes

    def restore(self, size: int, theirs: bytes) -> None:
        """The state if the kill had come at `size` bytes, and others had appended then."""
        self.path.write_bytes(self.file[:size] + theirs)
        self.path.with_name(f"{self.path.name}.saving").write_bytes(self.journal)


@pytest.fixture
def killed(tmp_path: Path) -> Killed:
    path = tmp_path / "talks.jsonl"
    path.write_bytes(BEFORE)
    with child(save_until_killed, path) as (process, _):
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    journal = path.with_name("talks.jsonl.saving").read_bytes()
    assert path.read_bytes() == BEFORE + b"".join(SAVE)
    return Killed(path, JSONLStorage(path, tmp_path / "texts.jsonl"), path.read_bytes(), journal)


def texts(store: JSONLStorage) -> list[str]:
    return [
        found.conversations[0].content if found.conversations else "(others)"
        for found in store.load_conversations()
    ]


# Sizes that a kill can leave while the second block is written: ends of lines, and between them.
_SECOND = len(BEFORE) + len(SAVE[0])
_END = _SECOND + len(SAVE[1])
_LINE = len(line("c"))
CUTS = sorted({*range(_SECOND, _END, 7), _SECOND + _LINE, _SECOND + 2 * _LINE, _END})


class TestLinesOfOthers:
    @pytest.mark.filterwarnings("ignore:.*a save that was killed")
    @pytest.mark.parametrize("gap", [b"", b"\n"], ids=["no line feed", "line feed first"])
    def test_all_are_read_and_stay_where_they_are(self, killed: Killed, gap: bytes) -> None:
        theirs = gap + THEIRS
        for cut in CUTS:
            killed.restore(cut, theirs)
            assert texts(killed.store) == ["before", "a", "(others)", "zzz"], cut
            assert killed.path.read_bytes() == killed.file[:cut] + theirs
            killed.store.save_conversations([conversation("after")])
            assert texts(killed.store) == ["before", "a", "(others)", "zzz", "after"]
            assert killed.path.read_bytes()[cut:].startswith(theirs)
            (aside,) = killed.path.parent.glob("*.torn-*")
            assert aside.name == f"talks.jsonl.torn-{len(BEFORE)}"
            # Whose line feed it is, nobody can tell.
            own = killed.file[len(BEFORE) : cut]
            assert aside.read_bytes() in (own, own.removesuffix(b"\n") + gap)
            aside.unlink()

    @pytest.mark.filterwarnings("ignore:.*a save that was killed")
    def test_lines_that_are_no_records_stay_too(self, killed: Killed) -> None:
        for cut in (CUTS[0], CUTS[5], CUTS[-1]):
            killed.restore(cut, b"# their comment\n")
            assert killed.store.load_conversations(limit=1)[0].conversations[0].content == "before"
            with pytest.raises(StorageError, match="line"):
                killed.store.load_conversations()
            killed.store.save_conversations([conversation("after")])
            assert killed.path.read_bytes()[cut:].startswith(b"# their comment\n")
            (aside,) = killed.path.parent.glob("*.torn-*")
            aside.unlink()

    def test_lines_that_came_during_the_save_stay(self, tmp_path: Path) -> None:
        path = tmp_path / "talks.jsonl"
        path.write_bytes(BEFORE)

        def blocks() -> Iterator[bytes]:
            yield SAVE[0]
            with path.open("ab") as theirs:
                theirs.write(THEIRS)
            yield SAVE[1]
            raise StorageError("it ends here")

        with pytest.raises(StorageError, match="it ends here"):
            append_lines(path, blocks(), sum(map(len, SAVE)) + 1, "utf-8", print)
        store = JSONLStorage(path, tmp_path / "texts.jsonl")
        assert texts(store) == ["before", "a", "(others)", "zzz"]
        assert THEIRS in path.read_bytes()
        assert not path.with_name("talks.jsonl.saving").exists()

    def test_a_complete_save_that_left_its_journal_is_read(self, killed: Killed) -> None:
        length = b"%d " % len(BEFORE) + b"%d\n"
        whole = sum(map(len, SAVE))
        journal = killed.journal.replace(length % (whole + 100), length % whole, 1)
        for theirs in (b"", THEIRS):
            state = killed._replace(journal=journal)
            state.restore(len(killed.file), theirs)
            assert texts(killed.store)[:6] == ["before", "a", "b é 🚂", "c", "c", "d"]
            assert killed.store.verify().ok
            killed.store.save_conversations([conversation("after")])
            assert killed.path.read_bytes().startswith(killed.file + theirs)


class TestReports:
    def test_reads_warn_of_the_part_and_verify_reports_it(self, killed: Killed) -> None:
        size = sum(map(len, SAVE))
        calls: list[Any] = [
            killed.store.load_conversations,
            killed.store.count_conversations,
            lambda: list(killed.store.iter_conversations()),
            lambda: killed.store.scan_conversations().read_all(),
            lambda: killed.store.load_conversations(filters={"metadata.n": 3}, on_error="skip"),
        ]
        for call in calls:
            with pytest.warns(UserWarning, match=rf"{size} bytes of a save that was .*\.torn-"):
                call()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for report in (killed.store.verify(), verify_jsonl(killed.path)):
                assert not report.ok
                assert report.conversations == 1
                assert report.killed_saves.first == ((killed.path, 2, len(BEFORE), size),)
                assert (report.corrupt.count, report.torn_tails.count) == (0, 0)
                assert "saves that were killed: 1" in str(report)

    def test_documents(self, tmp_path: Path) -> None:
        path = tmp_path / "texts.jsonl"
        with child(save_until_killed, path) as (process, _):
            process.join(60)
        with path.open("ab") as theirs:
            theirs.write(b'{"id":"theirs","text":"t"}\n')
        store = JSONLStorage(tmp_path / "talks.jsonl", path)
        with pytest.warns(UserWarning, match="a save that was killed"):
            assert [found.id for found in store.load_documents()] == ["theirs"]
        assert store.verify().killed_saves.count == 1
        with pytest.warns(UserWarning, match="contained a save that was killed"):
            store.save_documents([Document(id="ours")])
        assert [found.id for found in store.load_documents()] == ["theirs", "ours"]
        assert store.verify().ok


class TestJournalsWithoutProgress:
    """Of earlier versions, or after a power failure: the save ends where the file ends."""

    @pytest.mark.parametrize("boot", [b"", b"00000000-0000-0000-0000-000000000000"])
    @pytest.mark.filterwarnings("ignore:.*a save that was killed")
    def test_they_hide_the_save(self, killed: Killed, boot: bytes) -> None:
        mark = killed.journal[:8192]
        _, _, progress = killed.journal[8192:].partition(b" ")
        old = mark + boot + b" " + progress if boot else mark.rstrip(b"\0")
        state = killed._replace(journal=old)
        state.restore(len(killed.file), b"")
        assert texts(killed.store) == ["before"]
        killed.store.save_conversations([conversation("after")])
        assert texts(killed.store) == ["before", "after"]
        (aside,) = killed.path.parent.glob("*.torn-*")
        assert aside.read_bytes() == killed.file[len(BEFORE) :]
