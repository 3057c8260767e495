"""A small store in both formats, and functions that run commands without a new process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from afterimage.storage import Document, JSONLStorage, SQLStorage
from afterimage.storage.cli.app import app
from tests.support.records import Note, RatedConversation, conversation

RECORDS = [
    conversation("Is there a night train?", {"domain": "Trains", "n": 1}, final_score=0.9),
    conversation("A table\nfor two?", {"domain": "Restaurants", "k.l": "a,b"}, final_score=0.7),
    conversation("\x1b[31mBicycles? [bold]", {"domain": "Trains", "n": "1"}, final_score=None),
    RatedConversation(conversations=[], mood="calm"),
    Note(title="no conversation"),
]
DOCUMENTS = [Document(id=f"d{n}", text=f"text {n}", metadata={"n": n}) for n in range(3)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with talks.duckdb, talks.jsonl and texts.jsonl."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    make_stores()
    return tmp_path


def make_stores() -> None:
    """Write the stores to the working directory."""
    for storage in (
        SQLStorage("duckdb:///talks.duckdb"),
        JSONLStorage("talks.jsonl", "texts.jsonl"),
    ):
        storage.save_conversations([*RECORDS])
        storage.save_documents(DOCUMENTS)


URL = pytest.param("duckdb:///talks.duckdb", marks=pytest.mark.slow)


@pytest.fixture(params=["talks.duckdb", "talks.jsonl", URL])
def store(request: pytest.FixtureRequest, folder: Path) -> str:
    """The name of a store with the same records, in each format."""
    name: str = request.param
    return name


@pytest.fixture
def run(folder: Path) -> Callable[..., str]:
    """Run a command that must succeed without output on stderr, and return its output."""

    def go(*arguments: object) -> str:
        result = attempt(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    return go


def attempt(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def objects(text: str) -> list[Any]:
    """The values of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]
