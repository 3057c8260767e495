"""Files and folders that cannot be served: a clear error, and every byte as it was."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pytest

from afterimage.storage import JSONLStorage, StorageError
from tests.support.data import make_version_1
from tests.support.plain_python import path_of
from tests.support.processes import KINDS, child, opened, told_by
from tests.support.records import conversation, firsts

NOBODY = 65534


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(StorageError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert len(text) < 600
    assert len(text.splitlines()) < 10
    return text


def save(kind: str, folder: Path) -> None:
    opened(kind, folder).save_conversations([conversation("b")])


def load(kind: str, folder: Path) -> list[str]:
    return firsts(opened(kind, folder).load_conversations())


def as_nobody(pipe: Connection, what: str, kind: str, folder: Path) -> None:
    """Try it as a user whom permissions hold back; root they do not."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    CASES[what](kind, folder)
    pipe.send("as it should be")


def a_folder_that_may_not_be_read(kind: str, folder: Path) -> None:
    assert str(folder) in refusal(save, kind, folder)
    assert str(folder) in refusal(load, kind, folder)


def a_file_that_may_not_be_read(kind: str, folder: Path) -> None:
    assert str(folder) in refusal(load, kind, folder)
    assert str(folder) in refusal(save, kind, folder)


def a_file_and_a_folder_that_may_only_be_read(kind: str, folder: Path) -> None:
    assert load(kind, folder) == ["a"]
    assert str(folder) in refusal(save, kind, folder)
    assert load(kind, folder) == ["a"]


CASES: dict[str, Callable[[str, Path], None]] = {
    "unreadable folder": a_folder_that_may_not_be_read,
    "unreadable file": a_file_that_may_not_be_read,
    "read-only": a_file_and_a_folder_that_may_only_be_read,
}
MODES = {
    "unreadable folder": (0, 0o644),
    "unreadable file": (0o755, 0),
    "read-only": (0o555, 0o444),
}


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[Path]:
    """A folder below which permissions alone decide."""
    changed = []
    for folder in [tmp_path, *tmp_path.parents]:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH and os.access(folder, os.W_OK):
            changed.append((folder, mode))
            folder.chmod(mode | stat.S_IXOTH | stat.S_IROTH)
    yield tmp_path
    for folder, mode in changed:
        folder.chmod(stat.S_IMODE(mode))


@pytest.mark.process
@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
class TestPermissions:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("what", CASES)
    def test_the_error_is_clear_and_nothing_is_changed(
        self, open_to_all: Path, what: str, kind: str
    ) -> None:
        folder = open_to_all / "store"
        folder.mkdir()
        opened(kind, folder).save_conversations([conversation("a")])
        before = fingerprints(folder)
        of_folder, of_file = MODES[what]
        for path in folder.iterdir():
            path.chmod(of_file)
        folder.chmod(of_folder)
        try:
            with child(as_nobody, what, kind, folder) as (process, pipe):
                assert told_by(process, pipe) == ["as it should be"]
        finally:
            folder.chmod(0o755)
            for path in folder.iterdir():
                path.chmod(0o644)
        assert fingerprints(folder) == before
        save(kind, folder)
        assert load(kind, folder) == ["a", "b"]


@pytest.mark.process
class TestReadOnlyDisk:
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_is_read_and_a_save_is_refused(self, tmp_path: Path, kind: str) -> None:
        mount = shutil.which("mount")
        if not sys.platform.startswith("linux") or mount is None or os.geteuid() != 0:
            pytest.skip("a read-only file system can be mounted by root on Linux only")
        folder = tmp_path / "disk"
        folder.mkdir()
        opened(kind, folder).save_conversations([conversation("a")])
        before = fingerprints(folder)
        for options in ("bind", "bind,remount,ro"):
            command = [mount, "-o", options, str(folder), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no file system can be mounted here: {done.stderr.strip()[:80]}")
        try:
            assert load(kind, folder) == ["a"]
            assert str(folder) in refusal(save, kind, folder)
            assert load(kind, folder) == ["a"]
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        assert fingerprints(folder) == before


class TestNoDatabases:
    def test_other_files_are_refused_and_left_as_they_are(self, tmp_path: Path) -> None:
        good = tmp_path / "good.duckdb"
        with duckdb.connect(str(good)) as connection:
            connection.execute("CREATE TABLE mine AS SELECT range AS n FROM range(1000)")
        data = good.read_bytes()
        others = {
            "text": b"only notes, thousands of them\n" * 1000,
            "sqlite": b"SQLite format 3\0" + b"\0" * 4080,
            "one byte": b"x",
            "cut off": data[:5000],
            "damaged header": bytes(each ^ 0xFF for each in data[:12288]) + data[12288:],
            "zeros": b"\0" * 20_000,
            "lines": (conversation().model_dump_json() + "\n").encode() * 100,
        }
        for name, content in others.items():
            path = tmp_path / name / "store.duckdb"
            path.parent.mkdir()
            path.write_bytes(content)
            assert "store.duckdb" in refusal(save, "sql", path.parent), name
            assert path.read_bytes() == content, name
            left = {each.name for each in path.parent.iterdir()}
            assert left <= {"store.duckdb", "store.duckdb.lock"}, name

    def test_a_file_that_a_newer_duckdb_wrote(self, tmp_path: Path) -> None:
        path = tmp_path / "store.duckdb"
        path.write_bytes(gzip.decompress(make_version_1.NEWER.read_bytes()))
        before = fingerprints(tmp_path)
        if int(duckdb.__version__.split(".")[0]) >= 2:  # it is no newer one
            save("sql", tmp_path)
            assert load("sql", tmp_path) == ["b"]
            return
        assert "newer version of DuckDB" in refusal(save, "sql", tmp_path)
        assert fingerprints(tmp_path) == before

    def test_lines_in_a_file_of_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "talks.jsonl"
        path.write_bytes(os.urandom(10_000).replace(b"\n", b"x") + b"\n")
        before = path.read_bytes()
        storage = JSONLStorage(path, tmp_path / "texts.jsonl")
        assert "line 1" in refusal(storage.load_conversations)
        assert path.read_bytes() == before

    def test_a_folder_in_the_place_of_a_file(self, tmp_path: Path) -> None:
        for name in ("talks.jsonl", "store.duckdb"):
            (tmp_path / name).mkdir()
        for kind in KINDS:
            assert str(tmp_path) in refusal(save, kind, tmp_path)
            assert str(tmp_path) in refusal(load, kind, tmp_path)
            assert fingerprints(tmp_path) == {}


class TestHostilePaths:
    @pytest.mark.parametrize(
        "name", ["it's.x", 'say "hi".x', "; DROP TABLE conversations; --.x", "é😀.x", "a b*[c].x"]
    )
    def test_exports_and_imports_by_any_name(self, tmp_path: Path, name: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        for kind in KINDS:
            storage: Any = opened(kind, folder)
            storage.save_conversations([conversation("a", {name: name})])
            assert storage.export_jsonl(folder / f"{name}.jsonl") == 1
            assert storage.import_jsonl(folder / f"{name}.jsonl") == 1
            assert storage.export_parquet(folder / f"{name} {kind}.parquet") == 2
            parts = folder / f"{name} {kind}"
            field = path_of("metadata", name)
            assert storage.export_parquet(parts, partition_by=[field]) == 2
            assert load(kind, folder) == ["a", "a"]
