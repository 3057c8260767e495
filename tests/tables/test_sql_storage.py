"""SQLStorage only: its tables and columns, SQL, and a file that other programs can open."""

from __future__ import annotations

import datetime as dt
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import text

from afterimage.storage import Document, SQLStorage
from tests.support.records import Note, conversation, conversations, evaluation, firsts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def url(path: Path) -> str:
    return f"duckdb:///{path}"


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Run a query as a notebook does: with its own connection, in this process."""
    with duckdb.connect(str(path)) as connection:
        return connection.execute(query).fetchall()


def count_in_another_process(path: Path) -> int:
    """Check that this process holds no lock on the file."""
    code = (
        "import duckdb, sys; connection = duckdb.connect(sys.argv[1]);"
        "print(connection.execute('SELECT count(*) FROM conversations').fetchone()[0])"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-300:]
    return int(done.stdout)


class TestConstructor:
    def test_its_parameters_are_those_of_the_published_class_and_then_keywords(self) -> None:
        parameters = list(inspect.signature(SQLStorage).parameters.values())
        assert [parameter.name for parameter in parameters[:5]] == [
            "url",
            "conversations_table_name",
            "documents_table_name",
            "metadata_fields",
            "batch_size",
        ]
        assert all(
            parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty
            for parameter in parameters[5:]
        )

    def test_memory_databases_are_separate(self) -> None:
        first, second = SQLStorage("duckdb:///:memory:"), SQLStorage("duckdb:///:memory:")
        first.save_conversations([conversation()])
        assert first.count_conversations() == 1
        assert second.count_conversations() == 0

    def test_two_storages_of_one_file_see_each_other(self, url: str) -> None:
        first, second = SQLStorage(url), SQLStorage(url)
        first.save_conversations([conversation("a")])
        second.save_conversations([conversation("b")])
        first.save_conversations([conversation("c")])
        assert firsts(second.load_conversations()) == ["a", "b", "c"]


class TestSequenceAndTimestamp:
    def test_ids_follow_insertion_over_saves_and_reopening(self, url: str) -> None:
        for text_ in "abc":
            SQLStorage(url).save_conversations([conversation(text_), conversation(text_)])
        storage = SQLStorage(url)
        ids = storage.scan_conversations(["id"]).read_all().column(0).to_pylist()
        assert ids == sorted(set(ids))
        found = storage.load_conversations(filters=[("id", ">", ids[3])], order_by=[("id", -1)])
        assert firsts(found) == ["c", "c"]
        assert firsts(storage.load_conversations(filters={"id": ids[2]})) == ["b"]

    def test_documents_have_their_own_id_and_a_sequence(self, url: str) -> None:
        storage = SQLStorage(url)
        storage.save_documents([Document(id="b"), Document(id="a")])
        table = storage.scan_documents(["_id", "id"], order_by=[("_id", -1)]).read_all()
        assert table.column("id").to_pylist() == ["a", "b"]
        first, second = table.column("_id").to_pylist()
        assert first > second
        assert [each.id for each in storage.load_documents(filters={"_id": second})] == ["b"]

    def test_the_timestamp_is_the_utc_time_of_the_save(self, url: str) -> None:
        storage = SQLStorage(url)
        times = [dt.datetime.now(dt.UTC)]
        for content in "ab":
            storage.save_conversations([conversation(content)])
            storage.save_documents([Document(id=content)])
            times.append(dt.datetime.now(dt.UTC))
        start, between, end = times
        within = [("timestamp", ">=", start), ("timestamp", "<=", end)]
        assert storage.count_conversations(within) == 2
        assert storage.count_documents(within) == 2
        assert firsts(storage.load_conversations(filters=[("timestamp", ">", between)])) == ["b"]
        before = [("timestamp", "<", between.isoformat())]
        assert firsts(storage.load_conversations(filters=before)) == ["a"]
        assert firsts(storage.load_conversations(order_by=[("timestamp", -1)])) == ["b", "a"]

    def test_records_of_one_save_have_one_timestamp(self, url: str) -> None:
        storage = SQLStorage(url, batch_size=2)
        storage.save_conversations([conversation(str(n)) for n in range(7)])
        table = storage.scan_conversations(["timestamp"]).read_all()
        assert len(set(table.column(0).to_pylist())) == 1


class TestTables:
    def test_columns_are_native_and_nested(self, url: str, path: Path) -> None:
        record = conversation("Hi", {"n": 2**70}, evaluation=evaluation(), persona="a pilot")
        SQLStorage(url).save_conversations([record])
        query = (
            "SELECT conversations[2].content, evaluation.coherence.score, persona, "
            "metadata->>'n', len(conversations) FROM conversations"
        )
        assert rows(path, query) == [("Hi!", 0.5, "a pilot", str(2**70), 2)]

    def test_documents(self, url: str, path: Path) -> None:
        personas = [{"descriptions": ["a pilot", "a nurse"]}]
        SQLStorage(url).save_documents([Document(id="d", text="x", personas=personas)])
        query = "SELECT id, text, personas[1].descriptions[2] FROM documents"
        assert rows(path, query) == [("d", "x", "a nurse")]

    def test_messages_are_a_view_with_one_row_per_message(self, url: str, path: Path) -> None:
        storage = SQLStorage(url)
        storage.save_conversations([conversation("a"), Note(title="-"), conversation("b")])
        ids = storage.scan_conversations(["id"]).read_all().column(0).to_pylist()
        query = "SELECT * FROM messages ORDER BY conversation_id, position"
        with duckdb.connect(str(path)) as connection:
            result = connection.execute(query)
            assert [column[0] for column in result.description or []] == [
                "conversation_id",
                "position",
                "role",
                "content",
                "reasoning_content",
                "name",
                "tool_calls",
                "tool_call_id",
                "parts",
            ]
            found = [row[:5] for row in result.fetchall()]
        first = found[0][1]
        assert found == [
            (ids[0], first, "user", "a", None),
            (ids[0], first + 1, "assistant", "a!", "greet back"),
            (ids[1], first, "user", "b", None),
            (ids[1], first + 1, "assistant", "b!", "greet back"),
        ]

    def test_other_table_names(self, url: str, path: Path) -> None:
        one = SQLStorage(url, "talks", "texts")
        other = SQLStorage(url)
        one.save_conversations([conversation("a")])
        one.save_documents([Document(id="d")])
        assert other.count_conversations() == other.count_documents() == 0
        assert rows(path, "SELECT count(*) FROM talks") == [(1,)]
        assert rows(path, "SELECT id FROM texts") == [("d",)]
        assert rows(path, "SELECT content FROM talks_messages WHERE role = 'user'") == [("a",)]
        assert rows(path, "SELECT count(*) FROM messages") == [(0,)]

    @pytest.mark.parametrize(
        "name",
        ['say "hi"', "it's", "a.b", "select", "x; DROP TABLE conversations; --", "%s", ":n", "é😀"],
    )
    def test_hostile_names(self, url: str, path: Path, name: str) -> None:
        SQLStorage(url).save_conversations([conversation("other")])
        storage = SQLStorage(url, name, f"{name} 2", metadata_fields=["n"])
        storage.save_conversations(conversations({"n": 1}, {"n": 2}))
        storage.save_documents([Document(id="d")])
        assert firsts(storage.load_conversations(filters={"metadata.n": 2})) == ["1"]
        assert storage.count_documents() == 1
        quoted = name.replace('"', '""')
        assert rows(path, f'SELECT count(*) FROM "{quoted}"') == [(2,)]
        assert rows(path, f'SELECT count(*) FROM "{quoted}_messages"') == [(4,)]
        assert SQLStorage(url).count_conversations() == 1

    def test_tables_use_only_what_ducklake_has(self, url: str, path: Path) -> None:
        SQLStorage(url, metadata_fields=["n"]).save_conversations([conversation()])
        assert rows(path, "SELECT * FROM duckdb_indexes()") == []
        assert rows(path, "SELECT * FROM duckdb_sequences()") == []
        constraints = "SELECT * FROM duckdb_constraints() WHERE constraint_type <> 'NOT NULL'"
        assert rows(path, constraints) == []
        types = rows(path, "SELECT data_type FROM duckdb_columns() WHERE NOT internal")
        assert not [kind for (kind,) in types if "ENUM" in kind]


class TestMetadataFields:
    def test_they_are_columns_with_a_column_for_their_types(self, url: str, path: Path) -> None:
        storage = SQLStorage(url, metadata_fields=["domain"])
        values = ["Flights", 3, 2.5, True, [1], {"k": 1}, None]
        storage.save_conversations([*conversations(*({"domain": v} for v in values), {})])
        assert rows(path, "SELECT domain, domain_type FROM conversations ORDER BY id") == [
            ("Flights", "string"),
            ("3", "number"),
            ("2.5", "number"),
            ("true", "boolean"),
            ("[1]", "array"),
            ('{"k":1}', "object"),
            (None, None),
            (None, None),
        ]

    def test_they_are_filled_in_an_existing_database(self, url: str, path: Path) -> None:
        SQLStorage(url).save_conversations(conversations({"a": "x", "b": 1}, {"b": 2}))
        SQLStorage(url, metadata_fields=["b"]).save_conversations([conversation("2", {"b": 3})])
        query = "SELECT b FROM conversations ORDER BY id"
        assert rows(path, query) == [("1",), ("2",), ("3",)]
        storage = SQLStorage(url, metadata_fields=["a"])
        storage.save_conversations([conversation("3", {"a": "y", "b": 4})])
        query = "SELECT a, b FROM conversations ORDER BY id"
        assert rows(path, query) == [("x", "1"), (None, "2"), (None, "3"), ("y", "4")]
        assert firsts(storage.load_conversations(filters=[("metadata.b", ">", 2)])) == ["2", "3"]

    def test_several_at_once_on_an_existing_database(self, url: str, path: Path) -> None:
        # DuckDB 1.5 cannot alter a table again once the same transaction has updated its rows.
        SQLStorage(url).save_conversations(conversations({"a": "x", "b": 1}, {"c": True}))
        storage = SQLStorage(url, metadata_fields=["a", "b", "c"])
        query = "SELECT a, b, c FROM conversations ORDER BY id"
        assert rows(path, query) == [("x", "1", None), (None, None, "true")]
        assert firsts(storage.load_conversations(filters={"metadata.c": True})) == ["1"]

    def test_a_storage_that_does_not_name_them_fills_them_too(self, url: str, path: Path) -> None:
        SQLStorage(url, metadata_fields=["a"])
        SQLStorage(url).save_conversations([conversation(metadata={"a": "x"})])
        storage = SQLStorage(url, metadata_fields=["a"])
        assert storage.count_conversations({"metadata.a": "x"}) == 1
        assert rows(path, "SELECT a FROM conversations") == [("x",)]

    def test_hostile_names(self, url: str) -> None:
        keys = ["k.l", 'q"x', "it's", "x; DROP TABLE conversations; --", "", "select", "é", "a b"]
        storage = SQLStorage(url, metadata_fields=[key for key in keys if key])
        storage.save_conversations(conversations(*({key: "own"} for key in keys)))
        for number, key in enumerate(keys):
            quoted = key.replace('"', '""')
            found = storage.load_conversations(filters={f'metadata."{quoted}"': "own"})
            assert firsts(found) == [str(number)], key

    def test_keys_that_differ_only_in_case_are_separate(self, url: str) -> None:
        # Column names of DuckDB ignore case; JSON keys do not.
        storage = SQLStorage(url, metadata_fields=["domain"])
        storage.save_conversations(conversations({"domain": "x"}, {"Domain": "x"}))
        assert firsts(storage.load_conversations(filters={"metadata.Domain": "x"})) == ["1"]
        assert firsts(storage.load_conversations(filters={"metadata.domain": "x"})) == ["0"]

    def test_documents_and_other_records_are_unchanged(self, url: str) -> None:
        storage = SQLStorage(url, metadata_fields=["title", "n"])
        storage.save_conversations([Note(title="a"), conversation(metadata={"n": 1})])
        storage.save_documents([Document(id="d", metadata={"n": 1})])
        assert storage.load_records(Note) == [Note(title="a")]
        assert storage.count_documents({"metadata.n": 1}) == 1


class TestEngine:
    def test_it_runs_sql(self, url: str, path: Path) -> None:
        storage = SQLStorage(url)
        storage.save_conversations([conversation("a")])
        with storage.engine.connect() as connection:
            query = text("SELECT content FROM messages WHERE role = :role")
            assert connection.execute(query, {"role": "user"}).scalar() == "a"
            storage.save_conversations([conversation("b")])
        assert count_in_another_process(path) == 2

    def test_it_reads_a_memory_database(self) -> None:
        storage = SQLStorage("duckdb:///:memory:")
        storage.save_conversations([conversation("a")])
        with storage.engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM conversations")).scalar() == 1

    def test_pandas_reads_with_it(self, url: str) -> None:
        pandas = pytest.importorskip("pandas")
        storage = SQLStorage(url)
        storage.save_conversations(conversations({"n": 1}, {"n": 2}))
        frame = pandas.read_sql("SELECT content FROM messages WHERE role = 'user'", storage.engine)
        assert list(frame["content"]) == ["0", "1"]


class TestTakingTurns:
    def test_no_lock_is_held_between_calls(self, url: str, path: Path) -> None:
        storage = SQLStorage(url)
        storage.save_conversations(conversations({"n": 1}, {"n": 2}))
        assert count_in_another_process(path) == 2
        storage.load_conversations(filters={"metadata.n": 1}, order_by=[("metadata.n", 1)])
        storage.count_conversations()
        list(storage.iter_conversations(batch_size=1))
        storage.scan_conversations().read_all()
        assert count_in_another_process(path) == 2
        storage.save_conversations([conversation("2")])
        assert count_in_another_process(path) == 3

    def test_no_lock_is_held_after_a_dropped_iterator_or_scan(self, url: str, path: Path) -> None:
        storage = SQLStorage(url)
        storage.save_conversations(conversations(*({"n": n} for n in range(10))))
        records = storage.iter_conversations(batch_size=1)
        next(records)
        del records
        assert count_in_another_process(path) == 10
        with storage.scan_conversations() as reader:
            reader.read_next_batch()
        del reader
        assert count_in_another_process(path) == 10

    def test_no_lock_is_held_after_an_error(self, url: str, path: Path) -> None:
        storage = SQLStorage(url)
        storage.save_conversations([conversation()])
        with pytest.raises(ValueError, match="persna"):
            storage.load_conversations(filters={"persna": 1})
        with pytest.raises(ValueError, match=r"(?i)surrogate|utf-8"):
            storage.save_conversations([conversation("\ud800")])
        assert count_in_another_process(path) == 1

    def test_a_notebook_may_keep_the_file_open_in_this_process(self, url: str, path: Path) -> None:
        with duckdb.connect(str(path)) as notebook:
            storage = SQLStorage(url)
            storage.save_conversations([conversation("a")])
            query = "SELECT content FROM messages WHERE role = 'user'"
            assert notebook.execute(query).fetchall() == [("a",)]
            notebook.execute("CREATE TABLE mine AS SELECT 1 AS one")
            storage.save_conversations([conversation("b")])
            assert notebook.execute(query).fetchall() == [("a",), ("b",)]
            assert firsts(storage.load_conversations()) == ["a", "b"]
        assert firsts(storage.load_conversations()) == ["a", "b"]

    def test_a_notebook_may_open_it_while_an_iterator_runs(self, url: str, path: Path) -> None:
        storage = SQLStorage(url)
        storage.save_conversations(conversations({"n": 1}, {"n": 2}))
        records = storage.iter_conversations(batch_size=1)
        next(records)
        assert rows(path, "SELECT count(*) FROM conversations") == [(2,)]
        assert firsts(list(records)) == ["1"]
