"""The editing commands do what the library does, and change nothing with --dry-run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import attempt, folder, store

__all__ = ["folder", "store"]


def test_delete_update_and_diff(folder: Path, store: str) -> None:
    trains: tuple[Any, ...] = (store, "--filter", "metadata.domain=Trains")
    assert "2 conversations would be deleted" in attempt("delete", *trains, "--dry-run").stdout
    assert attempt("diff", "talks.duckdb", "talks.jsonl").exit_code == 0
    updated = attempt("update", *trains, "--set", "domain=Rails", "--set", "n=null")
    assert (updated.exit_code, updated.stdout) == (0, f"2 conversations updated in {store}\n")
    result = attempt("diff", "talks.duckdb", "talks.jsonl", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["changed"] == 2
    rails = (store, "--filter", "metadata.domain=Rails", "--yes")
    assert json.loads(attempt("delete", *rails, "--json").stdout)["records"] == 2
    assert attempt("diff", "talks.duckdb", "talks.jsonl").exit_code == 1


@pytest.mark.parametrize("more", [[], ["--all", "--filter", "metadata.n=1"]])
def test_records_must_be_named(folder: Path, store: str, more: list[str]) -> None:
    before = Path("talks.jsonl").read_bytes()
    assert attempt("delete", store, *more).exit_code == 2
    assert attempt("update", store, "--set", "a=1", *more).exit_code == 2
    assert Path("talks.jsonl").read_bytes() == before
