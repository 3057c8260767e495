"""Systems without hard links, temporary folders or syncs of folders; lock files of other users."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from afterimage.storage import Document, SQLStorage, StorageError
from tests.support.messages import assert_short
from tests.support.processes import KINDS, child, opened, told_by
from tests.support.records import conversation, firsts

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems have other limits")

NOBODY = 65534


def _failing(*codes: int) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(codes[0], os.strerror(codes[0]))

    return fail


class TestFileSystems:
    @pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
    def test_without_hard_links_a_database_is_created(
        self, tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "link", _failing(code))
        (tmp_path / "empty.duckdb").touch()
        for name in ("a.duckdb", "empty.duckdb"):
            for _ in range(2):
                store = SQLStorage(f"duckdb:///{tmp_path / name}")
                store.save_conversations([conversation("a")])
            assert firsts(store.load_conversations()) == ["a", "a"]
        left = {path.name for path in tmp_path.iterdir()} - {"a.duckdb", "empty.duckdb"}
        assert left == {"a.duckdb.lock", "empty.duckdb.lock"}

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
    def test_without_a_sync_of_folders_saves_and_exports_succeed(
        self, tmp_path: Path, kind: str, code: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync = os.fsync

        def files_only(handle: int) -> None:
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                _failing(code)()
            fsync(handle)

        monkeypatch.setattr(os, "fsync", files_only)
        store = opened(kind, tmp_path)
        store.save_conversations([conversation("a")])
        store.save_documents([Document(text="d")])
        assert store.export_jsonl(tmp_path / "out.jsonl") == 1
        assert store.export_parquet(tmp_path / "out.parquet") == 1
        assert firsts(store.load_conversations()) == ["a"]

    def test_a_failed_sync_of_the_folder_is_a_storage_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = opened("jsonl", tmp_path)
        monkeypatch.setattr(os, "fsync", _failing(errno.EIO))
        with pytest.raises(StorageError, match="cannot be written"):
            store.save_conversations([conversation("a")])


def without_temporary_folder(pipe: Connection, folder: Path) -> None:
    def missing() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    tempfile.gettempdir = missing
    tempfile._get_default_tempdir = missing  # type: ignore[attr-defined]
    store = SQLStorage(f"duckdb:///{folder / 'a.duckdb'}")
    (folder / "more.jsonl").write_text('{"other": "' + "x" * 100_000 + '"}\n')
    store.save_conversations([conversation("a")] * 300)
    store.import_jsonl(folder / "more.jsonl")
    assert len(store.load_conversations(order_by=[("metadata.n", 1)])) == 300
    assert store.count_records() == 1
    pipe.send("worked")


@pytest.mark.process
class TestTemporaryFolders:
    def test_none_is_needed(self, tmp_path: Path) -> None:
        with child(without_temporary_folder, tmp_path) as (process, pipe):
            assert told_by(process, pipe) == ["worked"]


def use_as_nobody(pipe: Connection, kind: str, folder: Path) -> None:
    os.setuid(NOBODY)
    calls: list[Callable[[Any], Any]] = [
        lambda store: store.save_conversations([conversation("b")]),
        lambda store: firsts(store.load_conversations()),
    ]
    for call in calls:
        try:
            pipe.send(call(opened(kind, folder, lock_timeout=0.5)))
        except StorageError as error:
            assert_short(error)
            pipe.send(str(error))


@pytest.mark.process
@pytest.mark.parametrize("kind", KINDS)
class TestLockFilesOfOthers:
    @pytest.fixture
    def folder(self, tmp_path: Path, kind: str) -> Path:
        """A folder of `nobody`, whose lock file belongs to root."""
        if os.geteuid() != 0:
            pytest.skip("only root can make files of another user")
        folder = Path(tempfile.mkdtemp())
        opened(kind, folder).save_conversations([conversation("a")])
        for path in (folder, *folder.iterdir()):
            if path.suffix != ".lock":
                os.chown(path, NOBODY, NOBODY)
        folder.chmod(0o755)
        return folder

    def _lock(self, kind: str, folder: Path) -> Path:
        return folder / ("talks.jsonl.lock" if kind == "jsonl" else "store.duckdb.lock")

    def test_reading_permission_is_enough(self, kind: str, folder: Path) -> None:
        self._lock(kind, folder).chmod(0o644)
        with child(use_as_nobody, kind, folder) as (process, pipe):
            assert told_by(process, pipe) == [None, ["a", "b"]]
        with FileLock(self._lock(kind, folder)), child(use_as_nobody, kind, folder) as both:
            assert all("locked by process" in answer for answer in told_by(*both))

    def test_otherwise_a_save_is_refused_and_the_error_names_the_lock_file(
        self, kind: str, folder: Path
    ) -> None:
        self._lock(kind, folder).chmod(0o600)
        with child(use_as_nobody, kind, folder) as (process, pipe):
            saved, loaded = told_by(process, pipe)
        assert str(self._lock(kind, folder)) in saved
        assert loaded == ["a"] or str(self._lock(kind, folder)) in loaded
        assert firsts(opened(kind, folder).load_conversations()) == ["a"]
