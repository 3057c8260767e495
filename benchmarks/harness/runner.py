"""Runs measurements, each in a new process, and keeps their results."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.dataset import Dataset
from benchmarks.harness.environments import clean_environ, python_of
from benchmarks.harness.registry import ENVIRONMENTS, ROOT, System

__all__ = ["AGAIN", "Measurement", "Results", "Runner", "Work"]

AGAIN = {"filtered": 3, "unsorted_page": 3, "group": 3}
"""Tasks that programs repeat, and the number of further calls to measure."""

# Tasks that need a new store instead of the one that `save` created.
_IN_NEW_STORE = ("import_jsonl", "small_saves")
_TIMEOUT = 3600

Work = tuple[System, tuple[str, ...]]
Done = subprocess.CompletedProcess[str]


@dataclass
class Measurement:
    """The results of all rounds of one task; `failure` says why a round failed."""

    outcomes: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None

    def values(self, key: str = "seconds") -> list[float]:
        """One number per round."""
        return [outcome[key] for outcome in self.outcomes]


Results = dict[str, dict[str, Measurement]]
"""By the name of the system and of the task."""


class Runner:
    """Starts workers; all files that they write are in `scratch`.

    `source` is the folder that workers import our package from. `compares` says whether the first
    round compares every loaded record with the saved one.
    """

    def __init__(
        self, scratch: Path, source: Path = ROOT / "src", *, compares: bool = True
    ) -> None:
        self.scratch = scratch
        self._source = source
        self._compares = compares

    def prepare(self, request: dict[str, Any]) -> Dataset:
        """Run `benchmarks.prepare` to create a data set."""
        done = self._python("ours", "benchmarks.prepare", json.dumps(request))
        if done.returncode:
            sys.exit(f"The data could not be prepared.\n{done.stderr.strip()}")
        return Dataset.read(Path(request["folder"]) / "data.json")

    def rounds(self, works: Iterable[Work], data: Dataset, rounds: int) -> Results:
        """Measure all tasks; each round covers all systems before the next round starts."""
        works = list(works)
        results: Results = {
            system.name: {task: Measurement() for task in tasks} for system, tasks in works
        }
        for number in range(rounds):
            for system, tasks in works:
                print(f"{data.name}, round {number + 1} of {rounds}: {system.title}", flush=True)
                folder = self.scratch / "stores" / system.name
                for task in tasks:
                    self.measure(results[system.name][task], system, task, folder, data)
                shutil.rmtree(folder, ignore_errors=True)
        return results

    def measure(
        self, measurement: Measurement, system: System, task: str, folder: Path, data: Dataset
    ) -> None:
        """Measure one more round of a task, unless an earlier round failed."""
        if measurement.failure is not None:
            return
        result = self.scratch / "outcome.json"
        result.unlink(missing_ok=True)
        job = {
            "system": system.name,
            "task": task,
            "folder": str(folder / task if task in _IN_NEW_STORE else folder),
            "data": str(Path(data.path).with_suffix(".json")),
            "again": AGAIN.get(task, 0),
            # The comparison gives the same result in every round, so one is enough. It doubles the
            # memory, so it is left out for grown data, which has no expected answers.
            "check": self._compares and data.page is not None and not measurement.outcomes,
            "result": str(result),
        }
        try:
            done = self._python(system.environment, "benchmarks.worker", json.dumps(job))
        except subprocess.TimeoutExpired:
            measurement.failure = f"took longer than {_TIMEOUT} s"
            return
        if done.returncode or not result.exists():
            measurement.failure = self._reason(done)
            print(f"  {task} failed: {measurement.failure}", flush=True)
            return
        measurement.outcomes.append(json.loads(result.read_text(encoding="utf-8")))

    def seconds_of(self, arguments: list[str]) -> float:
        """Run Python with these arguments in our environment; the seconds until it has ended."""
        ours = ENVIRONMENTS["ours"]
        environ = clean_environ(ours, self.scratch, self._source)
        started = time.perf_counter()
        done = subprocess.run(
            [str(python_of(ours)), *arguments],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"python {' '.join(arguments)}: {self._reason(done)}")
        return seconds

    def _python(self, environment: str, module: str, argument: str) -> Done:
        chosen = ENVIRONMENTS[environment]
        return subprocess.run(
            [str(python_of(chosen)), "-m", module, argument],
            cwd=ROOT,
            env=clean_environ(chosen, self.scratch, self._source),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )

    def _reason(self, done: Done) -> str:
        if done.returncode < 0:
            return f"killed by signal {-done.returncode}"
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        # A result must not contain paths of this machine.
        return last.replace(str(self.scratch), "…").replace(str(ROOT), ".")[:200]
