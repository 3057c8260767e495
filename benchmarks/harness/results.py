"""Describe a run, and write its result as JSON and as a table."""

from __future__ import annotations

import datetime as dt
import json
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import commit, machine

__all__ = ["about", "store_results"]


def about(packages: Iterable[str]) -> dict[str, Any]:
    """The date, the machine, the source, and the versions of Python and of packages."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
    }


def store_results(folder: Path, name: str, told: dict[str, Any], table: str) -> None:
    """Write `<date>-<name>.json` and `.md` to a folder, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{told['date']}-{name}"
    stem.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
