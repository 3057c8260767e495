"""One measurement: ``python -m benchmarks.worker JOB``, in the environment of its system.

JOB is JSON: `system` and `task`, the `folder` of the store, `data` (a prepared data set), `again`
(more calls on the same open store), `check` (compare every record that was loaded with what was
saved) and `result`, the file that the outcome is written to.
"""

from __future__ import annotations

import gc
import importlib
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.dataset import PAGE, Dataset
from benchmarks.systems.base import Measured, RecordStore

Outcome = dict[str, Any]


def measure(
    system: str, task: str, folder: Path, data: Dataset, *, again: int = 0, check: bool = False
) -> Outcome:
    """Do a task, with nothing but the task between the two looks at the clock.

    Returns:
        `seconds` of the first call in this process, those of the calls `again` on the same store,
        and of opening the store (`ready`); `memory` and `memory_before` it, in bytes; `bytes` that
        lie on the disk now; `right`, whether the answer was the expected one (None: not known),
        and `equal`, how many of the loaded records equal what was saved (None: not compared).
    """
    folder.mkdir(parents=True, exist_ok=True)
    store: Measured = importlib.import_module(f"benchmarks.systems.{system}").Store(folder, data)
    ready, arguments = _timed(store.before, task)
    gc.collect()  # what getting ready left to the collector is not the task's to pay
    memory_before = peak_memory()
    work = getattr(store, task)
    seconds, answer = _timed(work, *arguments)
    memory = peak_memory()
    outcome: Outcome = {
        "seconds": seconds,
        "ready": ready,
        "memory_before": memory_before,
        "memory": memory,
        "bytes": store.disk_bytes(),
        "right": _is_right(task, answer, data),
        "equal": None,
    }
    if task.endswith("small_saves"):
        outcome["calls"] = answer
    if check and task == "load" and isinstance(store, RecordStore):
        pairs = zip(answer, store.ready_models(), strict=True)
        outcome["equal"] = sum(loaded == saved for loaded, saved in pairs)
    del answer
    # What was returned is gone before the next call, as where a program asks one after the other.
    outcome["again"] = [_timed(work, *arguments)[0] for _ in range(again)]
    return outcome


def peak_memory() -> int:
    """The most bytes of memory that this process has had, without what its parent had."""
    if platform.system() == "Linux":
        # `ru_maxrss` of a child starts at its parent's; this one starts at zero.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415  there is none on Windows

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _timed(work: Any, *arguments: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = work(*arguments)
    return time.perf_counter() - started, answer


def _is_right(task: str, answer: Any, data: Dataset) -> bool | None:
    match task:
        case "load" | "build_models":
            return len(answer) == data.records
        case "filtered" if data.page is not None:
            values = [record.metadata.get(data.sort_key) for record in answer]
            metadata = (record.metadata for record in answer)
            return values == data.page and all(
                found.get(data.filter_key) == data.filter_value for found in metadata
            )
        case "unsorted_page":
            found = {record.metadata.get(data.filter_key) for record in answer}
            offset, limit = PAGE
            # Of grown data nobody counted, but it has enough for a page.
            matching = dict(data.groups or ()).get(data.filter_value, offset + limit)
            whole = max(0, min(limit, matching - offset))
            return len(answer) == whole and found <= {data.filter_value}
        case "group" if data.groups is not None:
            return bool(answer == dict(data.groups))
        case _ if isinstance(answer, int):
            return answer == data.records
        case _:
            return None


def main() -> None:
    """Do the job in the first argument and write down how it went."""
    job = json.loads(sys.argv[1])
    outcome = measure(
        job["system"],
        job["task"],
        Path(job["folder"]),
        Dataset.read(Path(job["data"])),
        again=job["again"],
        check=job["check"],
    )
    Path(job["result"]).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    main()
