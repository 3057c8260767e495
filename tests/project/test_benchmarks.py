"""The benchmarks of our storages run, on a few records and in this process.

The other systems need their own environments: `python3 benchmarks/run.py --limit 500` runs all.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are in the repository only")

from benchmarks import curation, prepare, worker
from benchmarks.harness import growth, machine, reach, report
from benchmarks.harness.dataset import Dataset
from benchmarks.harness.registry import BASE, ROOT, SYSTEMS, System
from benchmarks.harness.runner import Measurement, Results, Runner
from benchmarks.systems import duckdb_by_hand, ours

RECORDS = 240
OURS = [system for system in SYSTEMS if system.environment == "ours"]


def record(at: int) -> dict[str, Any]:
    return {
        "conversations": [
            {"role": "user", "content": f"Is flight {at} late?", "reasoning_content": None},
            {"role": "assistant", "content": "It is on time.", "reasoning_content": None},
        ],
        "metadata": {
            "dialogue_id": f"talk-{at}",
            "domain": "Weather" if at % 8 == 0 else "Flights",
            "n_actions": at * 7 % 13,
        },
    }


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    source = tmp_path / "talks.jsonl"
    source.write_text("".join(json.dumps(record(at)) + "\n" for at in range(RECORDS)))
    folder = tmp_path / "prepared"
    folder.mkdir()
    return prepare.prepare(source, folder)


@pytest.fixture
def results(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """One round of our systems; other systems count as failed, and the base as fast as ours."""
    monkeypatch.setattr(ours, "SMALL_SAVES", 3)
    measured: Results = {}
    for system in OURS:
        tasks = measured[system.name] = {}
        grows = system.name in growth._OURS_IN_BULK
        for task in (*system.tasks, *(["unsorted_page"] if grows else [])):
            own = task in ("import_jsonl", "small_saves")
            folder = tmp_path / "stores" / system.name / (task if own else "")
            again = 1 if task in ("filtered", "group") else 0
            outcome = worker.measure(system.name, task, folder, data, again=again, check=True)
            tasks[task] = Measurement([outcome])
    for system in SYSTEMS:
        if system.name not in measured:
            failed = {task: Measurement(failure="not installed") for task in system.tasks}
            measured[system.name] = measured["ours_jsonl"] if system.name == BASE else failed
    return measured


def test_prepared_data_knows_the_right_answers(data: Dataset) -> None:
    flights = [r["metadata"]["n_actions"] for at in range(RECORDS) if at % 8 and (r := record(at))]
    assert data.page == sorted(flights, reverse=True)[100:200]
    assert data.groups == [("Flights", 210), ("Weather", 30)]
    assert (data.records, data.messages, data.unique_keys) == (RECORDS, 480, ["dialogue_id"])


def test_grown_data_repeats_nothing(data: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "grown"
    folder.mkdir()
    grown = prepare.resize(data, 2.5, folder)
    records = [json.loads(line) for line in grown.lines()]
    assert len(records) == grown.records == 600
    assert len({found["metadata"]["dialogue_id"] for found in records}) == 600
    first_texts = [found["conversations"][0]["content"] for found in records]
    assert len(set(first_texts)) == 600


@pytest.mark.slow
def test_ours_gives_right_answers_and_a_report(data: Dataset, results: Results) -> None:
    for system in OURS:
        for task, measurement in results[system.name].items():
            (outcome,) = measurement.outcomes
            assert outcome["right"] is not False, (system.name, task)
            assert outcome["seconds"] > 0
            assert outcome["memory"] >= outcome["memory_before"] > 0
    assert results["ours_sql"]["load"].outcomes[0]["equal"] == RECORDS

    sizes = [growth.Size(factor, round(RECORDS * factor), 1, results) for factor in (1, 10)]
    told = report.markdown(
        report.Report(
            date="2026-01-31",
            command="python3 benchmarks/run.py",
            commit=None,
            machine=machine.machine(),
            data=data,
            rounds=1,
            versions={"ours": {"Python": "3.11"}},
            results=results,
            growth=sizes,
            plot="growth.png",
        )
    )
    for title in ("Systems", "Reach", "The physical floor", "Growth", "What went wrong"):
        assert f"\n## {title}\n" in told
    assert all(promise.work in told for promise in reach.REACH)
    assert "Lance, save: could not be measured: not installed" in told
    assert "another answer" not in told
    tables = [line for line in told.splitlines() if line.startswith("|")]
    assert not [line for line in tables if "None" in line]


def test_small_saves_by_hand(data: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(duckdb_by_hand, "SMALL_SAVES", 2)
    outcome = worker.measure("duckdb_by_hand", "small_saves", tmp_path / "by hand", data)
    assert len(outcome["calls"]) == 2


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_system_has_its_tasks(system: System) -> None:
    """The sources are read, not imported, as the other libraries are not installed here."""
    modules = [system.name, "base", *(["ours"] if system.environment == "ours" else [])]
    sources = [ROOT / "benchmarks" / "systems" / f"{name}.py" for name in modules]
    nodes = [ast.walk(ast.parse(source.read_text(encoding="utf-8"))) for source in sources]
    names = {
        node.name
        for node in chain.from_iterable(nodes)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert {"Store", *system.tasks} <= names


def test_a_failure_is_reported_without_paths(data: Dataset, tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    done = subprocess.CompletedProcess([], 1, "", f"Traceback\nOSError: no {tmp_path}/x\n")
    assert runner._reason(done) == "OSError: no …/x"
    done = subprocess.CompletedProcess([], -9, "", "")
    assert runner._reason(done) == "killed by signal 9"


@pytest.mark.slow
def test_tasks_that_need_too_much_memory_are_skipped(
    data: Dataset, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "available_memory", lambda: 10**6)
    asked: list[str] = []
    runner = Runner(tmp_path)
    monkeypatch.setattr(runner, "measure", lambda measurement, system, task, *_: asked.append(task))
    smaller = growth.Size(1, RECORDS, data.size, results)
    (system,) = (system for system in SYSTEMS if system.name == "ours_sql")
    measured = growth._at_large(runner, system, data, 2, smaller)
    assert asked == ["filtered"] * 2 + ["unsorted_page"] * 2
    assert "of memory" in str(measured["load"].failure)


def test_starts_with_the_standard_library_alone(tmp_path: Path) -> None:
    help_of = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "run.py"), "--help"]
    done = subprocess.run(help_of, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--growth" in done.stdout


@pytest.mark.slow
def test_concurrent_writers(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "writers.py"), "--results", str(tmp_path)]
    small = ["--seconds=0.2", "--rounds=1", "--records", "3", "--writers", "2"]
    done = subprocess.run([*script, *small], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [told] = [json.loads(path.read_text()) for path in tmp_path.glob("*-writers.json")]
    assert [row["storage"] for row in told["results"]] == ["JSONLStorage", "SQLStorage"]
    assert all(row["records_per_second"] > 0 for row in told["results"])
    assert done.stdout.count("\n| ") == 3


class TestCuration:
    @pytest.mark.slow
    def test_both_storages_find_the_same(self, tmp_path: Path) -> None:
        source = tmp_path / "talks.jsonl"
        source.write_text("".join(json.dumps(record(at)) + "\n" for at in range(RECORDS)))
        assert curation.prepare(source, tmp_path) == RECORDS
        found = []
        for system in ("SQLStorage", "JSONLStorage"):
            curation.child(json.dumps([system, str(tmp_path), True]))
            times, answers = curation.work(system, tmp_path / curation.SYSTEMS[system][1])
            assert curation.TASKS.keys() <= times.keys()
            found.append({task: answers[task] for task in curation.TASKS})
        assert found[0] == found[1]
        assert found[0]["diff"] == (RECORDS - 3, 3, 0, 27)
        assert (found[0]["dedupe"], found[0]["delete"], found[0]["update"]) == (24, 3, 30)

    def test_what_is_missed_is_told(self) -> None:
        times = dict.fromkeys((*curation.TASKS, *curation.EXTRA), 1.0)
        medians = dict.fromkeys(curation.SYSTEMS, times)
        told = curation.musts(medians)
        assert sum("MISSED" in line for line in told) == 6
        assert sum("met" in line for line in told) == 5
