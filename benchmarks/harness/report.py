"""The results as text and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.dataset import Dataset
from benchmarks.harness.growth import Size
from benchmarks.harness.growth_report import growth_markdown
from benchmarks.harness.reach import FLOOR, reached, small_saves_ratio, verdict
from benchmarks.harness.registry import BASE, SYSTEMS, System, by_name
from benchmarks.harness.runner import Results
from benchmarks.harness.summary import again, first, megabytes, milliseconds, of, spread, table

__all__ = ["Report", "markdown"]

# The packages whose versions are in the table; the JSON file has the versions of all packages.
_TOLD_VERSIONS = (
    *("Python", "afterimage", "afterimage-storage", "datasets", "duckdb", "duckdb_engine"),
    *("polars", "pyarrow", "pydantic", "pydantic_core", "pylance", "SQLAlchemy"),
)

# The largest allowed time of a small save, as a multiple of the hand-written one.
_SMALL_SAVE = 2


@dataclass(frozen=True)
class Report:
    """Everything in the report of a run."""

    date: str
    command: str
    commit: str | None
    machine: dict[str, Any]
    data: Dataset
    rounds: int
    versions: dict[str, dict[str, str]]
    results: Results
    growth: Sequence[Size] = ()
    plot: str | None = None


def markdown(report: Report) -> str:
    """The whole report."""
    parts = [_head(report), _systems(report), _ratios(report)]
    if {"ours_sql", BASE} <= report.results.keys():
        parts.append(_reach(report.results))
    parts += [_floor(report.results), _small_saves(report.results)]
    if report.growth:
        parts.append(growth_markdown(report.growth, report.plot))
    parts += [_failures(report), _versions(report.versions)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(report: Report) -> str:
    data, machine = report.data, report.machine
    memory = machine["memory"]
    load = machine["load_average"]
    facts = [
        f"`{report.command}`, {report.date}, source {report.commit or 'without a commit'}",
        f"{machine['processor']}, {machine['cores']} cores, "
        + (f"{memory / 1e9:.0f} GB of memory, " if memory else "")
        + machine["system"]
        + (f"; load average at the start {load:.1f}" if load is not None else ""),
        f"{data.records:,} conversations, {data.messages:,} messages, {megabytes(data.size)} MB",
        f"the filtered page: {data.question}; the count: by `metadata.{data.filter_key}`",
    ]
    return (
        f"# {data.name}\n\n"
        + "\n".join(f"- {fact}" for fact in facts)
        + f"\n\nTimes are milliseconds: the median of {report.rounds} rounds and, in brackets, "
        "the fastest and the slowest. Each was taken in a new process, with Python's collector "
        "as Python has it, after all imports and with the store open, and is that of the first "
        "call; “again” are further calls in that process. A save starts from ready models, "
        "includes making the store, and ends when all is on the disk. Every load and page ends "
        "with validated models."
    )


def _systems(report: Report) -> str:
    rows = []
    for system in _told(report.results):
        tasks = report.results[system.name]
        equal = next((o["equal"] for o in tasks["load"].outcomes if o["equal"] is not None), None)
        size = first(tasks["save"], "bytes")
        page, group = again(tasks["filtered"]), again(tasks["group"])
        rows.append(
            [
                system.title,
                *(spread(tasks[task].values()) for task in ("save", "load", "filtered")),
                "–" if page is None else milliseconds(page),
                spread(tasks["group"].values()),
                "–" if group is None else milliseconds(group),
                "–" if size is None else megabytes(size),
                "–" if equal is None else f"{equal / report.data.records:.1%}",
            ]
        )
    header = ["", "save", "load", "page", "page, again", "count", "count, again", "MB", "equal"]
    note = (
        "“equal”: how many of the loaded records equal what was saved. Where metadata is a struct, "
        "a key that a record lacked comes back as null."
    )
    return f"## Systems\n\n{table(header, rows)}\n\n{note}" if rows else ""


def _ratios(report: Report) -> str:
    base = report.results.get(BASE)
    if base is None:
        return ""
    rows = []
    for system in _told(report.results):
        tasks = report.results[system.name]
        cells = []
        for task in ("save", "load", "filtered", "group"):
            cells.append(_times(first(base[task]), first(tasks[task])))
            if task in ("filtered", "group"):
                cells.append(_times(again(base[task]), again(tasks[task])))
        cells.append(_times(first(base["save"], "bytes"), first(tasks["save"], "bytes")))
        rows.append([system.title, *cells])
    header = ["", "save", "load", "page", "page, again", "count", "count, again", "smaller"]
    return f"## How many times faster than the published package\n\n{table(header, rows)}"


def _reach(results: Results) -> str:
    rows = [
        [
            line.promise.work,
            f"{line.promise.must:g}×",
            f"{line.promise.aim:g}×",
            "–" if line.first is None else f"{line.first:.2f}×",
            verdict(line.promise, line.first),
            "" if line.again is None else f"{line.again:.2f}×",
            "" if line.again is None else verdict(line.promise, line.again),
        ]
        for line in reached(results)
    ]
    header = ["work", "must", "aim", "first call", "", "again", ""]
    return f"## Reach\n\n{table(header, rows)}"


def _floor(results: Results) -> str:
    rows = []
    for work, (system, task), step in FLOOR:
        ours, floor = of(results, system, task), of(results, "floor", step)
        if ours.outcomes and floor.outcomes:
            times = f"{_some(first(ours)) / _some(first(floor)):.2f}×"
            rows.append([work, step, spread(floor.values()), spread(ours.values()), times])
    header = ["work", "floor", "floor, ms", "ours, ms", "ours ÷ floor"]
    note = (
        "The floor starts where the data is ready for it: `insert_table` is DuckDB's insert and "
        "checkpoint of the Arrow table, `build_models` pydantic's validation of ready values with "
        "the collector paused, `write_bytes` one write and fsync of the file's bytes, "
        "`write_parquet` Arrow's own writer and fsync."
    )
    return f"## The physical floor\n\n{table(header, rows, texts=2)}\n\n{note}" if rows else ""


def _small_saves(results: Results) -> str:
    ratio = small_saves_ratio(results)
    if ratio is None:
        return ""
    rows = []
    for name in ("ours_sql", "duckdb_by_hand"):
        measurement = of(results, name, "small_saves")
        calls = [seconds for outcome in measurement.outcomes for seconds in outcome["calls"]]
        rounds = [sum(o["calls"]) / len(o["calls"]) for o in measurement.outcomes]
        rows.append([by_name(name).title, spread(rounds), spread(calls)])
    header = ["", "ms a call, mean of a round", "ms a call, all calls"]
    count = len(of(results, "ours_sql", "small_saves").outcomes[0]["calls"])
    met = "met" if ratio <= _SMALL_SAVE else "**not met**"
    return (
        f"## Small saves\n\n{count} saves of one conversation each; by hand, each opens the file, "
        f"inserts and closes it.\n\n{table(header, rows)}\n\n"
        f"Ours take {ratio:.2f} times as long; no more than {_SMALL_SAVE} times is {met}."
    )


def _failures(report: Report) -> str:
    lines = []
    sizes = [("", report.results), *((f" ×{s.factor:g}", s.results) for s in report.growth)]
    for label, results in sizes:
        for system, tasks in results.items():
            for task, measurement in tasks.items():
                name = f"{by_name(system).title}, {task}{label}"
                if measurement.failure is not None:
                    lines.append(f"- {name}: could not be measured: {measurement.failure}")
                elif any(outcome["right"] is False for outcome in measurement.outcomes):
                    lines.append(f"- {name}: gave another answer than plain Python does")
    return "## What went wrong\n\n" + "\n".join(lines) if lines else ""


def _versions(versions: dict[str, dict[str, str]]) -> str:
    rows = [
        [name, ", ".join(f"{p} {found[p]}" for p in _TOLD_VERSIONS if p in found)]
        for name, found in versions.items()
    ]
    return f"## Versions\n\n{table(['environment', 'versions'], rows, texts=2)}"


def _told(results: Results) -> list[System]:
    return [system for system in SYSTEMS if system.in_table and system.name in results]


def _times(base: float | None, ours: float | None) -> str:
    if base is None or ours is None:
        return "–"
    ratio = base / ours
    return f"{ratio:.1f}×" if ratio >= 1 else f"{ratio:.2f}×"


def _some(value: float | None) -> float:
    assert value is not None
    return value
