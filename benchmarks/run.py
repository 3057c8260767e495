"""Measures everything: ``python3 benchmarks/run.py [JSONL FILE] [--growth]``.

It needs only Python 3.11 or newer: each system gets its own virtual environment under
.venv/benchmarks/. Without a file, the data is from the package chitchat-dataset, so that anyone can
repeat the run. The results are a table and a JSON file, with --growth also a plot, in
benchmarks/results/.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this is the check)
    sys.exit(f"The benchmarks need Python 3.11 or newer, this is {sys.version.split()[0]}.")

import argparse
import datetime as dt
import json
import shlex
import subprocess
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

# This file is started by its path, so Python does not search the project folder by itself.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import environments, growth, machine, report
from benchmarks.harness.registry import ENVIRONMENTS, ROOT, SYSTEMS, System
from benchmarks.harness.runner import Runner


def main() -> int:
    """Run the measurements that the command line selects."""
    options = parse()
    chosen = [s for s in SYSTEMS if not options.only or s.name in options.only]
    chosen = install(chosen, fresh=options.fresh)
    now, source = machine.machine(), machine.commit()
    options.results.mkdir(parents=True, exist_ok=True)
    options.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="run-") as scratch:
        runner = Runner(Path(scratch))
        data = runner.prepare(
            {
                "source": str(options.file.resolve()) if options.file else None,
                "folder": str(runner.scratch / "data"),
                "limit": options.limit,
                "filter": options.filter,
                "sort": options.sort,
            }
        )
        works = [(system, system.tasks) for system in chosen]
        told = report.Report(
            date=dt.date.today().isoformat(),  # noqa: DTZ011  the local date
            command=command(options),
            commit=source,
            machine=now,
            data=data,
            rounds=options.rounds,
            versions={
                name: environments.versions(ENVIRONMENTS[name])
                for name in dict.fromkeys(system.environment for system in chosen)
            },
            results=runner.rounds(works, data, options.rounds),
        )
        stem = options.results / f"{told.date}-{data.name}"
        write(told, stem)
        if options.growth:  # this takes long, so the other results were written before it
            sizes = growth.grow(runner, data, chosen, options.growth_rounds, options.largest)
            write(replace(told, growth=sizes), stem)
    return 0


def parse() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        description="Measure our storages, their rivals and the physical floor on the same work."
    )
    add = parser.add_argument
    add("file", type=Path, nargs="?", help="a JSONL file of conversations, packed as .gz or not")
    add("--rounds", type=int, default=5, help="rounds of every measurement (default: %(default)s)")
    add("--growth", action="store_true", help="also measure at other sizes of the data")
    add("--growth-rounds", type=int, default=3, help="rounds at each size (default: %(default)s)")
    add("--largest", type=float, default=growth.LARGE, help="largest size (default: %(default)s×)")
    add("--limit", type=int, help="take only so many of the conversations, to try things out")
    names = [system.name for system in SYSTEMS]
    add("--only", action="append", choices=names, help="measure this system (may be repeated)")
    add("--filter", metavar="KEY[=VALUE]", help="metadata to filter and to count by")
    add("--sort", metavar="KEY", help="metadata to sort by; --sort=-KEY for descending")
    add("--fresh", action="store_true", help="make the environments anew, with newest versions")
    folder = ROOT / "benchmarks" / "results"
    add("--results", type=Path, default=folder, help="folder of the results")
    add("--scratch", type=Path, default=environments.HOME, help="folder for the stores")
    options = parser.parse_args()
    if options.file is not None and not options.file.is_file():
        parser.error(f"there is no file {options.file}")
    if min(options.rounds, options.growth_rounds, options.limit or 1) < 1:
        parser.error("there is nothing to measure")
    return options


def install(chosen: list[System], *, fresh: bool) -> list[System]:
    """Create the environments, and return the systems whose environment exists."""
    needed = dict.fromkeys(["ours", *(system.environment for system in chosen)])
    made = set()
    for name in needed:
        try:
            environments.ensure(ENVIRONMENTS[name], fresh=fresh)
            made.add(name)
        except subprocess.CalledProcessError:
            print(f"The environment {name} could not be made; what runs in it is left out.")
    if "ours" not in made:
        sys.exit("Nothing can be measured without our own environment.")
    return [system for system in chosen if system.environment in made]


def command(options: argparse.Namespace) -> str:
    """The command line of this run, without paths of this machine."""
    said = ["python3", "benchmarks/run.py"]
    if options.file is not None:
        said.append(options.file.name)
    said.append(f"--rounds={options.rounds}")
    if options.growth:
        said += ["--growth", f"--growth-rounds={options.growth_rounds}"]
        said.append(f"--largest={options.largest:g}")
    if options.limit is not None:
        said.append(f"--limit={options.limit}")
    said += [f"--only={name}" for name in options.only or ()]
    said += [f"--filter={options.filter}"] if options.filter else []
    said += [f"--sort={options.sort}"] if options.sort else []
    return shlex.join(said)


def write(told: report.Report, stem: Path) -> None:
    """Write the JSON file, the plot if growth was measured, and the table."""
    stem.with_name(stem.name + ".json").write_text(
        json.dumps(as_json(told), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if told.growth and (picture := plot(stem)) is not None:
        told = replace(told, plot=picture.name)
    table = stem.with_name(stem.name + ".md")
    table.write_text(report.markdown(told), encoding="utf-8")
    print(f"\n{table.read_text(encoding='utf-8')}\nWritten to {environments.shown(table)}")


def as_json(told: report.Report) -> dict[str, Any]:
    """The report as JSON, without paths and expected answers."""
    found = asdict(told)
    for key in ("path", "page", "groups"):
        del found["data"][key]
    del found["plot"]
    return found


def plot(stem: Path) -> Path | None:
    """Draw the plot next to the results; None if that fails."""
    environment = ENVIRONMENTS["plot"]
    picture = stem.with_name(stem.name + ".png")
    results = stem.with_name(stem.name + ".json")
    try:
        environments.ensure(environment)
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(
                [
                    str(environments.python_of(environment)),
                    "-m",
                    "benchmarks.plot",
                    *map(str, (results.resolve(), picture.resolve())),
                ],
                cwd=ROOT,
                env=environments.clean_environ(environment, Path(scratch)),
                check=True,
            )
    except subprocess.CalledProcessError:
        print("The plot could not be drawn; the results are complete without it.")
        return None
    return picture


if __name__ == "__main__":
    sys.exit(main())
