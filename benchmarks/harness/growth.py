"""Measures how time and memory grow with the data."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.dataset import Dataset
from benchmarks.harness.machine import available_memory
from benchmarks.harness.registry import System
from benchmarks.harness.runner import Measurement, Results, Runner
from benchmarks.harness.summary import first, of

__all__ = ["BULK", "FACTORS", "FOR_ALL", "LARGE", "MEMORY_LIMIT", "Size", "grow", "slowdown"]

FACTORS = (0.1, 0.3, 1, 3, 10)
"""The measured sizes, as multiples of the data."""

FOR_ALL = 3
"""The largest size for all systems; larger sizes are measured for our own storages only."""

LARGE = 50
"""The largest size."""

BULK = (
    "import_jsonl",
    "iter_conversations",
    "scan_conversations",
    "export_jsonl",
    "export_parquet",
)
"""Calls that must run in bounded memory at any size; the first one creates the store."""

MEMORY_LIMIT = 500e6

_TASKS = ("save", "load", "filtered")
_OUR_TASKS = (*_TASKS, "unsorted_page")
_OURS_IN_BULK = ("ours_sql", "ours_jsonl")


@dataclass(frozen=True)
class Size:
    """The measurements at one multiple of the data."""

    factor: float
    records: int
    size: int
    results: Results


def grow(
    runner: Runner, base: Dataset, systems: Sequence[System], rounds: int, large: float = LARGE
) -> list[Size]:
    """Measure every size, the smallest first; the data of a size is deleted afterwards."""
    comparable = [system for system in systems if system.in_table]
    ours = [system for system in systems if system.name in _OURS_IN_BULK]
    # At any time: the data, a store of it, and an export or a second store.
    _need_disk(runner.scratch, round(3.5 * base.size * large))
    sizes: list[Size] = []
    for factor in (*(factor for factor in FACTORS if factor < large), large):
        folder = runner.scratch / "grown"
        request = {"base": str(Path(base.path).with_suffix(".json"))}
        data = runner.prepare(request | {"factor": factor, "folder": str(folder)})
        results: Results = {}
        if factor < large:
            measured = comparable if factor <= FOR_ALL else ours
            more = ours if factor >= 1 else []  # smaller data may not have such a page
            works = [(system, _OUR_TASKS if system in more else _TASKS) for system in measured]
            results = runner.rounds(works, data, rounds)
        if factor >= 1:
            for system in ours:
                here = results.setdefault(system.name, {})
                here |= _in_bulk(runner, system, data)
                if factor == large:
                    here |= _at_large(runner, system, data, rounds, sizes[-1])
                shutil.rmtree(runner.scratch / "stores", ignore_errors=True)
        sizes.append(Size(factor, data.records, data.size, results))
        shutil.rmtree(folder)
    return sizes


def slowdown(
    sizes: Sequence[Size],
    system: str,
    task: str,
    factor: float,
    seconds: Callable[[Measurement], float | None] = first,
) -> tuple[float, float] | None:
    """The ratio of times and the ratio of records, at a multiple of the data against the data."""
    whole = next((size for size in sizes if size.factor == 1), None)
    grown = next((size for size in sizes if size.factor == factor), None)
    if whole is None or grown is None:
        return None
    before = seconds(of(whole.results, system, task))
    after = seconds(of(grown.results, system, task))
    if before is None or after is None:
        return None
    return after / before, grown.records / whole.records


def _in_bulk(runner: Runner, system: System, data: Dataset) -> dict[str, Measurement]:
    """Measure each bulk call once, on the store that the first of them creates."""
    print(f"{data.name}, in bulk: {system.title}", flush=True)
    folder = runner.scratch / "stores" / system.name
    measured = {task: Measurement() for task in BULK}
    for task, measurement in measured.items():
        # The import creates a store in its own folder, and the other calls read that store.
        at = folder if task == "import_jsonl" else folder / "import_jsonl"
        runner.measure(measurement, system, task, at, data)
        for exported in (folder / "import_jsonl").glob("exported.*"):
            exported.unlink()
    return measured


def _at_large(
    runner: Runner, system: System, data: Dataset, rounds: int, smaller: Size
) -> dict[str, Measurement]:
    """Measure pages of the imported store; load and save only if there is enough memory."""
    store = runner.scratch / "stores" / system.name / "import_jsonl"
    measured = {task: Measurement() for task in ("filtered", "unsorted_page", "load", "save")}
    for task, measurement in measured.items():
        needed = 0.0
        if task in ("load", "save"):
            memory = first(of(smaller.results, system.name, task), "memory") or 0
            needed = memory * data.records / smaller.records
        free = available_memory()
        if free is not None and needed > 0.9 * free:
            measurement.failure = f"all as models needs about {needed / 1e9:.0f} GB of memory"
            continue
        for _ in range(rounds):
            folder = store.parent / "saved" if task == "save" else store
            runner.measure(measurement, system, task, folder, data)
            shutil.rmtree(store.parent / "saved", ignore_errors=True)
    return measured


def _need_disk(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise SystemExit(
            f"The growth measurements need {wanted / 1e9:.0f} GB of disk, and {free / 1e9:.0f} GB "
            "are free. Give another --scratch folder."
        )
