"""Figures and records are written as pages of HTML from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from afterimage.storage import SQLStorage
from tests.cli.conftest import attempt
from tests.support.records import conversation

Run = Callable[..., str]


def test_figures_are_a_page_that_loads_and_runs_nothing(run: Run, store: str) -> None:
    assert run("stats", store, "--html", "stats.html") == ""
    page = Path("stats.html").read_text("utf-8")
    assert "4 conversations" in page
    assert "domain" in page
    assert "default-src 'none'" in page.replace("&#x27;", "'")
    assert "<script" not in page


def test_names_in_figures_are_escaped(folder: Path, run: Run) -> None:
    storage = SQLStorage("hostile.duckdb")
    storage.save_conversations([conversation("a", {"<img src=x>": 1})])
    run("stats", "hostile.duckdb", "--html", "stats.html")
    assert "<img" not in Path("stats.html").read_text("utf-8")


def test_records_are_a_page(run: Run, store: str) -> None:
    assert run("export", store, "look.html") == "4 conversations exported to look.html\n"
    assert Path("look.html").read_text("utf-8").count("<article") == 4
    where = ("--filter", "metadata.domain=Trains", "--order-by", "final_score:desc")
    said = run("export", store, "look.html", *where, "--limit", 1, "--json")
    assert json.loads(said)["records"] == 1
    assert "night train" in Path("look.html").read_text("utf-8")


def test_a_page_has_at_most_500_records_by_itself(folder: Path) -> None:
    SQLStorage("many.duckdb").save_conversations([conversation("a")] * 501)
    result = attempt("export", "many.duckdb", "look.html")
    assert (result.exit_code, "--limit" in result.stderr) == (0, True)
    assert Path("look.html").read_text("utf-8").count("<article") == 500
    result = attempt("export", "many.duckdb", "look.html", "--limit", "501")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "messages"],
        ["--columns", "metadata"],
        ["--split", "0.1"],
        ["--system-prompt", "x"],
        ["--lossy"],
        ["--kind", "records"],
    ],
)
def test_options_that_a_page_does_not_have(folder: Path, options: list[str]) -> None:
    result = attempt("export", "talks.duckdb", "look.html", *options)
    assert (result.exit_code, Path("look.html").exists()) == (2, False)


def test_nothing_is_written_over_the_store(folder: Path) -> None:
    before = Path("talks.jsonl").read_bytes()
    Path("talks.html").symlink_to("talks.jsonl")
    assert attempt("stats", "talks.jsonl", "--html", "talks.html").exit_code == 2
    assert attempt("export", "talks.jsonl", "talks.html").exit_code == 2
    assert attempt("stats", "talks.jsonl", "--html", "a.html", "--json").exit_code == 2
    assert Path("talks.jsonl").read_bytes() == before
