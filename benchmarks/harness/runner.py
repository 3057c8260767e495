"""Runs measurements, each in a fresh process, and keeps what they gave."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.dataset import Dataset
from benchmarks.harness.environments import clean_environ, python_of
from benchmarks.harness.registry import ENVIRONMENTS, ROOT, System

__all__ = ["AGAIN", "Measurement", "Results", "Runner", "Work"]

AGAIN = {"filtered": 3, "unsorted_page": 3, "group": 3}
"""Tasks that a program does again and again, and how many more calls of them are measured."""

# Tasks that need a new store, beside the one that `save` left for the others.
_IN_NEW_STORE = ("import_jsonl", "small_saves")
_TIMEOUT = 3600

Work = tuple[System, tuple[str, ...]]
Done = subprocess.CompletedProcess[str]


@dataclass
class Measurement:
    """What the rounds of one task gave; `failure` says why one of them could not be done."""

    outcomes: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None

    def values(self, key: str = "seconds") -> list[float]:
        """One number of each round."""
        return [outcome[key] for outcome in self.outcomes]


Results = dict[str, dict[str, Measurement]]
"""By the name of the system and of the task."""


class Runner:
    """Starts workers; all that they write is in `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def prepare(self, request: dict[str, Any]) -> Dataset:
        """Have `benchmarks.prepare` make a data set."""
        done = self._python("ours", "benchmarks.prepare", json.dumps(request))
        if done.returncode:
            sys.exit(f"The data could not be prepared.\n{done.stderr.strip()}")
        return Dataset.read(Path(request["folder"]) / "data.json")

    def rounds(self, works: Iterable[Work], data: Dataset, rounds: int) -> Results:
        """Every system's tasks, the first round of all of them before the second one of any."""
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
        """One more round of a task, unless an earlier one has failed."""
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
            # Once is enough for what does not depend on the machine's mood; and a comparison takes
            # as much memory again, which grown data, whose answers nobody knows, has no room for.
            "check": data.page is not None and not measurement.outcomes,
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

    def _python(self, environment: str, module: str, argument: str) -> Done:
        chosen = ENVIRONMENTS[environment]
        return subprocess.run(
            [str(python_of(chosen)), "-m", module, argument],
            cwd=ROOT,
            env=clean_environ(chosen, self.scratch),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )

    def _reason(self, done: Done) -> str:
        if done.returncode < 0:
            return f"killed by signal {-done.returncode}"
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        # No path of this machine is to stand in a result.
        return last.replace(str(self.scratch), "…").replace(str(ROOT), ".")[:200]
