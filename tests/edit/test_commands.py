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


@pytest.mark.parametrize("store", ["talks.duckdb", "talks.jsonl"])
def test_dedupe(folder: Path, store: str) -> None:
    by = ("dedupe", store, "--by", "metadata.domain")
    assert attempt(*by, "--dry-run").stdout == f"1 conversation would be deleted in {store}\n"
    assert attempt("count", store).stdout == "4\n"
    assert attempt(*by, "--keep", "last", "--filter", "metadata.domain=Trains").exit_code == 0
    assert attempt("count", store, "--filter", "metadata.n=1").stdout == "0\n"
    assert attempt("count", store).stdout == "3\n"
    again = json.loads(attempt(*by, "--json").stdout)
    assert again == {"records": 0, "kind": "conversations", "deleted": True}
    assert attempt("dedupe", store).stdout == f"0 conversations deleted in {store}\n"


@pytest.mark.parametrize(
    ("source", "target"),
    [("duckdb:///talks.duckdb", "new.jsonl"), ("talks.jsonl", "new.duckdb")],
)
def test_stores_are_imported_with_all_kinds_once(folder: Path, source: str, target: str) -> None:
    Path("texts.jsonl").rename("talks.documents.jsonl")
    into = ("import", source, "--into", target, "--skip-existing")
    said = attempt(*into).stdout
    assert said == f"7 records and 1 record of other models imported into {target}\n"
    assert json.loads(attempt(*into, "--json").stdout)["records"] == 0
    assert attempt("diff", source, target).exit_code == 0
    documents = target.replace(".jsonl", ".documents.jsonl")
    assert attempt("count", documents, "--kind", "documents").stdout == "3\n"


def test_a_database_is_imported_as_a_store(folder: Path) -> None:
    for _ in range(2):
        assert attempt("import", "talks.duckdb", "other.duckdb").exit_code == 0
        assert attempt("count", "other.duckdb").stdout == "4\n"


@pytest.mark.parametrize("store", ["talks.duckdb", "talks.jsonl"])
def test_compact(folder: Path, store: str) -> None:
    first = json.loads(attempt("compact", store, "--json").stdout)
    assert first["after"] <= first["before"]
    again = f"{first['after']:,} bytes"
    assert attempt("compact", store).stdout == f"{store}: {again} before, {again} after\n"
