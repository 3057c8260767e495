"""Compares the measurements with the targets of this project and with the physical floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.harness.registry import BASE
from benchmarks.harness.runner import Results
from benchmarks.harness.summary import again, first, of

__all__ = ["FLOOR", "REACH", "Promise", "Reached", "reached", "small_saves_ratio", "verdict"]

Seconds = Callable[[str, str], float | None]


@dataclass(frozen=True)
class Promise:
    """One target of this project; `must` and `aim` are ratios.

    `ours` and `base` are the compared tasks, each as the names of a system and of its task.
    """

    work: str
    must: float
    aim: float
    ours: tuple[tuple[str, str], ...]
    base: tuple[tuple[str, str], ...]
    key: str = "seconds"


@dataclass(frozen=True)
class Reached:
    """The ratio to the base: for the first call, and for further calls (or None)."""

    promise: Promise
    first: float | None
    again: float | None


def _against_base(
    work: str, must: float, aim: float, system: str, task: str, key: str = "seconds"
) -> Promise:
    return Promise(work, must, aim, ((system, task),), ((BASE, task),), key)


REACH = (
    _against_base("save all into a new DuckDB file", 1.2, 1.8, "ours_sql", "save"),
    _against_base("load all from DuckDB as models", 3.5, 5, "ours_sql", "load"),
    _against_base("filtered, sorted page, declared keys", 60, 150, "ours_sql", "filtered"),
    _against_base("the same, nothing declared", 25, 100, "ours_sql_undeclared", "filtered"),
    _against_base("count by key through a scan", 60, 200, "ours_sql", "group"),
    _against_base("save all as JSONL", 1.8, 3, "ours_jsonl", "save"),
    _against_base("load all from JSONL as models", 3.5, 5, "ours_jsonl", "load"),
    _against_base("filtered, sorted page from JSONL", 3, 10, "ours_jsonl", "filtered"),
    _against_base("bytes on disk, of its JSONL", 4, 8, "ours_sql", "save", "bytes"),
    Promise(
        "import_jsonl into DuckDB, of its load + our save",
        2,
        6,
        (("ours_sql", "import_jsonl"),),
        ((BASE, "load"), ("ours_sql", "save")),
    ),
    Promise(
        "export_parquet, of Arrow's write_table",
        1,
        1,
        (("ours_sql", "export_parquet"),),
        (("floor", "write_parquet"),),
    ),
)

FLOOR = (
    ("save all into DuckDB", ("ours_sql", "save"), "insert_table"),
    ("load all from DuckDB", ("ours_sql", "load"), "build_models"),
    ("save all as JSONL", ("ours_jsonl", "save"), "write_bytes"),
    ("load all from JSONL", ("ours_jsonl", "load"), "build_models"),
    ("export_parquet", ("ours_sql", "export_parquet"), "write_parquet"),
)
"""A job, our system and task for it, and the step of the floor that the job needs."""


def reached(results: Results) -> list[Reached]:
    """Every target with its measured ratios."""

    def ratios(promise: Promise) -> Reached:
        return Reached(
            promise,
            _ratio(promise, lambda system, task: first(of(results, system, task), promise.key)),
            _ratio(promise, lambda system, task: again(of(results, system, task))),
        )

    return [ratios(promise) for promise in REACH]


def verdict(promise: Promise, ratio: float | None) -> str:
    """Whether the target is met, in words."""
    if ratio is None:
        return "not measured"
    if ratio >= promise.aim:
        return "aim met"
    return "must met" if ratio >= promise.must else "**not met**"


def small_saves_ratio(results: Results) -> float | None:
    """The time of our small save as a multiple of the hand-written one."""
    ours = first(of(results, "ours_sql", "small_saves"))
    by_hand = first(of(results, "duckdb_by_hand", "small_saves"))
    return None if ours is None or by_hand is None else ours / by_hand


def _ratio(promise: Promise, seconds: Seconds) -> float | None:
    ours = _sum(promise.ours, seconds)
    base = _sum(promise.base, seconds)
    return None if ours is None or base is None else base / ours


def _sum(works: tuple[tuple[str, str], ...], seconds: Seconds) -> float | None:
    found = [seconds(system, task) for system, task in works]
    return None if None in found else sum(value for value in found if value is not None)
