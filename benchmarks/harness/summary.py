"""Medians and spreads, and their format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.harness.runner import Measurement, Results

__all__ = ["again", "first", "megabytes", "milliseconds", "of", "spread", "table"]


def of(results: Results, system: str, task: str) -> Measurement:
    """The measurement of a task; an empty one if there is none."""
    return results.get(system, {}).get(task, Measurement())


def first(measurement: Measurement, key: str = "seconds") -> float | None:
    """The median over the rounds, of the first call in each process."""
    values = measurement.values(key)
    return median(values) if values else None


def again(measurement: Measurement) -> float | None:
    """The median of all further calls on an open store; None if there are none."""
    values = [value for outcome in measurement.outcomes for value in outcome["again"]]
    return median(values) if values else None


def spread(values: Sequence[float]) -> str:
    """Seconds as milliseconds: the median, and the range in brackets."""
    if not values:
        return "–"
    middle, low, high = (milliseconds(value) for value in (median(values), *_ends(values)))
    return middle if len(values) == 1 else f"{middle} ({low}–{high})"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with the significant digits."""
    value = seconds * 1e3
    return f"{value:,.1f}" if value < 99.95 else f"{value:,.0f}"


def megabytes(size: float) -> str:
    """Bytes as megabytes of 10^6."""
    return f"{size / 1e6:,.1f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table; its first `texts` columns hold text, and the others numbers."""
    aligned = ["---"] * texts + ["--:"] * (len(header) - texts)
    lines = [header, aligned, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
