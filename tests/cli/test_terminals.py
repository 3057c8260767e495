"""What reaches a terminal: tables of any width, no control sequences of data, any encoding."""

from __future__ import annotations

import gzip
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from afterimage.storage import Conversation, JSONLStorage, SkippedRecordsWarning, SQLStorage
from afterimage.storage.cli.app import app
from tests.cli.conftest import attempt
from tests.cli.test_process import start
from tests.support.records import conversation
from tests.support.terminals import everything_on

needs_terminals = pytest.mark.skipif(
    not hasattr(os, "openpty"), reason="needs terminals as Unix has them"
)

HOSTILE = "a\x1b]0;title\x07\x9b31m\u202eb\u2066"
ESCAPED = r"a\x1b]0;title\x07\x9b31m\u202eb\u2066"


def shown(*arguments: str, columns: int = 80, env: dict[str, str] | None = None) -> tuple[int, str]:
    """The exit code of a command, and what it writes to a terminal of some width."""
    code, text = shown_raw(*arguments, columns=columns, env=env)
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")


def shown_raw(
    *arguments: str, columns: int = 80, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """The same, with the sequences for styles."""
    import fcntl
    import termios

    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    utf_8 = {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", "COLUMNS": str(columns)}
    env = {**utf_8, **(env or {})}
    with start(*arguments, stdout=end, env=env) as process:
        os.close(end)
        text = everything_on(terminal)
        _, errors = process.communicate()
    return process.returncode, (text + errors).decode(env["PYTHONIOENCODING"])


@pytest.mark.process
@needs_terminals
@pytest.mark.parametrize(
    "columns", [40, *(pytest.param(each, marks=pytest.mark.slow) for each in (60, 80, 120, 200))]
)
class TestWidths:
    def test_every_column_shows_its_name(self, folder: Path, columns: int) -> None:
        names = [f"a_long_column_{n}" for n in range(9)]
        text = "'x' || repeat('y', 100)"
        query = "SELECT " + ", ".join(f"{text} AS {name}" for name in names)
        code, said = shown("sql", "talks.duckdb", query, columns=columns)
        assert code == 0
        table, _, below = said.partition("Columns that do not fit: ")
        assert all(len(line) <= columns for line in table.splitlines())
        in_table = table.splitlines()[0].split()
        assert in_table == names[: len(in_table)]
        assert re.findall(r"a_long_column_\d", below) == names[len(in_table) :]

    def test_a_table_of_records(self, folder: Path, columns: int) -> None:
        code, said = shown("head", "talks.duckdb", columns=columns)
        assert code == 0
        for name in ("turns", "first message", "grade", "score", "metadata"):
            assert name in said
        assert "Is th" in said
        assert all(len(line) <= max(columns, 80) for line in said.splitlines())

    def test_statistics(self, folder: Path, columns: int) -> None:
        code, said = shown("stats", "talks.duckdb", columns=columns)
        assert code == 0
        assert all(len(line) <= columns for line in said.splitlines())
        words = ("messages per conversation", "p95", "with reasoning", "domain")
        assert all(word in said for word in words)


@pytest.fixture
def hostile(folder: Path) -> str:
    """The name of a store whose text, keys and name hold control sequences."""
    record = conversation(HOSTILE, {HOSTILE: HOSTILE})
    record.persona = HOSTILE
    name = "\x1b[31m\u202etalks.jsonl"
    JSONLStorage(name, "none.jsonl").save_conversations([record])
    return name


class TestPipes:
    @pytest.mark.parametrize("command", [["head"], ["stats"], ["sql", "FROM messages"]])
    def test_columns_limits_the_width_as_in_other_programs(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
    ) -> None:
        arguments = [command[0], "talks.duckdb", *command[1:]]
        wide = attempt(*arguments).stdout
        assert max(map(len, wide.splitlines())) > 50
        for wrong in ("", "0", "wide"):
            monkeypatch.setenv("COLUMNS", wrong)
            assert attempt(*arguments).stdout == wide
        monkeypatch.setenv("COLUMNS", "50")
        table, _, _ = attempt(*arguments).stdout.partition("Columns that do not fit")
        assert 30 < max(map(len, table.splitlines())) <= 50

    def test_whole_records_are_wrapped_between_words(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = f"one two {'x' * 70} 日本語のテキスト{'日本' * 30} the\n\tend"
        JSONLStorage("wide.jsonl").save_conversations([conversation(text, {"k": "v" * 90})])
        monkeypatch.setenv("COLUMNS", "40")
        lines = attempt("head", "wide.jsonl", "--view", "full").stdout.splitlines()
        assert max(map(cell_len, lines)) <= 40
        said = "".join(lines).replace(" ", "")
        assert "onetwo" in said
        assert "日本語のテキスト" in said
        assert said.count("x") == 140
        assert said.count("日本") == 62

    def test_whole_records_are_quick(self, folder: Path) -> None:
        words = "the night train to the sea " * 80_000  # 2 MB
        mixed = "日本 the train é " * 40_000
        JSONLStorage("long.jsonl").save_conversations(
            [conversation(words, {}), conversation(mixed, {})]
        )
        for columns in ("", "80"):
            start = time.process_time()
            said = CliRunner(env={"COLUMNS": columns}).invoke(
                app, ["head", "long.jsonl", "--view", "full"]
            )
            assert time.process_time() - start < 5  # a table took 20 s
            assert said.stdout.count("night") == 160_000


class TestControlSequences:
    def no_controls(self, text: str) -> bool:
        return not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)

    @pytest.mark.parametrize(
        "command",
        [
            ["head"],
            ["head", "--view", "full"],
            ["head", "--columns", "persona,metadata"],
            ["head", "--filter", f"metadata.{HOSTILE}x=1"],
            ["stats"],
            ["verify"],
            ["sql", 'SELECT persona, persona AS "\x9bname" FROM conversations'],
            ["sql", f"SELECT '{HOSTILE}'::INT"],
            ["sql", f'SELECT "{HOSTILE}"'],
            ["head", "--order-by", HOSTILE],
            ["head", "--filter", HOSTILE],
            ["head", f"--{HOSTILE}"],
            ["export", f"{HOSTILE}.csv"],
            ["export", f"{HOSTILE}.jsonl"],
        ],
    )
    def test_no_command_prints_them(self, hostile: str, command: list[str]) -> None:
        result = attempt(command[0], hostile, *command[1:])
        assert self.no_controls(result.stdout + result.stderr)
        assert result.stdout + result.stderr

    def test_nor_does_an_import_or_a_missing_store(self, hostile: str) -> None:
        Path(HOSTILE).write_text("{\x9b", "utf-8")
        for arguments in (
            ["import", HOSTILE, "new.duckdb"],
            ["import", hostile, f"{HOSTILE}.jsonl"],
            ["stats", f"no{HOSTILE}"],
            [HOSTILE],
        ):
            result = attempt(*arguments)
            assert self.no_controls(result.stdout + result.stderr)

    def test_nor_do_reports_and_errors_in_python(self, hostile: str) -> None:
        store = JSONLStorage(hostile, "none.jsonl")
        assert ESCAPED in str(store.stats())
        with Path(hostile).open("a", encoding="utf-8") as file:
            file.write('{"conversations": 3, "x": "\x9b')
        with pytest.raises(ValueError, match="line 2") as caught:
            store.count_conversations()
        with pytest.warns(SkippedRecordsWarning) as warned:
            store.load_conversations(on_error="skip")
        for said in (store.verify(), caught.value, warned[0].message):
            assert self.no_controls(str(said))

    @pytest.mark.process
    @needs_terminals
    def test_json_on_a_terminal_is_escaped_and_the_same_value(self, hostile: str) -> None:
        import json

        code, said = shown("head", hostile, "--json")
        assert code == 0
        assert self.no_controls(said)
        assert json.loads(said)["persona"] == HOSTILE


@pytest.mark.process
class TestEncodings:
    @needs_terminals
    @pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
    @pytest.mark.parametrize("command", [["head"], ["head", "--view", "full"], ["stats"]])
    def test_characters_that_do_not_exist_are_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, command: list[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        SQLStorage("duckdb:///a.duckdb").save_conversations(
            [conversation("日本 é 🚂", {"日本": 1}, final_score=0.5)]
        )
        code, said = shown(*command, "a.duckdb", env={"PYTHONIOENCODING": encoding})
        assert code == 0
        assert "Traceback" not in said
        assert "Error" not in said

    @needs_terminals
    def test_no_color(self, folder: Path) -> None:
        code, said = shown_raw("head", "talks.duckdb", env={"NO_COLOR": "1"})
        assert code == 0
        assert not re.search(r"\x1b\[(\d+;)*[349]\d", said)

    @pytest.mark.parametrize("command", ["sql", "head", "export"])
    def test_a_closed_pipe_is_success(self, folder: Path, command: str) -> None:
        JSONLStorage("many.jsonl").save_conversations(
            [conversation("x" * 100, {"n": n}) for n in range(3000)]
        )
        arguments = {
            "sql": ["many.jsonl", "SELECT * FROM messages", "--json"],
            "head": ["many.jsonl", "--limit", "3000", "--json"],
            "export": ["many.jsonl", "out.jsonl"],
        }[command]
        with start(command, *arguments) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0


@pytest.mark.process
@pytest.mark.parametrize("url", ["duckdb:///:memory:", "duckdb:///a.duckdb"])
def test_the_engine_prints_no_progress_bar(folder: Path, url: str) -> None:
    """DuckDB would print one in a program without a main file."""
    code = (
        "from afterimage.storage import SQLStorage\n"
        f"store = SQLStorage({url!r})\n"
        "with store.engine.connect() as c:\n"
        "    print(c.exec_driver_sql(\"SELECT current_setting('enable_progress_bar')\").scalar())\n"
    )
    path = str(Path(__file__).resolve().parents[2] / "src")
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "False\n"


class TestHints:
    @pytest.mark.parametrize(
        ("arguments", "hint"),
        [
            (["head", "--filter", "metadata.domian=x"], "Did you mean metadata.domain?"),
            (["stats", "--filter", "metadata.domian=x"], "Did you mean metadata.domain?"),
            (["head", "--filter", "metadata.zzz=x"], "Keys: domain, n, k.l."),
            (["head", "--filter", "persona=x"], "None of the 4 conversations matches."),
            (["head", "--view", "full", "--filter", "persona=x"], "matches."),
            (["export", "o.jsonl", "--filter", "persona=x"], "matches."),
            (["head", "--order-by", "metadata.domian"], "Did you mean metadata.domain?"),
            (["head", "--view", "full", "--order-by", "metadata.domian:desc"], "domain?"),
            (["head", "--columns", "persona,metadata.domian"], "Did you mean metadata.domain?"),
            (["export", "o.parquet", "--columns", "metadata.domian"], "metadata.domain?"),
            (["export", "o.parquet", "--order-by", "metadata.domian"], "metadata.domain?"),
            (["export", "parts", "--partition-by", "metadata.domian"], "metadata.domain?"),
            (["export", "o.jsonl", "--kind", "records", "--order-by", "metadata.x"], "None of"),
            (["head", "--offset", "4"], "--offset 4 is past the end: there are 4 conversations."),
            (["head", "--view", "full", "--offset", "9"], "there are 4 conversations."),
            (["export", "o.jsonl", "--offset", "9"], "there are 4 conversations."),
            (
                ["head", "--offset", "2", "--filter", "metadata.domain=Trains"],
                "--offset 2 is past the end: there are 2 conversations that match.",
            ),
        ],
    )
    def test_nothing_matches(self, store: str, arguments: list[str], hint: str) -> None:
        result = attempt(arguments[0], store, *arguments[1:])
        assert result.exit_code == 0
        assert hint in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_another_kind(self, folder: Path) -> None:
        result = attempt("head", "texts.jsonl")
        assert result.stderr == ("The store has no conversations, but 3 records of other models.\n")

    def test_scripts_get_none(self, store: str) -> None:
        for more in (["--filter", "persona=x"], ["--offset", "9"], ["--order-by", "metadata.x"]):
            assert attempt("head", store, *more, "--json").stderr == ""
            assert attempt("export", store, "o.jsonl", *more, "--json").stderr == ""
        assert attempt("head", store, "--limit", "0").stderr == ""

    def test_documents_that_are_imported_without_their_kind(self, folder: Path) -> None:
        with gzip.open("texts.jsonl.gz", "wb") as file:
            file.write(Path("texts.jsonl").read_bytes())
        for source in ("texts.jsonl", "texts.jsonl.gz"):
            result = attempt("import", "talks.jsonl", source, "new.duckdb")
            assert result.exit_code == 2
            assert f"{source} seems to have documents. " in result.stderr
            assert "use --kind documents." in result.stderr
        for arguments in (
            ["texts.jsonl", "new.duckdb", "--kind", "documents"],
            ["talks.jsonl", "new.duckdb"],
        ):
            assert attempt("import", *arguments).stderr == ""

    def test_nothing_to_repair(self, store: str) -> None:
        said = attempt("verify", store, "--repair").stdout
        assert said.splitlines()[-1].startswith("nothing to repair")
        assert attempt("verify", store).stdout.splitlines()[-1] == "no faults found"

    def test_a_torn_last_line_is_called_so_in_reads_too(self, folder: Path) -> None:
        with Path("talks.jsonl").open("ab") as file:
            file.write(b'{"conversations": [{"role": "us')
        for command in (["head"], ["stats"], ["export", "out.jsonl"], ["sql", "SELECT 1"]):
            said = attempt(command[0], "talks.jsonl", *command[1:]).stderr
            assert "line 6 (byte 1214): a torn line, whose end was never written" in said
            assert "line 1" not in said
        assert "torn last lines: 1" in attempt("verify", "talks.jsonl").stdout

    def test_numbers_have_the_right_noun(self, folder: Path) -> None:
        SQLStorage("duckdb:///one.duckdb").save_conversations([Conversation(conversations=[])])
        said: Any = attempt("stats", "one.duckdb").stdout
        assert said.startswith("1 conversation, 0 messages, 0 documents, 0 records of other models")
        assert "1 conversation, 0 documents" in attempt("verify", "one.duckdb").stdout
