"""`count` on each kind of store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from afterimage.storage import SkippedRecordsWarning
from tests.cli.conftest import attempt

Run = Callable[..., str]


class TestCount:
    def test_prints_the_number_alone(self, run: Run, store: str) -> None:
        assert run("count", store) == "4\n"

    def test_counts_what_the_filters_select(self, run: Run, store: str) -> None:
        assert run("count", store, "--filter", "metadata.domain=Trains") == "2\n"
        assert run("count", store, "--filter", "metadata.domain=None of them") == "0\n"

    def test_other_kinds(self, run: Run, store: str) -> None:
        assert run("count", store, "--kind", "records", "--filter", "title!=null") == "1\n"
        assert run("count", "texts.jsonl", "--kind", "documents") == "3\n"
        told = json.loads(run("count", "talks.duckdb", "--kind", "documents", "--json"))
        assert told == {"records": 3, "kind": "documents"}

    def test_corrupt_records_are_skipped_on_request(self, run: Run) -> None:
        with Path("talks.jsonl").open("a", encoding="utf-8") as file:
            file.write("{oh\n")
        assert attempt("count", "talks.jsonl").exit_code == 1
        with pytest.warns(SkippedRecordsWarning, match="line 6"):
            assert attempt("count", "talks.jsonl", "--skip-corrupt").stdout == "4\n"

    def test_a_missing_store_is_not_created(self, run: Run) -> None:
        assert attempt("count", "no.duckdb").exit_code == 2
        assert not Path("no.duckdb").exists()
