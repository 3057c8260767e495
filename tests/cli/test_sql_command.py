"""The command `sql` only reads: it changes no file, and reads no other file without permission."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from afterimage.storage import InvalidQueryError, LockTimeoutError, SQLStorage
from afterimage.storage.engine.users.sql import run_user_sql
from tests.cli.conftest import attempt, make_stores, objects
from tests.support.processes import child

STORES = ["talks.duckdb", "talks.jsonl"]
USES = [["talks.duckdb", "--allow-files"], ["talks.jsonl"]]
PIVOT = "PIVOT (SELECT role FROM messages) ON role"

NOT_READING = [
    # Words that end a transaction, and several statements.
    "ROLLBACK; DELETE FROM conversations",
    "COMMIT; DELETE FROM conversations",
    "END; DROP TABLE documents",
    "ABORT; DELETE FROM conversations",
    "SELECT 1; DROP VIEW messages",
    "DELETE FROM conversations; SELECT 1",
    "SELECT 1; SELECT 2",
    "/* SELECT */ ROLLBACK /* ; */; -- SELECT\nDELETE FROM conversations",
    # One statement of another kind.
    "BEGIN",
    "ROLLBACK",
    "DELETE FROM conversations",
    "DELETE FROM conversations RETURNING *",
    "/* SELECT 1 */ DELETE FROM conversations",
    "INSERT INTO records SELECT * FROM records",
    "UPDATE conversations SET metadata = NULL",
    "MERGE INTO documents d USING documents e ON d.id = e.id WHEN MATCHED THEN DELETE",
    "TRUNCATE documents",
    "CREATE TABLE more (n INT)",
    "CREATE TEMP TABLE more AS SELECT 1",
    "CREATE VIEW more AS SELECT 1",
    "CREATE MACRO more() AS 1",
    "CREATE SECRET s (TYPE http)",
    "ALTER TABLE documents ADD COLUMN more INT",
    "DROP VIEW messages",
    "PREPARE p AS DELETE FROM conversations",
    "PREPARE p AS DELETE FROM conversations; EXECUTE p",
    "EXECUTE p",
    "DEALLOCATE p",
    "COPY conversations TO 'talks.jsonl'",
    "COPY (SELECT 1) TO 'made.csv'",
    "COPY documents FROM 'texts.jsonl'",
    "EXPORT DATABASE 'made'",
    "ATTACH 'made.duckdb'",
    "DETACH talks",
    "USE memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET log_query_path = 'made.log'",
    "SET VARIABLE more = 1",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "PRAGMA profiling_output = 'made.json'",
    "CHECKPOINT",
    "CALL force_checkpoint()",
    "VACUUM",
    "ANALYZE",
    # EXPLAIN ANALYZE would run them.
    "EXPLAIN ANALYZE DELETE FROM conversations",
    "EXPLAIN ANALYZE COPY conversations TO 'talks.jsonl'",
    "EXPLAIN (ANALYZE) COPY conversations TO 'made.csv'",
    "EXPLAIN (ANALYZE, FORMAT json) INSERT INTO records SELECT * FROM records",
    "/* é SELECT */ EXPLAIN /* SELECT 1 */ ANALYZE -- é\n COPY (SELECT 1) TO 'made.csv'",
    "EXPLAIN ANALYZE CREATE TEMP TABLE more AS SELECT 1",
    "EXPLAIN DELETE FROM conversations",
    # A PIVOT that DuckDB turns into several statements.
    f"{PIVOT} USING count(*)",
    f"CREATE TABLE more AS {PIVOT} USING count(*)",
    f"EXPLAIN ANALYZE {PIVOT} USING count(*)",
    # Nothing.
    "",
    ";",
    "/* SELECT 1 */",
]

# The parser sees a SELECT; the plan, or DuckDB itself, does not allow it.
WRITING_SELECTS = [
    "WITH gone AS (DELETE FROM conversations RETURNING *) FROM gone",
    "WITH made AS (INSERT INTO records FROM records) FROM made",
    "WITH made AS (COPY conversations TO 'talks.jsonl') FROM made",
    "WITH made AS (COPY conversations TO 'made.csv') SELECT 1",
    "EXPLAIN ANALYZE WITH made AS (COPY conversations TO 'made.csv') SELECT 1",
    "FROM query('DELETE FROM conversations')",
    "FROM query('COPY conversations TO ''made.csv''')",
    "FROM enable_logging(storage := 'file', storage_path := 'made')",
    "FROM query('FROM enable_logging(storage := ''file'', storage_path := ''made'')')",
    "EXPLAIN ANALYZE FROM enable_logging(storage := 'file', storage_path := 'made')",
    "FROM enable_profiling()",
    "FROM force_checkpoint()",
    "IMPORT DATABASE 'dumped'",
]

OTHER_FILES = [
    "FROM read_csv('secret.csv')",
    "FROM read_text('secret.csv')",
    "FROM read_blob('secret.csv')",
    "FROM 'secret.csv'",
    "SELECT * FROM sniff_csv('secret.csv')",
    "FROM glob('*')",
    "FROM query('FROM ''secret.csv''')",
    "SELECT (SELECT content FROM read_text('secret.csv'))",
    "FROM read_text('/etc/passwd')",
    "EXPLAIN ANALYZE FROM 'secret.csv'",
    "SUMMARIZE 'secret.csv'",
    "DESCRIBE FROM 'secret.csv'",
]

READING = [
    "SELECT count(*) AS n FROM conversations",
    "select 1 as n;",
    "SELECT 1 AS n -- ; DELETE FROM conversations",
    "/* one */ SELECT ';' AS n /* two */ ; -- three",
    "WITH m AS (SELECT role FROM messages) SELECT role, count(*) FROM m GROUP BY ALL",
    "FROM messages SELECT role LIMIT 1",
    "FROM documents",
    "TABLE documents",
    "VALUES (1), (2)",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "DESCRIBE conversations",
    "DESCRIBE SELECT 1",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SUMMARIZE messages",
    "EXPLAIN SELECT * FROM messages",
    "/* é */ EXPLAIN -- é\n SELECT * FROM messages",
    "EXPLAIN ANALYZE SELECT '日本' AS n FROM messages",
    "EXPLAIN (ANALYZE, FORMAT json) FROM messages",
    "EXPLAIN (FORMAT json) (SELECT 1)",
    f"{PIVOT} IN ('user', 'assistant') USING count(*)",
    "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b",
    "FROM pragma_table_info('conversations')",
    "FROM range(3)",
    "SELECT 'DELETE FROM conversations; ROLLBACK' AS n",
    "SELECT metadata->>'domain' AS domain FROM conversations ORDER BY domain",
    "SELECT timestamp::DATE AS day FROM conversations",
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores that the tests share, as none of them may change a byte in it."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_stores()
        Path("secret.csv").write_text("word\nrosebud\n", encoding="utf-8")
        Path("dumped").mkdir()
        Path("dumped/schema.sql").write_text("DELETE FROM conversations;", encoding="utf-8")
        Path("dumped/load.sql").write_text("", encoding="utf-8")
        attempt("sql", "talks.duckdb", "SELECT 1")  # creates the lock file, which stays
    return folder


@pytest.fixture
def files(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder. After each test, its files must be as they were before."""
    monkeypatch.chdir(shared)
    before = contents(shared)
    yield shared
    assert contents(shared) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("files")
class TestRefused:
    @pytest.mark.parametrize("arguments", USES)
    @pytest.mark.parametrize("query", NOT_READING)
    def test_what_is_not_one_reading_statement(self, query: str, arguments: list[str]) -> None:
        result = attempt("sql", *arguments, query)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize("name", STORES)
    @pytest.mark.parametrize("options", [[], ["--allow-files"]], ids=["alone", "with files"])
    @pytest.mark.parametrize("query", WRITING_SELECTS)
    def test_a_select_that_writes(self, name: str, query: str, options: list[str]) -> None:
        result = attempt("sql", name, query, *options)
        assert result.exit_code in (1, 2)
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", STORES)
@pytest.mark.usefixtures("files")
class TestFiles:
    @pytest.mark.parametrize("query", OTHER_FILES)
    def test_others_are_not_read(self, name: str, query: str) -> None:
        result = attempt("sql", name, query)
        assert (result.exit_code in (1, 2), result.stdout) == (True, "")
        assert "rosebud" not in result.output
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        "query",
        [
            "FROM read_csv('secret.csv')",
            "SELECT word FROM 'secret.csv'",
            "SELECT trim(content[6:]) AS word FROM read_text('secret.csv')",
            "SELECT DISTINCT word FROM messages, 'secret.csv'",
        ],
    )
    def test_others_are_read_where_that_is_allowed(self, name: str, query: str) -> None:
        result = attempt("sql", name, query, "--json", "--allow-files")
        assert [row["word"].strip() for row in objects(result.stdout)] == ["rosebud"]

    def test_a_path_given_as_the_name_of_a_table_is_not_read(self, name: str) -> None:
        query = "SELECT * FROM query_table('secret.csv')"
        assert attempt("sql", name, query).exit_code == 1


@pytest.mark.parametrize("arguments", USES)
@pytest.mark.parametrize("query", READING)
@pytest.mark.usefixtures("files")
def test_statements_that_read_work(query: str, arguments: list[str]) -> None:
    result = attempt("sql", *arguments, query)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout


@pytest.mark.parametrize("name", ["TABLE_OF_THE_MODULE", "STORES", "batches", "frame"])
def test_python_variables_are_not_tables(files: Path, name: str) -> None:
    frame = batches = TABLE_OF_THE_MODULE
    assert frame is batches
    for store in STORES:
        result = attempt("sql", store, f"FROM {name}", "--allow-files")
        assert result.exit_code == 2
        assert "does not exist" in result.stderr
    with pytest.raises(Exception, match="does not exist"):
        run_user_sql(f"FROM {name}", files / "talks.duckdb", name="talks")


TABLE_OF_THE_MODULE = pa.table({"n": [1]})


def test_a_statement_is_refused_before_the_store_is_read(folder: Path) -> None:
    def read() -> Any:
        raise AssertionError("it was read")

    with pytest.raises(InvalidQueryError, match="DELETE is not a statement that only reads"):
        run_user_sql("DELETE FROM conversations", read, name="talks")
    with pytest.raises(InvalidQueryError, match="DELETE"):
        run_user_sql("DELETE FROM conversations", folder / "nowhere.duckdb", name="talks")


def test_a_file_without_write_permission_can_be_queried(files: Path) -> None:
    path = files / "talks.duckdb"
    path.chmod(0o444)
    try:
        result = attempt("sql", "talks.duckdb", "SELECT count(*) AS n FROM conversations", "--json")
        assert (result.exit_code, result.stdout) == (0, '{"n":4}\n')
        assert attempt("sql", "talks.duckdb", "DELETE FROM conversations").exit_code == 2
    finally:
        path.chmod(0o644)


def hold(pipe: Connection, path: Path) -> None:
    connection = duckdb.connect(str(path))
    connection.execute("BEGIN; CREATE TABLE half_done AS SELECT 1 AS one")
    pipe.send("held")
    time.sleep(300)


def test_a_store_that_another_process_holds_is_waited_for(folder: Path) -> None:
    path = folder / "talks.duckdb"
    with child(hold, path) as (process, pipe):
        assert pipe.recv() == "held"
        start = time.monotonic()
        with pytest.raises(LockTimeoutError, match=f"process {process.pid}"):
            run_user_sql("SELECT 1", path, name="talks", lock_timeout=0.5)
        assert 0.4 < time.monotonic() - start < 10


def test_the_file_is_free_after_the_rows(folder: Path) -> None:
    path = folder / "talks.duckdb"
    [column], rows = run_user_sql("FROM range(5000)", path, name="talks")
    assert (column.name, len(list(rows))) == ("range", 5000)
    store = SQLStorage(f"duckdb:///{path}", lock_timeout=1)
    store.save_conversations([*store.load_conversations(limit=1)])
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT count(*) FROM conversations").fetchall() == [(5,)]


def test_settings_reach_nobody_else(files: Path) -> None:
    store = SQLStorage("duckdb:///talks.duckdb")
    attempt("sql", "talks.duckdb", "SELECT 1")
    with store.engine.connect() as connection:
        assert [*map(tuple, connection.exec_driver_sql("FROM 'secret.csv'"))] == [("rosebud",)]


@pytest.mark.parametrize("name", STORES)
def test_large_statements_leave_no_file_behind(files: Path, name: str) -> None:
    query = "SELECT count(*) AS n FROM (SELECT DISTINCT md5(range::VARCHAR) FROM range(300000))"
    assert attempt("sql", name, query, "--json").stdout == '{"n":300000}\n'


class TestJson:
    def test_columns_of_json_are_printed_as_json(self, store: str) -> None:
        query = (
            "SELECT metadata, [metadata] AS l, {'m': metadata} AS s, MAP {'k': metadata} AS m, "
            "NULL::JSON AS n, metadata::VARCHAR AS t FROM conversations ORDER BY id LIMIT 1"
        )
        [row] = objects(attempt("sql", store, query, "--json").stdout)
        value = {"domain": "Trains", "n": 1}
        assert {**row, "t": json.loads(row["t"])} == {
            **dict.fromkeys("t", value),
            "metadata": value,
            "l": [value],
            "s": {"m": value},
            "m": {"k": value},
            "n": None,
        }

    def test_a_text_column_called_metadata_stays_text(self, store: str) -> None:
        query = "SELECT 'no {JSON' AS metadata, '{}' AS extra"
        said = attempt("sql", store, query, "--json")
        assert (said.exit_code, said.stdout) == (0, '{"metadata":"no {JSON","extra":"{}"}\n')

    def test_bytes_that_are_no_text_are_escaped(self, store: str) -> None:
        query = r"SELECT '\xff'::BLOB AS b, {'i': 'a\xff'::BLOB} AS s"
        said = attempt("sql", store, query, "--json")
        assert said.stdout == r'{"b":"\\xff","s":{"i":"a\\xff"}}' + "\n"
        assert r"\xff" in attempt("sql", store, query).stdout

    def test_columns_of_one_name_are_told_apart(self, store: str) -> None:
        said = attempt("sql", store, "SELECT 1 AS n, 2 AS n, 3 AS n_1", "--json")
        assert said.stdout == '{"n":1,"n_1":2,"n_1_1":3}\n'

    def test_numbers_that_json_lacks_are_strings(self, store: str) -> None:
        query = "SELECT 'nan'::DOUBLE AS n, 'inf'::FLOAT AS i, ['-inf'::DOUBLE, 1.5] AS l"
        said = attempt("sql", store, query, "--json")
        assert said.stdout == '{"n":"NaN","i":"Infinity","l":["-Infinity",1.5]}\n'


@pytest.mark.parametrize("name", STORES)
@pytest.mark.usefixtures("files")
class TestTimes:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("TIMESTAMP '2026-01-02 03:04:05.678'", "2026-01-02T03:04:05.678000"),
            ("TIMESTAMPTZ '2026-01-02 03:04:05+00'", "2026-01-02T03:04:05Z"),
            ("DATE '2026-01-02'", "2026-01-02"),
            ("TIMESTAMP 'infinity'", "infinity"),
            ("TIMESTAMPTZ '-infinity'", "-infinity"),
            ("DATE '-infinity'", "-infinity"),
            ("TIMESTAMP '9999-12-31 23:59:59.999999'", "9999-12-31T23:59:59.999999"),
            ("DATE '290000-01-01'", "290000-01-01"),
            ("DATE '0044-03-15 (BC)'", "0044-03-15 (BC)"),
            ("INTERVAL 3000000 YEARS", "3000000 years"),
            ("INTERVAL '1 month -1 day 01:02:03.5'", "P29DT1H2M3.5S"),
            ("INTERVAL '-00:00:01'", "-PT1S"),
        ],
    )
    def test_each_is_itself_at_any_depth(self, name: str, value: str, shown: str) -> None:
        nested = f"[{{'date': {value}, 'n': 1}}]"
        query = f"SELECT {value} AS v, {nested} AS l, MAP {{'k': {value}}} AS m, NULL::DATE AS n"
        [row] = objects(attempt("sql", name, query, "--json").stdout)
        assert row == {"v": shown, "l": [{"date": shown, "n": 1}], "m": {"k": shown}, "n": None}
        table = attempt("sql", name, f"SELECT {value} AS v").stdout
        assert table.splitlines()[-1] == shown

    def test_the_statement_may_have_any_form(self, name: str) -> None:
        rows = "SELECT make_date(2026, 1, n::INT) AS d FROM range(3) r(n) WHERE n > 0"
        for query in (
            f"{rows} ORDER BY n DESC",
            f"/* é ; */\n{rows} ORDER BY d DESC; -- the end;",
            f"WITH r AS ({rows}) FROM r ORDER BY d DESC LIMIT 2;",
            "VALUES (DATE '2026-01-02'), (DATE '2026-01-01')",
        ):
            found = objects(attempt("sql", name, query, "--json").stdout)
            assert [list(row.values()) for row in found] == [["2026-01-02"], ["2026-01-01"]]
        for query in ("SHOW TABLES", "SUMMARIZE conversations", "EXPLAIN SELECT current_date"):
            assert attempt("sql", name, query).exit_code == 0


@pytest.mark.parametrize("name", STORES)
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("SELECT nope FROM messages", "(line 1, column 8: nope FROM messages)"),
        (
            "  SELECT '日本',\n\n nope FROM messages; -- x",
            "(line 3, column 2: nope FROM messages; -- x)",
        ),
        ("EXPLAIN ANALYZE SELECT 1,\n nope", "(line 2, column 2: nope)"),
        (f"SELECT {'1, ' * 200}nope FROM messages", "(line 1, column 608: nope FROM messages)"),
        ("SELECT 'é日本' AS a, nope", "(line 1, column 20: nope)"),
        ("FROM nowhere", "(line 1, column 6: nowhere)"),
        ("SELEC 1", "(line 1, column 1: SELEC 1)"),
        ("SELECT 1,\n 'x'::INT", "(line 2, column 5: ::INT)"),
        ("SELECT current_date, (n || 'x')::INT\nFROM range(3) r(n)", "(line 1, column 32: ::INT)"),
    ],
)
def test_an_error_says_the_place_in_the_statement(name: str, query: str, place: str) -> None:
    said = attempt("sql", name, query).stderr
    assert place in said
    assert len(said.splitlines()) == 1
    for word in ("EXPLAIN (", "#1", "LINE", "^"):
        assert word not in said
