"""A call on one large record takes a small multiple of its size in memory, and linear time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import KINDS, child, opened, told_by
from tests.support.records import conversation

pytestmark = [pytest.mark.slow, pytest.mark.process]

SMALL, LARGE = 16 * 2**20, 64 * 2**20

TASKS: dict[str, tuple[int, Callable[[Any, Path], Any]]] = {
    "import": (9, lambda store, folder: store.import_jsonl(folder / "in.jsonl")),
    "load": (5, lambda store, folder: len(store.load_conversations())),
    "count": (6, lambda store, folder: store.count_conversations({"metadata.n": 1})),
    "narrow scan": (
        5,
        lambda store, folder: store.scan_conversations(["metadata.n"]).read_all().num_rows,
    ),
    "scan": (6, lambda store, folder: store.scan_conversations().read_all().num_rows),
    "filtered": (10, lambda store, folder: len(store.load_conversations(filters={"persona": "p"}))),
    "export": (7, lambda store, folder: store.export_jsonl(folder / "out.jsonl")),
    "parquet": (8, lambda store, folder: store.export_parquet(folder / "out.parquet")),
    "verify": (6, lambda store, folder: store.verify().conversations),
}
"""The number of times its size that a line may take, and the call."""


def measured(pipe: Any, kind: str, folder: Path, size: int) -> None:
    """Send the result, the peak of added memory in bytes, and the seconds, for each task."""
    store = opened(kind, folder)
    for name, (_, task) in TASKS.items():
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before, start = memory("VmRSS"), time.perf_counter()
        found = int(task(store, folder))
        pipe.send((name, found, memory("VmHWM") - before, time.perf_counter() - start))


def memory(what: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) * 1024


def measure(kind: str, folder: Path, size: int) -> dict[str, tuple[int, float]]:
    folder.mkdir()
    words = "A night train to Rome, at 21:08. "
    half = words * (size // len(words) // 2)  # for each of two messages
    record = conversation(half, {"n": 1}, persona="p")
    (folder / "in.jsonl").write_bytes(record.model_dump_json().encode() + b"\n")
    assert 0.99 * size < (folder / "in.jsonl").stat().st_size < 1.01 * size
    del record, half
    with child(measured, kind, folder, size) as (process, pipe):
        results = told_by(process, pipe, 300)
    assert {found for _, found, _, _ in results} == {1}
    return {name: (peak, seconds) for name, _, peak, seconds in results}


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of memory")
@pytest.mark.parametrize("kind", KINDS)
def test_one_large_record(tmp_path: Path, kind: str) -> None:
    small = measure(kind, tmp_path / "small", SMALL)
    large = measure(kind, tmp_path / "large", LARGE)
    for name, (most, _) in TASKS.items():
        peak, seconds = large[name]
        assert peak < most * LARGE, f"{name}: {peak / LARGE:.1f} times the line"
        # Four times the size: twice that for a busy machine, and a second for what is fixed.
        assert seconds < 8 * small[name][1] + 1, f"{name}: {seconds:.1f} s"
