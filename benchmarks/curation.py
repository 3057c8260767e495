"""Measure what turns raw records into a training set: ``python3 benchmarks/curation.py FILE``.

Text search, duplicates, a seeded split, deleting 1 %, updating 10 %, and the difference of two
versions: this package, a loop in Python over what the published package loads, DuckDB by hand, and
Hugging Face `datasets`. Each system runs in its own environment. A round is one new process for
each system, which runs each task once on a new copy of its store; the median of the rounds counts.
All systems must find the same. The result is written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import gzip
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# This file is started by its path, so Python does not search the project folder by itself.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from benchmarks.curating.base import CHANGES, DELETED, UPDATED  # noqa: E402

TASKS = {
    "search": "text search in all messages",
    "dedupe": "remove 10 % duplicates",
    "split": "seeded split to two JSONL files",
    "delete": "delete 1 %",
    "update": "update the metadata of 10 %",
    "diff": "compare two versions",
}
EXTRA = ("saved_1", "saved_10", "copied")

# The module and the class of each system, and its environment.
SYSTEMS = {
    "SQLStorage": ("ours", "SqlCurator", "ours"),
    "JSONLStorage": ("ours", "JsonlCurator", "ours"),
    "Python loop (afterimage 0.18.1)": ("published", "PublishedCurator", "published"),
    "DuckDB by hand": ("duckdb_by_hand", "DuckdbCurator", "duckdb"),
    "HF datasets": ("hf_datasets", "DatasetsCurator", "hf_datasets"),
}
LOOP, BY_HAND = "Python loop (afterimage 0.18.1)", "DuckDB by hand"

Times = dict[str, float]


def prepare(source: Path, folder: Path) -> int:
    """Write the stores' records as JSON lines; return the number of conversations."""
    read = gzip.open if source.suffix == ".gz" else open
    with read(source, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    unique = {json.dumps(each["conversations"]): each for each in records}
    records = list(unique.values())
    for at, record in enumerate(records):
        record["metadata"] |= {"number": at, "part": at % 100}
    changed = [record for record in records if record["metadata"]["part"] >= DELETED]
    _write(folder / "base.jsonl", records)
    _write(folder / "repeated.jsonl", [*records, *records[::10]])
    for record in changed:
        if record["metadata"]["part"] < UPDATED:
            record["metadata"] |= CHANGES
    _write(folder / "changed.jsonl", changed)
    return len(records)


def _write(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")


def work(system: str, made: Path) -> tuple[Times, dict[str, Any]]:
    """Run all tasks of a system once, each on a new copy of the stores; this is the child."""
    module, name, _ = SYSTEMS[system]
    curator_class = getattr(importlib.import_module(f"benchmarks.curating.{module}"), name)
    times: Times = {}
    answers: dict[str, Any] = {}
    for task in (*TASKS, *EXTRA):
        call = getattr(curator_class, task.partition("_")[0], None)
        if call is None:
            continue
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            run = Path(folder) / "run"
            shutil.copytree(made, run)
            os.sync()
            curator = curator_class(run)
            arguments = [curator.open("repeated" if task == "dedupe" else "base")]
            if task == "diff":
                arguments.append(curator.open("changed"))
            elif task == "split":
                arguments.append(run / "parts")
            elif task.startswith("saved"):
                arguments.append(curator.records(arguments[0], int(task.partition("_")[2])))
            gc.collect()
            started = time.perf_counter()
            answers[task] = call(curator, *arguments)
            times[task] = time.perf_counter() - started
    return times, answers


def main() -> None:
    """Prepare, run the rounds, compare the answers, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="conversations as JSON lines, plain or gzip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    from benchmarks.harness.environments import clean_environ, ensure, python_of  # noqa: PLC0415
    from benchmarks.harness.registry import ENVIRONMENTS  # noqa: PLC0415

    rounds: dict[str, list[Times]] = {system: [] for system in options.only}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        total = prepare(options.file, scratch)
        expected: dict[str, Any] = {}
        for number in range(options.rounds + 1):  # the first one makes the stores
            for system in options.only:
                environment = ENVIRONMENTS[SYSTEMS[system][2]]
                if not number:
                    ensure(environment)
                job = json.dumps([system, str(scratch), number == 0])
                command = [str(python_of(environment)), str(Path(__file__).resolve()), "--job", job]
                told = subprocess.run(
                    command,
                    env=clean_environ(environment, scratch),
                    stdout=subprocess.PIPE,
                    check=True,
                )
                if number:
                    times, answers = json.loads(told.stdout.splitlines()[-1])
                    rounds[system].append(times)
                    for task in answers.keys() & TASKS.keys():
                        known = expected.setdefault(task, answers[task])
                        if known != answers[task]:
                            raise SystemExit(f"{system}, {task}: {answers[task]}, not {known}")
            print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    medians = {
        system: {task: statistics.median(each[task] for each in found) for task in found[0]}
        for system, found in rounds.items()
    }
    _tell(options, total, rounds, medians)


def child(job: str) -> None:
    """Make the stores of a system, or run its tasks; the answer is the last line printed."""
    system, folder, is_making = json.loads(job)
    made = Path(folder) / SYSTEMS[system][1]
    if is_making:
        module, name, _ = SYSTEMS[system]
        curator = getattr(importlib.import_module(f"benchmarks.curating.{module}"), name)(made)
        for store in ("base", "repeated", "changed"):
            curator.make(store, Path(folder) / f"{store}.jsonl")
    else:
        print(json.dumps(work(system, made)))


def musts(medians: dict[str, Times]) -> list[str]:
    """What must hold, and whether it does."""
    told = []

    def check(text: str, ratio: float, *, least: float = 0, most: float = 0) -> None:
        is_met = ratio >= least if least else ratio <= most
        told.append(f"- {'met' if is_met else 'MISSED'}: {text}: {ratio:.2g}")

    for name in ("SQLStorage", "JSONLStorage"):
        ours = medians.get(name, {})
        for task, least in (("search", 30), ("dedupe", 10), ("diff", 10)):
            if ours and LOOP in medians:
                ratio = medians[LOOP][task] / ours[task]
                check(f"{name}: {task} at least {least} x as fast as the loop", ratio, least=least)
    sql, lines = medians.get("SQLStorage"), medians.get("JSONLStorage")
    if sql and BY_HAND in medians:
        ratio = sql["search"] / medians[BY_HAND]["search"]
        check("SQLStorage: search takes no longer than by hand", ratio, most=1)
    for task, saved in (("delete", "saved_1"), ("update", "saved_10")):
        if sql:
            ratio = sql[task] / sql[saved]
            check(f"SQLStorage: {task} at most 2 x a save of the records", ratio, most=2)
        if lines:
            ratio = lines[task] / lines["copied"]
            check(f"JSONLStorage: {task} at most 5 x a copy of the file", ratio, most=5)
    return told


def _tell(
    options: Any, total: int, rounds: dict[str, list[Times]], medians: dict[str, Times]
) -> None:
    from benchmarks.harness.environments import versions  # noqa: PLC0415
    from benchmarks.harness.machine import commit, machine  # noqa: PLC0415
    from benchmarks.harness.registry import ENVIRONMENTS  # noqa: PLC0415
    from benchmarks.harness.results import store_results  # noqa: PLC0415

    result = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "commit": commit(),
        "versions": {system: versions(ENVIRONMENTS[SYSTEMS[system][2]]) for system in options.only},
        "dataset": options.file.name,
        "conversations": total,
        "rounds": rounds,
    }
    lines = [
        f"# From raw records to a training set: {total:,} conversations",
        "",
        f"- {result['date']}, {result['commit']}, `python3 benchmarks/curation.py FILE`",
        f"- {options.file.name}; milliseconds, median of {options.rounds} rounds",
        "",
        f"| task | {' | '.join(options.only)} |",
        f"| --- |{' --: |' * len(options.only)}",
    ]
    for task, title in TASKS.items():
        found = (medians[system].get(task) for system in options.only)
        cells = ("–" if each is None else f"{each * 1000:,.0f}" for each in found)
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += ["", *musts(medians)]
    store_results(options.results, "curation", result, "\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        child(sys.argv[2])
    else:
        main()
