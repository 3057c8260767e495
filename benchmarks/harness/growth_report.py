"""The tables of the growth measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.growth import BULK, MEMORY_LIMIT, Size, slowdown
from benchmarks.harness.registry import SYSTEMS, by_name
from benchmarks.harness.summary import again, first, of, spread, table

__all__ = ["growth_markdown"]

# A task counts as growing faster than the data if its time exceeds the ratio of records this much.
_NOISE = 1.05

# The largest allowed ratio of times for a page on declared keys, on the largest data.
_PAGE_SLOWDOWN = 3


def growth_markdown(sizes: Sequence[Size], plot: str | None) -> str:
    """The section on growth."""
    parts = ["## Growth"]
    if plot is not None:
        parts.append(f"![Time against number of records]({plot})")
    parts += [*_times(sizes), _promises(sizes), _memory(sizes)]
    return "\n\n".join(part for part in parts if part)


def _times(sizes: Sequence[Size]) -> list[str]:
    """One table per task: one line per system, one column per size."""
    tables = []
    for task in ("save", "load", "filtered"):
        rows = [
            [
                system.title,
                *(spread(of(size.results, system.name, task).values()) for size in sizes),
            ]
            for system in SYSTEMS
            if any(of(size.results, system.name, task).outcomes for size in sizes)
        ]
        header = [f"{task}, ms", *(f"{size.records:,}" for size in sizes)]
        tables.append(table(header, rows))
    return tables


def _promises(sizes: Sequence[Size]) -> str:
    """The growth of save, load and the page, compared with the targets."""
    rows = []
    for system in ("ours_sql", "ours_jsonl"):
        for task in ("save", "load"):
            for size in sizes:
                found = slowdown(sizes, system, task, size.factor)
                if size.factor <= 1 or found is None:
                    continue
                times, data = found
                met = "met" if times <= data * _NOISE else "**not met**"
                rows.append(
                    [by_name(system).title, task, f"{data:.0f}×", f"{times:.1f}×", "no faster", met]
                )
    large = max(size.factor for size in sizes)
    for task, words in (("unsorted_page", "filtered page"), ("filtered", "filtered, sorted page")):
        for call, seconds in (("first call", first), ("again", again)):
            page = slowdown(sizes, "ours_sql", task, large, seconds)
            if page is None:
                continue
            times, data = page
            met = "met" if times <= _PAGE_SLOWDOWN else "**not met**"
            most = f"{_PAGE_SLOWDOWN}×"
            title, name = by_name("ours_sql").title, f"{words}, {call}"
            rows.append([title, name, f"{data:.0f}×", f"{times:.1f}×", most, met])
    header = ["", "task", "data", "time", "promised", ""]
    note = f"“No faster” allows {_NOISE - 1:.0%} for noise."
    return f"{table(header, rows, texts=2)}\n\n{note}" if rows else ""


def _memory(sizes: Sequence[Size]) -> str:
    """The peak memory of the bulk calls."""
    bulk = [size for size in sizes if any(BULK[0] in tasks for tasks in size.results.values())]
    rows = []
    for system in ("ours_sql", "ours_jsonl"):
        for task in BULK:
            cells = [_peak(of(size.results, system, task).outcomes) for size in bulk]
            peaks = of(bulk[-1].results, system, task).values("memory") if bulk else []
            if peaks:
                met = "met" if max(peaks) <= MEMORY_LIMIT else "**not met**"
                rows.append([by_name(system).title, task, *cells, met])
    header = ["", "task", *(f"{size.records:,}" for size in bulk), ""]
    return (
        f"### Peak memory, MB\n\nOf the whole process, in brackets what it had before the task; "
        f"no more than {MEMORY_LIMIT / 1e6:.0f} MB at the largest size is promised.\n\n"
        f"{table(header, rows, texts=2)}"
        if rows
        else ""
    )


def _peak(outcomes: Sequence[dict[str, Any]]) -> str:
    if not outcomes:
        return "–"
    peak, before = (max(o[key] for o in outcomes) for key in ("memory", "memory_before"))
    return f"{peak / 1e6:.0f} ({before / 1e6:.0f})"
