"""Runs one measurement: ``python -m benchmarks.worker JOB``, in the environment of its system.

JOB is JSON: `system` and `task`, the `folder` of the store, `data` (a prepared data set), `again`
(the number of further calls on the same open store), `check` (whether to compare every loaded
record with the saved one) and `result`, the file for the outcome.
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
    """Run a task; the measured time contains nothing but the task.

    Returns:
        `seconds`: time of the first call in this process.
        `again`: times of the further calls on the same store.
        `ready`: time to open the store.
        `memory`, `memory_before`: peak memory after and before the first call, in bytes.
        `bytes`: size on disk afterwards.
        `right`: whether the answer is the expected one; None if that is not known.
        `equal`: number of loaded records that equal the saved ones; None if not compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store: Measured = importlib.import_module(f"benchmarks.systems.{system}").Store(folder, data)
    ready, arguments = _timed(store.before, task)
    gc.collect()  # the task must not pay for garbage of the preparation
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
    # Free the answer before the next call, as a program with consecutive calls does.
    outcome["again"] = [_timed(work, *arguments)[0] for _ in range(again)]
    return outcome


def peak_memory() -> int:
    """The peak memory of this process in bytes, without that of its parent."""
    if platform.system() == "Linux":
        # `ru_maxrss` of a child starts at the value of its parent; VmHWM starts at zero.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415  not available on Windows

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
            # Grown data has no expected counts, but always enough records for a page.
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
    """Run the job in the first argument and write its outcome."""
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
