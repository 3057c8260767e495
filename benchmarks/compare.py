"""Compares this source, or another commit, with an earlier commit.

``python3 benchmarks/compare.py COMMIT [FILE]``, or ``python3 noxfile.py -s speed -- COMMIT``.

Both sides do the same work in the same environment, in turns: each task runs with one source and
right afterwards with the other, and the next round has them in the other order. The script prints a
table, and writes it and a JSON file to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

# This file is started by its path, so Python does not search the project folder by itself.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import environments, machine
from benchmarks.harness.dataset import Dataset
from benchmarks.harness.registry import ENVIRONMENTS, ROOT, System
from benchmarks.harness.runner import AGAIN, Measurement, Runner
from benchmarks.harness.summary import milliseconds, table

TASKS = (
    "save",
    "load",
    "filtered",
    "unsorted_page",
    "group",
    "iter_conversations",
    "scan_conversations",
    "stats",
    "verify",
    "export_jsonl",
    "export_parquet",
    "import_jsonl",
    "small_saves",
)
SYSTEMS = (
    System("ours_sql", "SQLStorage, declared keys", "ours", TASKS),
    System("ours_sql_undeclared", "SQLStorage, nothing declared", "ours", TASKS[:5]),
    System("ours_jsonl", "JSONLStorage", "ours", TASKS),
)
SIDES = ("before", "after")

# Whole programs, whose start is part of their time.
PROGRAMS = {
    "import of SQLStorage": ("-c", "from afterimage.storage import SQLStorage"),
    "import of JSONLStorage": ("-c", "from afterimage.storage import JSONLStorage"),
    "afterimage-storage head": ("-m", "afterimage.storage", "head", "STORE"),
    "afterimage-storage stats": ("-m", "afterimage.storage", "stats", "STORE"),
}


def main() -> int:
    """Measure both sides and write the comparison."""
    options = parse()
    environments.ensure(ENVIRONMENTS["ours"])
    about = {
        "date": dt.date.today().isoformat(),  # noqa: DTZ011  the local date
        "before": options.commit,
        "after": options.after or machine.commit(),
        "command": command(options),
        "machine": machine.machine(),
        "versions": environments.versions(ENVIRONMENTS["ours"]),
        "rounds": options.rounds,
    }
    options.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="compare-") as scratch:
        runners = sides(Path(scratch), options.commit, options.after)
        systems = chosen(options.only)
        request = dict.fromkeys(["limit", "filter", "sort"])
        source = str(options.file.resolve()) if options.file else None
        folder = str(Path(scratch) / "data")
        data = runners["after"].prepare({**request, "source": source, "folder": folder})
        found = {
            side: {
                system.title: {task: Measurement() for task in system.tasks} for system in systems
            }
            for side in SIDES
        }
        programs: dict[str, dict[str, list[float]]] = {
            side: {name: [] for name in ([] if options.only else PROGRAMS)} for side in SIDES
        }
        for number in range(options.rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            for system in systems:
                print(f"round {number + 1} of {options.rounds}: {system.title}", flush=True)
                one_round(runners, order, system, data, found, programs)
    about["data"] = {"name": data.name, "records": data.records, "messages": data.messages}
    text, whole = written(about, systems, found, programs)
    print(f"\n{text}")
    if not options.only:  # a part of the work is for the eyes only
        stem = options.results / f"{about['date']}-compare-{options.commit}"
        stem.with_name(stem.name + ".md").write_text(text, encoding="utf-8")
        stem.with_name(stem.name + ".json").write_text(whole, encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="Compare this source with an earlier commit.")
    add = parser.add_argument
    add("commit", help="the commit to compare with")
    add("file", type=Path, nargs="?", help="a JSONL file of conversations, packed as .gz or not")
    add("--after", metavar="COMMIT", help="the later commit (default: the source as it is now)")
    add("--only", nargs="+", choices=TASKS, default=[], help="tasks to measure; writes no file")
    add("--rounds", type=int, default=7, help="rounds of every measurement (default: %(default)s)")
    add("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of results")
    add("--scratch", type=Path, default=environments.HOME, help="folder for the stores")
    return parser.parse_args()


def command(options: argparse.Namespace) -> str:
    """The command that measures the same again."""
    words = ["python3 benchmarks/compare.py", options.commit]
    words += ["--after", options.after] if options.after else []
    words += ["--only", *options.only] if options.only else []
    return " ".join([*words, "--rounds", str(options.rounds)])


def chosen(tasks: list[str]) -> list[System]:
    """The systems with only these tasks, and what they need. An empty list means all."""
    if not tasks:
        return [*SYSTEMS]
    needed = {"save", *tasks}  # the other tasks use the store that the save made
    kept = [(each, tuple(task for task in each.tasks if task in needed)) for each in SYSTEMS]
    return [replace(each, tasks=own) for each, own in kept]


def sides(scratch: Path, commit: str, after: str | None) -> dict[str, Runner]:
    """A runner with the source of each side. The one after is the source as it is now if None."""
    sources = {"before": source_of(commit, scratch / "earlier")}
    if after is None:
        sources["after"] = scratch / "now" / "src"
        shutil.copytree(ROOT / "src", sources["after"])  # edits during a run change nothing
    else:
        sources["after"] = source_of(after, scratch / "later")
    runners = {}
    for side, source in sources.items():
        folder = scratch / side
        folder.mkdir()
        runners[side] = Runner(folder, source, compares=False)
    return runners


def source_of(commit: str, folder: Path) -> Path:
    """Write the source of a commit to a folder, and return the folder of its packages."""
    archive = ["git", "archive", "--format=tar", commit, "src"]
    packed = subprocess.run(archive, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


def one_round(
    runners: dict[str, Runner],
    order: tuple[str, ...],
    system: System,
    data: Dataset,
    found: dict[str, dict[str, dict[str, Measurement]]],
    programs: dict[str, dict[str, list[float]]],
) -> None:
    """Measure every task of a system once on each side, and the programs on its store."""
    folders = {side: runner.scratch / "stores" / system.name for side, runner in runners.items()}
    for task in system.tasks:
        for side in order:
            measurement = found[side][system.title][task]
            runners[side].measure(measurement, system, task, folders[side], data)
    if system.name == "ours_sql":
        for name in programs["before"]:
            for side in order:
                store = str(folders[side] / "store.duckdb")
                words = [store if word == "STORE" else word for word in PROGRAMS[name]]
                programs[side][name].append(runners[side].seconds_of(words))
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)


def written(
    about: dict[str, Any],
    systems: list[System],
    found: dict[str, dict[str, dict[str, Measurement]]],
    programs: dict[str, dict[str, list[float]]],
) -> tuple[str, str]:
    """The table, and everything measured as JSON."""
    rows = [
        row
        for system in systems
        for task in system.tasks
        for row in rows_of(system, task, *(found[side][system.title][task] for side in SIDES))
    ]
    rows += [
        ["program", name, *compared(programs["before"][name], programs["after"][name]), "–", "–"]
        for name in programs["before"]
    ]
    header = ["storage", "work", "before", "after", "after ÷ before", "spread", "of minima"]
    header += ["MB before", "MB after"]
    text = HEAD.format(
        **about,
        duckdb=about["versions"].get("duckdb"),
        processor=about["machine"]["processor"],
        cores=about["machine"]["cores"],
        load=about["machine"]["load_average"],
    )
    text += table(header, rows, texts=2) + "\n"
    measured = {
        side: {title: {t: asdict(m) for t, m in tasks.items()} for title, tasks in titles.items()}
        for side, titles in found.items()
    }
    whole = {**about, "measured": measured, "programs": programs}
    return text, json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


HEAD = """# This source, compared with commit {before}

- `{command}`, {date}, source {after}
- {processor}, {cores} cores, load average at the start {load}; DuckDB {duckdb}
- {data[name]}: {data[records]:,} conversations, {data[messages]:,} messages

Times are milliseconds: the median of {rounds} rounds, each in a new process. Both sides run \
right after each other, in alternating order. “spread” is the range of half of the rounds' ratios, \
from the first to the third quartile. “again” are further calls in the same process. “of \
minima” is the ratio of the fastest rounds. MB is the peak memory of the process in megabytes.

"""


def rows_of(system: System, task: str, before: Measurement, after: Measurement) -> list[list[str]]:
    """The rows of one task: the first call, and further calls if the task has them."""
    if before.failure or after.failure:
        return [[system.title, task, before.failure or "–", after.failure or "–", *["–"] * 5]]
    memory = [f"{median(side.values('memory')) / 1e6:,.0f}" for side in (before, after)]
    rows = [[system.title, task, *compared(before.values(), after.values()), *memory]]
    if task in AGAIN:
        further = [[min(outcome["again"]) for outcome in side.outcomes] for side in (before, after)]
        rows.append([system.title, f"{task}, again", *compared(*further), "–", "–"])
    return rows


def compared(before: list[float], after: list[float]) -> list[str]:
    """Both medians, the median of the rounds' ratios with its spread, and the ratio of minima."""
    ratios = [b / a for a, b in zip(before, after, strict=True)]
    low, ratio, high = quantiles(ratios, n=4, method="inclusive") if ratios[1:] else ratios * 3
    fastest = min(after) / min(before)
    times = [milliseconds(median(side)) for side in (before, after)]
    return [*times, f"{ratio:.3f}", f"{low:.2f}–{high:.2f}", f"{fastest:.3f}"]


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
