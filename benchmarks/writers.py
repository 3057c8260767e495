"""Measures 1, 2, 4 and 8 processes that save into one file: ``python benchmarks/writers.py``.

Run it with a Python that has the package's dependencies. Each process saves batches for some
seconds. A save counts when it has returned; at the end, every counted record must be stored exactly
once. The script prints a table, and writes it and a JSON file to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

# This file is started by its path, so Python searches only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from afterimage.storage import EvaluatedConversationWithContext, JSONLStorage, SQLStorage
from benchmarks.harness.registry import ROOT
from benchmarks.harness.results import about, store_results

WRITERS = (1, 2, 4, 8)
STORAGES = ("JSONLStorage", "SQLStorage")
PACKAGES = ("duckdb", "pyarrow", "pydantic", "sqlalchemy", "duckdb-engine", "filelock")


class Round(NamedTuple):
    """The result of one round.

    Attributes:
        saves: batches whose save returned, over all writers.
        seconds: from the common start to the end of the last save.
        longest: seconds of the longest save, waiting time included.
        fewest: batches of the writer with the fewest saves.
    """

    saves: int
    seconds: float
    longest: float
    fewest: int


def open_storage(name: str, folder: Path) -> JSONLStorage | SQLStorage:
    """Open a storage with its files in `folder`."""
    if name == "JSONLStorage":
        return JSONLStorage(folder / "talks.jsonl", folder / "texts.jsonl", lock_timeout=300)
    return SQLStorage(f"duckdb:///{folder / 'talks.duckdb'}", lock_timeout=300)


def batch_of(records: int) -> list[Any]:
    """Conversations of about a kilobyte each."""
    talk = [
        {"role": role, "content": f"{role} says something of ordinary length. " * 5}
        for role in ("user", "assistant") * 2
    ]
    return [
        EvaluatedConversationWithContext(conversations=talk, metadata={"n": n, "domain": "Trains"})
        for n in range(records)
    ]


def write(name: str, folder: Path, records: int, seconds: float, start: Any, answers: Any) -> None:
    """Run one writer: save until the time is over."""
    storage = open_storage(name, folder)
    batch = batch_of(records)
    storage.count_conversations()  # imports everything that the first use imports
    start.wait()
    began = now = time.monotonic()
    saves, longest = 0, 0.0
    while now - began < seconds:
        storage.save_conversations(batch)
        before, now = now, time.monotonic()
        saves, longest = saves + 1, max(longest, now - before)
    answers.put((saves, now - began, longest))


def measure(name: str, writers: int, records: int, seconds: float, scratch: Path | None) -> Round:
    """Run one round in a new file; raise an error if a record is missing or duplicated."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        folder = Path(made)
        storage = open_storage(name, folder)
        start, answers = context.Barrier(writers), context.SimpleQueue()
        processes = [
            context.Process(target=write, args=[name, folder, records, seconds, start, answers])
            for _ in range(writers)
        ]
        for process in processes:
            process.start()
        told = [answers.get() for _ in processes]
        for process in processes:
            process.join()
        saves = sum(each[0] for each in told)
        found = storage.count_conversations()
        if found != saves * records:
            raise RuntimeError(f"{name}: {saves * records} records saved, {found} found")
    return Round(
        saves,
        max(each[1] for each in told),
        max(each[2] for each in told),
        min(each[0] for each in told),
    )


def summary(name: str, writers: int, records: int, rounds: Sequence[Round]) -> dict[str, Any]:
    """Medians over the rounds."""
    return {
        "storage": name,
        "writers": writers,
        "records_per_save": records,
        "saves_per_second": median(each.saves / each.seconds for each in rounds),
        "records_per_second": median(each.saves * records / each.seconds for each in rounds),
        "longest_save_seconds": max(each.longest for each in rounds),
        "fewest_saves_of_a_writer": min(each.fewest for each in rounds),
        "rounds": [each._asdict() for each in rounds],
    }


def markdown(told: dict[str, Any]) -> str:
    """The results as a table."""
    on = told["machine"]
    lines = [
        "# Several processes that save into one file",
        "",
        (
            f"{told['date']}, {on['processor']}, {on['cores']} cores, Python {told['python']}, "
            f"{', '.join(f'{name} {version}' for name, version in told['versions'].items())}. "
            f"Medians of {told['rounds']} rounds of {told['seconds']:g} s."
        ),
        "",
        "| storage | records a save | writers | saves/s | records/s | longest save, s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['storage']} | {row['records_per_save']} | {row['writers']} "
        f"| {row['saves_per_second']:,.0f} | {row['records_per_second']:,.0f} "
        f"| {row['longest_save_seconds']:.2f} |"
        for row in told["results"]
    ]
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="Measure processes that save into one file.")
    add = parser.add_argument
    add("--seconds", type=float, default=5, help="of a round (default: %(default)s)")
    add("--rounds", type=int, default=3, help="default: %(default)s")
    add("--records", type=int, nargs="+", default=[1, 100], help="in a save (default: 1 100)")
    add("--writers", type=int, nargs="+", default=list(WRITERS), help="default: 1 2 4 8")
    folder = ROOT / "benchmarks" / "results"
    add("--results", type=Path, default=folder, help="folder of the results")
    add("--scratch", type=Path, help="folder for the stores (default: that of the system)")
    return parser.parse_args()


def main() -> int:
    """Measure, print and write."""
    options = parse()
    told: dict[str, Any] = {
        **about(PACKAGES),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "results": [],
    }
    measured: dict[tuple[str, int, int], list[Round]] = {}
    for _ in range(options.rounds):  # alternate, so that a busy minute affects all of them
        for name in STORAGES:
            for records in options.records:
                for writers in options.writers:
                    found = measure(name, writers, records, options.seconds, options.scratch)
                    measured.setdefault((name, writers, records), []).append(found)
    told["results"] = [summary(*key, rounds) for key, rounds in measured.items()]
    store_results(options.results, "writers", told, markdown(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
