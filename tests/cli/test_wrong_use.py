"""Wrong use of every command: exit code 2, one message on stderr, and nothing changed on disk.

The commands and options come from the application itself. A command without an entry in `USES`, or
an option that takes any text and has no entry in `WRONG_TEXTS`, fails a test.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import click
import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import Result

from afterimage.storage.cli.app import app
from tests.cli.conftest import attempt, make_stores
from tests.support.processes import child

# The arguments of a use of each command that succeeds; {} is the store that it reads.
USES = {
    "import": ["more.jsonl", "new.duckdb"],
    "export": ["{}", "out.parquet"],
    "head": ["{}"],
    "tail": ["{}"],
    "show": ["{}", "#1"],
    "view": ["{}"],
    "count": ["{}"],
    "stats": ["{}"],
    "sql": ["{}", "SELECT 1"],
    "verify": ["{}"],
    "dedupe": ["{}", "--by", "metadata.domain"],
    "delete": ["{}", "--filter", "metadata.n=1"],
    "update": ["{}", "--filter", "metadata.n=1", "--set", "a=1"],
    "compact": ["{}"],
    "diff": ["{}", "talks.jsonl"],
    "demo": [],
}
READING = [name for name, arguments in USES.items() if "{}" in arguments]

FIELDS = ["nowhere", "final_scor", "metadata.", 'metadata."x', "metadata.a..b", "\udcff"]
WRONG_TEXTS = {
    "--filter": [
        "",
        "metadata.n",
        "=3",
        "metadata.n ~ 3",
        "metadata.n in 3",
        "metadata.n not in",
        "metadata.n=\udcff",
        *(f"{field}=1" for field in FIELDS),
    ],
    "--group-by": [""],
    "--order-by": ["", "final_score:up", *FIELDS],
    "--columns": ["", ",", "final_score,", "final_score,final_score", *FIELDS],
    "--partition-by": ["", ",", "persona,persona", *FIELDS],
    "--conversations-table": ["", "nowhere", "documents", "\udcff", "n" * 300],
    "--documents-table": ["", "nowhere", "conversations", "\udcff", "n" * 300],
    "--metadata-field": ["\udcff"],
    "--field": ["", "question", "=instruction", "question="],
    "--by": ["", *FIELDS],
    "--set": ["", "a", "=1"],
    "--into": ["", "sub.jsonl", "csv.jsonl", "new.txt", "nowhere/new.jsonl", "more.jsonl"],
    "--system-prompt": ["requires --format"],
    "--license": ["", "requires --hub"],
    "--title": ["", "requires --hub"],
    "--dir": ["", "notes.txt", "notes.txt/sub"],
    "--seed": ["", "x", "1.5"],
    "--shuffle-seed": ["", "x", "1.5", str(2**70)],
    "--shard": [""],
    "--distinct": ["", *FIELDS],
    "--split": ["", "x", "train", "train=x", "train=0.5", "a/b=1", "2"],
    "--split-by": ["persona", *FIELDS],
    "--html": ["", "stats.txt", "nowhere/stats.html", "talks.jsonl", "notes.txt/a.html"],
    "--host": ["", "not a host", "256.1.1.1", "\udcff"],
    "--lock-timeout": ["-1", "x", "", "nan", "inf"],
}
# What the tables must be called is known only from the database, which is created.
CREATED = {("import", "--conversations-table"), ("import", "--documents-table")}

MISSING = ["nowhere.duckdb", "nowhere.jsonl", "duckdb:///nowhere.duckdb", "nowhere/a.jsonl", "no"]
OTHERS = [
    "",
    *("sub", "sub.jsonl", "sub.duckdb", "duckdb:///sub"),
    *("notes.txt", "rows.csv", "csv.jsonl", "text.duckdb", "a.parquet", "parquet.jsonl"),
    *("array.jsonl", "utf16.jsonl", "lite.db", "empty.duckdb", "other.duckdb", "binary.bin"),
    *("duckdb:///talks.jsonl", "duckdb:///", "duckdb://x", "sqlite:///lite.db", "http://host/db"),
    *("talks.jsonl/x", "n" * 300 + ".jsonl", "n" * 5000),
]
SOURCES = [
    *("", "sub", "rows.csv", "csv.jsonl", "utf16.jsonl", "a.parquet", "lite.db"),
    "other.duckdb",
]
# Paths that no file can be written to, whatever its format.
TARGETS = ["", "nowhere/out{}", "notes.txt/out{}", "sub{}", "n" * 300 + "{}", "talks.duckdb"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores and other files, in which no test may change anything."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_stores()
        for name in ("sub", "sub.jsonl", "sub.parquet", "sub.duckdb"):
            Path(name).mkdir()
        lines = Path("talks.jsonl").read_bytes()
        Path("more.jsonl").write_bytes(lines)
        for name in ("notes.txt", "text.duckdb"):
            Path(name).write_text("Once upon a time\n" * 99, "utf-8")
        for name in ("rows.csv", "csv.jsonl"):
            Path(name).write_text("a,b\n1,2\n", "utf-8")
        for name in ("a.parquet", "parquet.jsonl"):
            pa.parquet.write_table(pa.table({"a": [1]}), name)
        Path("array.jsonl").write_text('[{"conversations": []}]', "utf-8")
        Path("utf16.jsonl").write_text(lines.decode(), "utf-16")
        Path("empty.duckdb").touch()
        Path("binary.bin").write_bytes(bytes(range(256)))
        sqlite3.connect("lite.db").execute("CREATE TABLE a (b)").connection.close()
        duckdb.connect("other.duckdb").execute("CREATE TABLE a (b INT)").close()
        Path("other.duckdb.lock").touch()  # an existing database is locked while it is read
    return folder


@pytest.fixture
def files(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder. After each test, its files must be as they were before."""
    monkeypatch.chdir(shared)
    before = contents(shared)
    yield shared
    after = contents(shared)
    assert {*after} - {*before} == set()
    assert after == before


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def is_refused(*arguments: str, code: int = 2) -> Result:
    """Check that a command does nothing but to say what is wrong, with one message."""
    result = attempt(*arguments)
    said = result.stderr
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert "Traceback" not in said
    # Click prints how the command is used before what is wrong.
    *usage, message = said.splitlines()
    assert message.startswith("Error: "), said
    assert usage == [] or (len(usage) == 3 and usage[0].startswith("Usage: ")), said
    assert 15 < len(message) < 1100
    assert "create=True" not in message or "--conversations-table" in message
    return result


def arguments_of(command: str, store: str = "talks.duckdb") -> list[str]:
    return [command, *(argument.format(store) for argument in USES[command])]


def options_of(command: str) -> list[click.Option]:
    return [each for each in app.commands[command].params if isinstance(each, click.Option)]


def wrong_values(command: str) -> list[tuple[str, str]]:
    """The wrong values of each option of a command."""
    found = []
    for option in options_of(command):
        name = option.opts[0]
        values = WRONG_TEXTS.get(name, [])
        match option.type:
            case click.Choice():
                values = ["nothing", ""]
            case click.IntRange():
                values = ["-1" if option.type.min == 0 else "0", "x", "1.5", ""]
        found += [(name, value) for value in values if (command, name) not in CREATED or not value]
    return found


def test_every_command_and_option_has_its_cases() -> None:
    assert set(USES) == set(app.commands)
    for command in app.commands:
        given = {name for name, _ in wrong_values(command)}
        takes_value = {each.opts[0] for each in options_of(command) if not each.is_flag}
        assert takes_value - {"--help"} == given, command


@pytest.mark.usefixtures("files")
class TestWrongUse:
    @pytest.mark.parametrize("command", READING)
    @pytest.mark.parametrize("store", MISSING)
    def test_a_missing_store(self, command: str, store: str) -> None:
        said = is_refused(*arguments_of(command, store)).stderr
        assert "does not exist" in said

    @pytest.mark.parametrize("command", READING)
    @pytest.mark.parametrize("store", OTHERS)
    def test_what_is_no_store(self, command: str, store: str) -> None:
        is_refused(*arguments_of(command, store))

    @pytest.mark.parametrize("source", [*MISSING, *SOURCES, "", "sub", "other.duckdb"])
    @pytest.mark.parametrize("dest", ["new.duckdb", "new.jsonl", "talks.duckdb"])
    def test_what_cannot_be_imported(self, source: str, dest: str) -> None:
        is_refused("import", source, dest)
        is_refused("import", "more.jsonl", source, dest)
        is_refused("import", source, dest, "--skip-existing")

    @pytest.mark.parametrize(
        "wrong",
        [
            ["more.jsonl", "talks.duckdb", "new.duckdb"],
            ["talks.duckdb", "talks.duckdb"],
            ["talks.jsonl", "--into", "talks.jsonl", "--skip-existing"],
            ["-", "new.duckdb", "--skip-existing"],
            ["talks.duckdb", "new.jsonl.gz"],
            ["talks.duckdb", "new.duckdb", "--kind", "records"],
            ["talks.jsonl", "new.duckdb", "--skip-existing", "--format", "openai"],
            ["talks.duckdb", "new.duckdb", "--skip-corrupt"],
        ],
        ids=" ".join,
    )
    def test_stores_that_cannot_be_imported(self, wrong: list[str]) -> None:
        is_refused("import", *wrong)

    @pytest.mark.parametrize("dest", [each for each in OTHERS if each != "other.duckdb"])
    def test_what_nothing_can_be_imported_into(self, dest: str) -> None:
        is_refused("import", "more.jsonl", dest)
        if dest != "empty.duckdb":
            is_refused("import", "more.jsonl", "--into", dest)

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
    def test_what_nothing_can_be_exported_to(self, target: str, suffix: str) -> None:
        for store in ("talks.duckdb", "talks.jsonl"):
            if not (target == "sub{}" and suffix == ".jsonl.gz"):
                is_refused("export", store, target.format(suffix))

    @pytest.mark.parametrize("target", ["", "notes.txt", "nowhere/out", "notes.txt/out", "n" * 300])
    def test_no_folder_of_partitions_can_be_made(self, target: str) -> None:
        for store in ("talks.duckdb", "talks.jsonl"):
            is_refused("export", store, target, "--partition-by", "persona")

    @pytest.mark.parametrize(
        ("command", "option", "value"),
        [(command, *wrong) for command in app.commands for wrong in wrong_values(command)],
    )
    def test_a_wrong_value(self, command: str, option: str, value: str) -> None:
        stores = ["talks.duckdb", "talks.jsonl"] if command in READING else [""]
        for store in stores:
            is_refused(*arguments_of(command, store), option, value)

    @pytest.mark.parametrize("command", app.commands)
    def test_unknown_and_missing_arguments(self, command: str) -> None:
        is_refused(*arguments_of(command), "--nothing")
        is_refused(*arguments_of(command), "--json=3" if command != "demo" else "--dir")
        if command != "import":
            is_refused(*arguments_of(command), "too", "many")
        if USES[command]:
            is_refused(command)

    @pytest.mark.parametrize(
        "query",
        [
            *("", "SELEC 1", "SELECT 1 +", "DELETE FROM conversations", "SELECT '\udcff'"),
            *("FROM nowhere", "SELECT nowhere FROM conversations", "SELECT nothing(1)"),
            "SELECT 'x' + conversations FROM conversations",
            "SELECT timestamp, nowhere FROM conversations",
        ],
    )
    @pytest.mark.parametrize("store", ["talks.duckdb", "talks.jsonl"])
    def test_wrong_sql(self, query: str, store: str) -> None:
        is_refused("sql", store, query)

    def test_an_unknown_command(self) -> None:
        is_refused("nothing")


@pytest.mark.usefixtures("files")
def test_a_limit_of_any_size_is_none(shared: Path) -> None:
    for arguments in (["sql", "talks.jsonl", "FROM messages"], ["head", "talks.jsonl"]):
        assert attempt(*arguments, "--limit", str(2**70)).exit_code == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do anything")
class TestPermissions:
    @pytest.mark.parametrize("command", READING)
    @pytest.mark.parametrize("store", ["talks.duckdb", "talks.jsonl"])
    def test_a_store_that_cannot_be_read(self, folder: Path, command: str, store: str) -> None:
        Path(store).chmod(0)
        is_refused(*arguments_of(command, store))

    def test_a_source_that_cannot_be_read(self, folder: Path) -> None:
        Path("texts.jsonl").chmod(0)
        is_refused("import", "texts.jsonl", "talks.duckdb")

    @pytest.mark.parametrize("target", ["out.jsonl", "out.parquet", "out"])
    def test_a_folder_that_cannot_be_written(self, folder: Path, target: str) -> None:
        Path("shut").mkdir(mode=0o500)
        more = ["--partition-by", "persona"] if target == "out" else []
        is_refused("export", "talks.duckdb", f"shut/{target}", *more)
        is_refused("import", "talks.jsonl", "shut/new.duckdb")
        is_refused("import", "talks.jsonl", "shut/new.jsonl")
        assert list(Path("shut").iterdir()) == []


def hold(pipe: Connection) -> None:
    from afterimage.storage.system.locks import file_lock

    with (
        file_lock(Path("talks.jsonl"), 1),
        file_lock(Path("talks.duckdb"), 1),
        duckdb.connect("talks.duckdb") as connection,
    ):
        connection.execute("BEGIN; CREATE TABLE half_done AS SELECT 1 AS one")
        pipe.send("held")
        time.sleep(300)


@pytest.mark.process
def test_a_store_that_another_process_holds(folder: Path) -> None:
    before = Path("talks.jsonl").read_bytes()
    Path("more.jsonl").write_bytes(before)
    with child(hold) as (process, pipe):
        assert pipe.recv() == "held"
        uses = [arguments_of(command) for command in READING]
        uses += [
            ["import", "more.jsonl", "--into", store] for store in ("talks.duckdb", "talks.jsonl")
        ]
        for use in uses:
            result = attempt(*use, "--lock-timeout", "0.1")
            assert (result.exit_code, result.stdout) == (1, ""), use
            assert f"process {process.pid}" in result.stderr
            assert "raise --lock-timeout" in result.stderr
    assert Path("talks.jsonl").read_bytes() == before
    assert not Path("out.parquet").exists()
