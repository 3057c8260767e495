"""The DuckDB CLI opens our files, answers SQL about them, and takes turns with a live storage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document, LockTimeoutError, SQLStorage
from tests.support.records import conversation, conversations, evaluation, firsts

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def cli() -> str:
    # The PyPI package duckdb-cli installs it beside the interpreter.
    beside = str(Path(sys.executable).parent)
    found = shutil.which("duckdb", path=beside) or shutil.which("duckdb")
    if found is None:
        pytest.skip("no DuckDB CLI here: pip install duckdb-cli")
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def ask(cli: str, path: Path) -> Callable[..., Any]:
    def ask(query: str, *options: str) -> Any:
        command = [cli, *options, "-json", str(path), "-c", query]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr[-500:]
        return json.loads(done.stdout or "[]")

    return ask


@contextmanager
def holding(cli: str, path: Path) -> Iterator[int]:
    """A CLI session that has the file open; gives the process id of the CLI itself."""
    command = [cli, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        # It opens the file at its first statement; the shell's parent is the process with the lock.
        session.stdin.write("CREATE TEMP TABLE opened (one INTEGER);\n.shell echo $PPID\n")
        session.stdin.flush()
        yield int(session.stdout.readline())
        session.stdin.close()
        assert session.wait(30) == 0


class TestAnswers:
    def test_groups_while_a_storage_stays_open_and_saves_on(self, ask: Any, path: Path) -> None:
        storage = SQLStorage(f"duckdb:///{path}", metadata_fields=["domain"])
        query = "SELECT domain, count(*) AS n FROM conversations GROUP BY ALL ORDER BY ALL"
        storage.save_conversations(conversations(*({"domain": "AB"[n % 2]} for n in range(5))))
        assert ask(query) == [{"domain": "A", "n": 3}, {"domain": "B", "n": 2}]
        storage.save_conversations(conversations({"domain": "B"}, {}))
        assert ask(query, "-readonly") == [
            {"domain": "A", "n": 3},
            {"domain": "B", "n": 3},
            {"domain": None, "n": 1},
        ]
        assert storage.count_conversations({"metadata.domain": "B"}) == 3

    def test_messages(self, ask: Any, path: Path) -> None:
        storage = SQLStorage(f"duckdb:///{path}")
        storage.save_conversations([conversation("Hi"), conversation("\u2028 é 😀")])
        query = (
            "SELECT role, content, reasoning_content FROM messages "
            "ORDER BY conversation_id, position"
        )
        assert ask(query) == [
            {"role": "user", "content": "Hi", "reasoning_content": None},
            {"role": "assistant", "content": "Hi!", "reasoning_content": "greet back"},
            {"role": "user", "content": "\u2028 é 😀", "reasoning_content": None},
            {"role": "assistant", "content": "\u2028 é 😀!", "reasoning_content": "greet back"},
        ]

    def test_nested_columns_and_metadata(self, ask: Any, path: Path) -> None:
        storage = SQLStorage(f"duckdb:///{path}")
        storage.save_conversations([conversation("x", {"k": [1]}, evaluation=evaluation())])
        storage.save_documents([Document(id="d", personas=[{"descriptions": ["a pilot"]}])])
        query = (
            "SELECT evaluation.coherence.score AS score, c.metadata->'$.k[0]' AS k, "
            "personas[1].descriptions[1] AS persona FROM conversations c, documents"
        )
        [row] = ask(query)
        assert (row["score"], int(row["k"]), row["persona"]) == (0.5, 1, "a pilot")

    def test_exported_files(self, ask: Any, path: Path, tmp_path: Path) -> None:
        storage = SQLStorage(f"duckdb:///{path}")
        storage.save_conversations(conversations(*({"n": n} for n in range(10))))
        storage.export_parquet(tmp_path / "out.parquet")
        storage.export_jsonl(tmp_path / "train.jsonl", format="messages")
        for file, column in (("out.parquet", "conversations"), ("train.jsonl", "messages")):
            query = f"SELECT sum(len({column})) AS n FROM '{tmp_path / file}'"
            assert [int(row["n"]) for row in ask(query)] == [20]

    def test_what_the_cli_adds_is_no_harm(self, ask: Any, path: Path) -> None:
        storage = SQLStorage(f"duckdb:///{path}")
        storage.save_conversations([conversation("a")])
        ask("CREATE TABLE mine AS SELECT 1 AS one; CREATE VIEW theirs AS SELECT * FROM messages")
        storage.save_conversations([conversation("b")])
        assert firsts(storage.load_conversations()) == ["a", "b"]
        assert ask("SELECT count(*) AS n FROM theirs") == [{"n": 4}]

    def test_a_running_iterator_is_over_before_the_cli_comes(self, ask: Any, path: Path) -> None:
        storage = SQLStorage(f"duckdb:///{path}")
        storage.save_conversations(conversations(*({"n": n} for n in range(10))))
        assert len(list(storage.iter_conversations(batch_size=3))) == 10
        assert ask("SELECT count(*) AS n FROM conversations") == [{"n": 10}]


class TestLocks:
    def test_a_save_gives_up_in_time_and_names_the_holder(self, cli: str, path: Path) -> None:
        storage = SQLStorage(f"duckdb:///{path}", lock_timeout=1)
        storage.save_conversations([conversation("a")])
        with holding(cli, path) as pid:
            for call in (
                lambda: storage.save_conversations([conversation("b")]),
                storage.load_conversations,
                storage.count_documents,
            ):
                start = time.monotonic()
                with pytest.raises(LockTimeoutError) as caught:
                    call()
                assert 0.5 < time.monotonic() - start < 10
                assert str(pid) in str(caught.value)
                assert "store.duckdb" in str(caught.value)
                assert len(str(caught.value).splitlines()) < 10
        storage.save_conversations([conversation("c")])
        assert firsts(storage.load_conversations()) == ["a", "c"]

    def test_a_save_waits_for_its_turn(self, cli: str, path: Path) -> None:
        storage = SQLStorage(f"duckdb:///{path}", lock_timeout=60)
        storage.save_conversations([conversation("a")])
        command = [cli, str(path), "-c", "SELECT count(*) FROM range(1_000_000)"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as session:
            for n in range(5):
                storage.save_conversations([conversation(str(n))])
            session.wait(30)
        assert storage.count_conversations() == 6
