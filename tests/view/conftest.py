"""Viewers: the real command in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from afterimage.storage import Document, JSONLStorage, SQLStorage
from tests.support.records import conversation

HOSTILE = "</script><img src=x onerror=\"document.title='run'\"><b>'&\u2028\x00"
pytest.importorskip("uvicorn", reason="uvicorn is in the extra `view`")

SRC = Path(__file__).resolve().parents[2] / "src"


def started(*arguments: object) -> subprocess.Popen[str]:
    """Start the command `view`."""
    command = [sys.executable, "-m", "afterimage.storage", "view", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )


def link_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ended(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C, and check that the command ends as it should."""
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 0, told
    assert "Traceback" not in told


def filled(folder: Path, name: str) -> Path:
    """A store of 50 conversations and a document."""
    path = folder / "a folder" / name
    path.parent.mkdir()
    store = (
        SQLStorage(path)
        if path.suffix == ".duckdb"
        else JSONLStorage(path, path.with_name("documents.jsonl"))
    )
    store.save_conversations(
        [
            conversation(
                f"question {n} {HOSTILE}",
                {"n": n, "domain": "ab"[n % 2], "long": n % 3 == 0},
                final_score=n / 50,
            )
            for n in range(50)
        ]
    )
    store.save_documents([Document(id="night", text="Night trains run daily.")])
    return path


NAMES = ("talks.duckdb", "talks.jsonl")


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store of the test's own."""
    return filled(tmp_path, request.param)


@pytest.fixture
def own_link(path: Path) -> Generator[str, None, None]:
    """The link of a viewer of that store."""
    process = started(path)
    yield link_of(process)
    ended(process)


@pytest.fixture(scope="module", params=NAMES)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that no test changes."""
    return filled(tmp_path_factory.mktemp("view"), request.param)


@pytest.fixture(scope="module")
def link(kept: Path) -> Generator[str, None, None]:
    """The link of a viewer of that store."""
    before = kept.read_bytes()
    process = started(kept)
    yield link_of(process)
    ended(process)
    assert kept.read_bytes() == before


@pytest.fixture(scope="module")
def documents_link(kept: Path) -> Generator[str, None, None]:
    """The link of a viewer of the documents."""
    process = started(kept if kept.suffix == ".duckdb" else kept.with_name("documents.jsonl"))
    yield link_of(process)
    ended(process)
