"""The disk is full, or a file may not grow: what was there stays, and all works when there is room.

A small file system where one may be mounted (by root, on Linux), and a limit on the size of files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import StorageError
from tests.support.processes import KINDS, child, opened, told_by
from tests.support.records import conversation

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name != "posix", reason="limits and mounts are POSIX"),
]

# DuckDB takes room in blocks of 256 KiB.
SMALL_DISK = "8m"
MOST = 1_200_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if not sys.platform.startswith("linux") or mount is None or os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root on Linux only")
    command = [mount, "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()[:80]}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def no_room(disk: Path) -> Iterator[None]:
    """Fill the file system up to its last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def no_growth(disk: Path) -> Iterator[None]:
    """Let no file of this process grow beyond 1.2 MB; for a process of its own."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def records(count: int, size: int) -> list[Any]:
    import random

    rng = random.Random(count)
    return [
        conversation(rng.randbytes(size // 4).hex(), {"n": n, "domain": "ABC"[n % 3]})
        for n in range(count)
    ]


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "filler"
    }


def refused(call: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises(StorageError) as caught:
        call(*arguments, **options)
    assert len(str(caught.value)) < 600
    assert len(str(caught.value).splitlines()) < 10


def saves_on_a_full_disk(kind: str, disk: Path, full: Any) -> None:
    storage = opened(kind, disk)
    first = records(20, 1000)
    storage.save_conversations(first)
    for _ in range(3):
        with full(disk):
            refused(storage.save_conversations, records(2000, 4000))
            assert storage.load_conversations() == first
            assert opened(kind, disk).count_conversations() == 20
        assert storage.load_conversations() == first
        assert opened(kind, disk).count_conversations() == 20
    storage.save_conversations(records(20, 1000))
    assert opened(kind, disk).load_conversations() == first * 2


def imports_on_a_full_disk(kind: str, disk: Path, full: Any) -> None:
    elsewhere = disk.parent / "elsewhere"
    elsewhere.mkdir()
    source = opened("jsonl", elsewhere)
    source.save_conversations(records(3000, 4000))
    storage = opened(kind, disk)
    storage.save_conversations(records(20, 1000))
    with full(disk):
        refused(storage.import_jsonl, elsewhere / "talks.jsonl")
    assert storage.count_conversations() == 20
    few = disk.parent / "few.jsonl"
    source.export_jsonl(few, limit=30)
    assert storage.import_jsonl(few) == 30
    assert opened(kind, disk).count_conversations() == 50


def exports_on_a_full_disk(kind: str, disk: Path, full: Any) -> None:
    elsewhere = disk.parent / "elsewhere"
    elsewhere.mkdir()
    storage: Any = opened(kind, elsewhere)
    storage.save_conversations(records(3000, 6000))
    exports: dict[str, tuple[Any, dict[str, Any]]] = {
        "out.jsonl": (storage.export_jsonl, {}),
        "out.jsonl.gz": (storage.export_jsonl, {}),
        "out.jsonl.zst": (storage.export_jsonl, {}),
        "out.parquet": (storage.export_parquet, {"row_group_bytes": 500_000}),
        "out": (storage.export_parquet, {"partition_by": ["metadata.domain"]}),
    }
    for name, (export, options) in exports.items():
        if name != "out":
            export(disk / name, limit=5, **options)
        before = fingerprints(disk)
        assert (name in before) == (name != "out")
        with full(disk):
            refused(export, disk / name, **options)
            assert fingerprints(disk) == before, name
        assert sorted(each.name for each in disk.iterdir()) == sorted(before), name
    for name, (export, options) in exports.items():
        assert export(disk / name, limit=7, **options) == 7


SCENARIOS = {
    "saves": saves_on_a_full_disk,
    "imports": imports_on_a_full_disk,
    "exports": exports_on_a_full_disk,
}


def with_files_that_do_not_grow(pipe: Connection, scenario: str, kind: str, disk: Path) -> None:
    SCENARIOS[scenario](kind, disk, no_growth)
    pipe.send("all as it should be")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
class TestNothingIsLost:
    def test_on_a_full_file_system(self, disk: Path, scenario: str, kind: str) -> None:
        SCENARIOS[scenario](kind, disk, no_room)

    def test_where_a_file_may_not_grow(self, tmp_path: Path, scenario: str, kind: str) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        with child(with_files_that_do_not_grow, scenario, kind, disk) as (process, pipe):
            assert told_by(process, pipe, 120) == ["all as it should be"]
