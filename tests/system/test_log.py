"""The logger `afterimage.storage` tells what takes long, and what is skipped, moved or upgraded."""

from __future__ import annotations

import gzip
import logging
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from afterimage.storage import JSONLStorage, SkippedRecordsWarning, SQLStorage
from afterimage.storage.engine.lake.instance import retried
from afterimage.storage.errors import DatabaseError
from afterimage.storage.system import package
from afterimage.storage.system.atomic_files import temporary_path
from tests.support.data import make_version_1 as version_1
from tests.support.processes import KINDS, opened
from tests.support.records import conversation, conversations

NAME = "afterimage.storage"


@pytest.fixture(autouse=True)
def _from_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, NAME)


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """The messages of a level; all of them are from one logger."""
    assert {record.name for record in caplog.records} <= {NAME}
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_the_package_adds_no_handler_that_writes() -> None:
    logger = logging.getLogger(NAME)
    assert [*map(type, logger.handlers)] == [logging.NullHandler]
    assert logger.propagate


class TestWaits:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_long_wait_for_a_lock_is_told_at_its_start_and_its_end(
        self,
        kind: str,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(package, "_LONG_WAIT_SECONDS", 0.05)
        storage = opened(kind, tmp_path)
        storage.save_conversations([conversation()])
        assert not caplog.records  # a save that does not wait
        [path] = {each for each in tmp_path.iterdir() if each.suffix in (".jsonl", ".duckdb")}
        lock = FileLock(f"{path}.lock", thread_local=False)
        lock.acquire()
        caplog.clear()
        save = threading.Thread(target=storage.save_conversations, args=([conversation()],))
        save.start()
        end = time.monotonic() + 10
        while not caplog.records and time.monotonic() < end:
            time.sleep(0.01)
        lock.release()
        save.join()
        first, last = told(caplog, logging.INFO)
        assert first.startswith(f"{path} is locked by ")
        assert first.endswith("; waiting")
        assert last.startswith(f"{path} is no longer locked; waited 0.")

    def test_another_attempt_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        answers = [DatabaseError("could not serialize access"), None]

        def action() -> None:
            if (answer := answers.pop(0)) is not None:
                raise answer

        retried(action, time.monotonic() + 5, is_worth_it=lambda _: True)
        assert told(caplog, logging.INFO) == [
            "trying again after an error: could not serialize access"
        ]


class TestRecords:
    def test_skipped_lines_are_told_each_time(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "talks.jsonl"
        storage = JSONLStorage(path)
        storage.save_conversations([conversation()])
        with path.open("a") as file:
            file.write("no record\n")
        for _ in range(2):
            with pytest.warns(SkippedRecordsWarning):
                storage.load_conversations(on_error="skip")
        told_twice = told(caplog, logging.WARNING)
        assert len(told_twice) == 2
        assert all(f"{path}: skipped 1 corrupt record" in message for message in told_twice)

    def test_an_unfinished_save_that_is_moved_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "talks.jsonl"
        path.write_text('{"conversations":[{"role":"us')
        with pytest.warns(UserWarning, match="torn"):
            JSONLStorage(path).save_conversations([conversation()])
        [message] = told(caplog, logging.WARNING)
        assert "Its 29 bytes were moved to talks.jsonl.torn-0" in message

    def test_what_is_left_of_a_killed_edit_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "talks.jsonl"
        storage = JSONLStorage(path)
        storage.save_conversations(conversations({"n": 1}, {"n": 2}))
        left = temporary_path(path, "editing")
        left.touch()
        storage.delete_conversations({"metadata.n": 1})
        assert not left.exists()
        assert told(caplog, logging.INFO) == [f"removed {left}, left by an edit that was killed"]


class TestDatabases:
    def test_an_upgrade_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "store.duckdb"
        path.write_bytes(gzip.decompress(version_1.DATABASE.read_bytes()))
        SQLStorage(path).load_conversations()
        assert told(caplog, logging.INFO) == [
            f"{path}: updated its view of messages and its columns"
        ]

    def test_a_repair_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "a.duckdb"
        store = SQLStorage(path, metadata_fields=["domain"])
        store.save_conversations(conversations({"domain": "a"}))
        store.verify(repair=True)
        assert not caplog.records
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE conversations SET metadata = '{}'")
        store.verify(repair=True)
        assert told(caplog, logging.INFO) == [f"{path}: rows whose columns were set again: 1"]
