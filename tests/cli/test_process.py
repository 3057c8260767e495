"""The command as a process: exit codes, pipes, terminals, completion, missing packages."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from afterimage.storage import SQLStorage
from tests.support.terminals import everything_on

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "afterimage.storage"]

IMPORTED = "4 conversations and 1 record of other models imported into {}\n"


def start(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.update(options.pop("env", {}))  # type: ignore[call-overload]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*COMMAND, *arguments], env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


def test_import_and_stats(folder: Path) -> None:
    with start("import", "talks.jsonl", "new.duckdb") as process:
        assert process.communicate() == (IMPORTED.format("new.duckdb").encode(), b"")
    assert process.returncode == 0
    with start("stats", "new.duckdb", env={"PYTHONIOENCODING": "utf-8"}) as process:
        said, errors = process.communicate()
    assert said.decode().startswith("4 conversations, 6 messages")
    assert (process.returncode, errors) == (0, b"")


def test_an_error_is_one_line(folder: Path) -> None:
    with start("head", "nowhere.duckdb") as process:
        said = process.communicate()
    assert said == (b"", b"Error: the store nowhere.duckdb does not exist. Check the path.\n")
    assert process.returncode == 2


def test_a_closed_pipe_is_not_an_error(folder: Path) -> None:
    query = "SELECT repeat('x', 1000) AS x FROM range(100000)"
    with start("sql", "talks.duckdb", query, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_import_from_a_pipe(folder: Path, packing: str) -> None:
    lines = (folder / "talks.jsonl").read_bytes()
    data = gzip.compress(lines) if packing == "gzip" else lines
    for source, dest in (("-", "a.duckdb"), ("-", "a.jsonl"), ("/dev/stdin", "b.jsonl")):
        if source == "/dev/stdin" and not Path(source).exists():
            continue
        with start("import", source, dest, stdin=subprocess.PIPE) as process:
            assert process.communicate(data) == (IMPORTED.format(dest).encode(), b"")
    assert (folder / "a.jsonl").read_bytes() == lines


def on_a_terminal(*arguments: str) -> tuple[str, str]:
    """The output of a command, and the text on the terminal that is its stderr."""
    terminal, end = os.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    with start(*arguments, stderr=end, env=environment) as process:
        os.close(end)
        shown = everything_on(terminal)
        said, _ = process.communicate()
    assert process.returncode == 0, shown.decode()
    return said.decode(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals as Unix has them")
@pytest.mark.parametrize(
    ("command", "records"),
    [
        ("import talks.jsonl new.duckdb", 5),
        pytest.param("import talks.jsonl.gz new.duckdb", 5, marks=pytest.mark.slow),
        pytest.param("import talks.jsonl.zst new.jsonl", 5, marks=pytest.mark.slow),
        pytest.param("export talks.duckdb out.jsonl", 4, marks=pytest.mark.slow),
        pytest.param("export talks.duckdb out.jsonl --kind records", 1, marks=pytest.mark.slow),
        ("verify talks.duckdb", 8),
        pytest.param("verify talks.jsonl", 5, marks=pytest.mark.slow),
        pytest.param("verify talks.jsonl.zst", 5, marks=pytest.mark.slow),
        ("stats talks.duckdb", 4),
        pytest.param("stats talks.jsonl", 5, marks=pytest.mark.slow),
        pytest.param("stats talks.jsonl.gz", 5, marks=pytest.mark.slow),
        pytest.param("sql talks.jsonl.gz 'SELECT 1'", 5, marks=pytest.mark.slow),
        ("head talks.jsonl", 5),
        pytest.param(
            "head talks.jsonl --filter persona=nobody --columns persona --json",
            5,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "head talks.jsonl --order-by final_score --view full", 4, marks=pytest.mark.slow
        ),
        pytest.param("head talks.jsonl.gz --json", 4, marks=pytest.mark.slow),
        pytest.param("export talks.jsonl out.jsonl", 4, marks=pytest.mark.slow),
        pytest.param("export talks.jsonl.gz out.parquet", 4, marks=pytest.mark.slow),
    ],
)
def test_progress_is_shown_only_on_a_terminal(folder: Path, command: str, records: int) -> None:
    arguments = shlex.split(command)
    lines = (folder / "talks.jsonl").read_bytes()
    (folder / "talks.jsonl.gz").write_bytes(gzip.compress(lines))
    with pa.output_stream("talks.jsonl.zst", compression="zstd") as packed:
        packed.write(lines)
    said, shown = on_a_terminal(*arguments)
    assert re.search(rf"100% {records} records, [\d,]+/s +00:00 left", shown)
    for made in folder.glob("new.*"):
        made.unlink()
    with start(*arguments, env={"PYTHONIOENCODING": "utf-8"}) as process:
        piped, errors = process.communicate()
    assert (piped.decode(), errors) == (said, b"")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals as Unix has them")
def test_progress_of_a_statement_is_shown(folder: Path) -> None:
    with SQLStorage("duckdb:///talks.duckdb").engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE numbers AS SELECT i, md5(i::VARCHAR) AS text FROM range(2000000) r(i)"
        )
    query = "SELECT count(DISTINCT md5(text || text)) AS n FROM numbers"
    said, shown = on_a_terminal("sql", "talks.duckdb", query, "--json")
    assert said == '{"n":2000000}\n'
    assert re.search(r"running SQL .* [1-9]\d?%", shown)
    assert re.search(r"\d\d:\d\d left", shown)


def test_the_shell_completes_commands(folder: Path) -> None:
    environment = {
        "_AFTERIMAGE_STORAGE_COMPLETE": "bash_complete",
        "COMP_WORDS": "afterimage-storage st",
        "COMP_CWORD": "1",
    }
    with start(env=environment) as process:
        assert process.communicate() == (b"plain,stats\n", b"")


def test_help_and_completion_load_no_engine() -> None:
    code = (
        "import sys; from afterimage.storage.cli.app import app; "
        "print({'duckdb', 'pyarrow', 'sqlalchemy'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "set()\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_says_what_to_install(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; import afterimage.storage.cli as c; c.main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        f"Error: the command line needs {missing}, which is not installed: "
        "pip install 'afterimage-storage[cli]'\n"
    )
