"""Tables that were changed with SQL: named with the remedy on opening, or repaired without loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from afterimage.storage import (
    DatabaseError,
    Document,
    SchemaMismatchError,
    SQLStorage,
    StorageError,
)
from tests.support.records import conversations


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.duckdb"
    store = SQLStorage(path, metadata_fields=["domain", "n"])
    store.save_conversations(conversations({"domain": "a", "n": 1}, {"domain": "b", "n": 2}))
    store.save_documents([Document(id="a")])
    return path


def run(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)


def use(store: SQLStorage) -> None:
    """Everything works, and filters find what was saved before and now."""
    before = store.count_conversations()
    store.save_conversations(conversations({"domain": "b", "n": 3}))
    store.save_documents([Document()])
    assert len(store.load_conversations()) == before + 1
    for n in range(1, 4):
        every = [each for each in store.load_conversations() if each.metadata["n"] == n]
        assert store.load_conversations(filters={"metadata.n": n}) == every
    b = [each for each in store.load_conversations() if each.metadata["domain"] == "b"]
    found = store.load_conversations(filters={"metadata.domain": "b"}, order_by=[("id", 1)])
    assert found == b
    report = store.verify()
    assert report.ok, str(report)
    assert report.conversations == before + 1


def assert_named(error: pytest.ExceptionInfo[Any], *words: str) -> None:
    message = str(error.value)
    assert all(word in message for word in words), message
    assert len(message) < 600
    assert "Binder Error" not in message
    assert "Catalog Error" not in message


NAMED: dict[str, tuple[list[str], list[str]]] = {
    "a renamed table": (
        ["DROP VIEW messages", "ALTER TABLE conversations RENAME TO talks"],
        ["'conversations' is missing", "'talks'", "rename it back"],
    ),
    "renamed documents": (
        ["ALTER TABLE documents RENAME TO texts"],
        ["'documents' is missing", "'texts'"],
    ),
    "a view in place of a table": (
        [
            "DROP VIEW messages",
            "ALTER TABLE conversations RENAME TO talks",
            "CREATE VIEW conversations AS FROM talks",
        ],
        ["'conversations' is a view", "rename the table back"],
    ),
    "a view in place of the documents": (
        ["ALTER TABLE documents RENAME TO texts", "CREATE VIEW documents AS FROM texts"],
        ["'documents' is a view"],
    ),
    "a renamed column": (
        ["DROP VIEW messages", "ALTER TABLE conversations RENAME persona TO who"],
        ["'conversations'", "'persona'", "undo"],
    ),
    "a dropped column": (
        ["ALTER TABLE documents DROP COLUMN personas"],
        ["'documents'", "'personas'"],
    ),
    "a view of messages that cannot be read": (
        [
            "CREATE OR REPLACE TABLE mine (a INTEGER)",
            "CREATE OR REPLACE VIEW messages AS SELECT a FROM mine",
            "DROP TABLE mine",
        ],
        ["view 'messages' cannot be read"],
    ),
    "damaged metadata columns": (
        ['UPDATE afterimage_schema SET metadata_columns = \'{"domain": ["do\''],
        ["afterimage_schema", "metadata_columns", "UPDATE afterimage_schema SET"],
    ),
    "metadata columns of another form": (
        ["UPDATE afterimage_schema SET metadata_columns = '[1, 2]'"],
        ["afterimage_schema", "metadata_columns", "damaged"],
    ),
    "no version": (
        [
            "ALTER TABLE afterimage_schema ALTER version DROP NOT NULL",
            "UPDATE afterimage_schema SET version = NULL",
        ],
        ["afterimage_schema", "version", "damaged"],
    ),
    "a dropped column of the catalogue": (
        ["ALTER TABLE afterimage_schema DROP COLUMN version"],
        ["afterimage_schema", "version", "DROP TABLE afterimage_schema"],
    ),
}


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("change", NAMED)
def test_opening_names_what_was_changed_and_how_to_undo_it(
    path: Path, change: str, create: bool
) -> None:
    statements, words = NAMED[change]
    run(path, *statements)
    before = path.read_bytes()
    with pytest.raises(SchemaMismatchError) as caught:
        SQLStorage(path, create=create)
    if create:  # otherwise it may be enough that a table is missing
        assert_named(caught, *words)
    assert path.read_bytes() == before


CALLS: dict[str, Callable[[SQLStorage], Any]] = {
    "save": lambda store: store.save_conversations(conversations({"n": 1})),
    "save documents": lambda store: store.save_documents([Document()]),
    "load": lambda store: store.load_conversations(),
    "load documents": lambda store: store.load_documents(),
    "filter": lambda store: store.count_conversations({"metadata.n": 1}),
    "stats": lambda store: store.stats(),
    "scan": lambda store: store.scan_conversations().read_all(),
}


@pytest.mark.parametrize("change", NAMED)
def test_an_open_storage_never_gives_the_words_of_the_engine(path: Path, change: str) -> None:
    store = SQLStorage(path)
    run(path, *NAMED[change][0])
    for call in CALLS.values():
        error = _error_of(call, store)
        assert not any(word in error for word in ("Binder", "Catalog", "Error:")), error


def _error_of(call: Callable[[SQLStorage], Any], store: SQLStorage) -> str:
    try:
        call(store)
    except StorageError as error:
        return str(error)
    return ""


REPAIRED: dict[str, list[str]] = {
    "a dropped table": ["DROP TABLE conversations"],
    "a dropped table and its view": ["DROP VIEW messages", "DROP TABLE conversations"],
    "dropped documents": ["DROP TABLE documents"],
    "dropped records of other models": ["DROP TABLE records"],
    "a dropped view": ["DROP VIEW messages"],
    "a dropped catalogue": ["DROP TABLE afterimage_schema"],
    "a deleted row of the catalogue": ["DELETE FROM afterimage_schema WHERE kind = 'documents'"],
    "a dropped metadata column": ['ALTER TABLE conversations DROP COLUMN "domain"'],
    "a dropped type column": ['ALTER TABLE conversations DROP COLUMN "domain_type"'],
    "a renamed metadata column": ['ALTER TABLE conversations RENAME "domain" TO area'],
    "a metadata column of another type": [
        'ALTER TABLE conversations DROP COLUMN "n"',
        'ALTER TABLE conversations ADD COLUMN "n" INTEGER',
    ],
    "all metadata columns": [
        f'ALTER TABLE conversations DROP COLUMN "{name}"'
        for name in ("domain", "domain_type", "n", "n_type")
    ],
}


@pytest.mark.parametrize("fields", [None, ["domain", "n"]], ids=["no fields", "fields"])
@pytest.mark.parametrize("change", REPAIRED)
def test_opening_repairs_where_nothing_can_be_lost(
    path: Path, change: str, fields: list[str] | None
) -> None:
    run(path, *REPAIRED[change])
    use(SQLStorage(path, metadata_fields=fields))
    use(SQLStorage(path))


@pytest.mark.parametrize("change", [each for each in REPAIRED if "metadata column" in each])
def test_a_read_without_permission_to_create_repairs_nothing_and_works(
    path: Path, change: str
) -> None:
    run(path, *REPAIRED[change])
    before = path.read_bytes()
    store = SQLStorage(path, create=False)
    assert store.count_conversations({"metadata.domain": "b"}) == 1
    assert store.count_conversations({"metadata.n": 2}) == 1
    assert path.read_bytes() == before


def test_a_save_after_a_metadata_column_was_dropped_says_what_to_do(path: Path) -> None:
    store = SQLStorage(path)
    run(path, 'ALTER TABLE conversations DROP COLUMN "domain"')
    with pytest.raises(DatabaseError, match="metadata fields were dropped") as caught:
        store.save_conversations(conversations({"domain": "b", "n": 3}))
    assert_named(caught, "Open the storage again")
    use(SQLStorage(path))


class TestSpellings:
    @pytest.mark.parametrize("name", ["Conversations", "CONVERSATIONS"])
    def test_a_table_is_one_table_by_all_its_spellings(self, path: Path, name: str) -> None:
        other = SQLStorage(path, name, "Documents")
        other.save_conversations(conversations({"domain": "b", "n": 3}))
        other.save_documents([Document(id="b")])
        for store in (other, SQLStorage(path)):
            assert store.count_conversations({"metadata.domain": "b"}) == 2
            assert [each.id for each in store.load_documents()] == ["a", "b"]
            assert store.verify().ok
        with duckdb.connect(str(path)) as connection:
            names = connection.execute("SELECT table_name FROM afterimage_schema ORDER BY 1")
            assert names.fetchall() == [("conversations",), ("documents",), ("records",)]

    def test_metadata_fields_are_added_to_the_one_table(self, path: Path) -> None:
        SQLStorage(path, "Conversations", metadata_fields=["domain", "late"])
        store = SQLStorage(path)
        store.save_conversations(conversations({"domain": "b", "late": 1}))
        with duckdb.connect(str(path)) as connection:
            late = connection.execute("SELECT domain, late FROM conversations WHERE id = 3")
            assert late.fetchall() == [("b", "1")]

    def test_a_store_that_an_earlier_version_opened_by_two_spellings(self, path: Path) -> None:
        run(
            path,
            "INSERT INTO afterimage_schema (table_name, kind, version, metadata_columns) "
            "VALUES ('Conversations', 'conversations', 1, '{}')",
        )
        for name in ("Conversations", "conversations"):
            store = SQLStorage(path, name)
            store.save_conversations(conversations({"domain": "b", "n": 3}))
            assert store.verify().ok
        assert store.count_conversations({"metadata.domain": "b"}) == 3

    def test_letters_beyond_ascii_are_not_folded(self, path: Path) -> None:
        upper, lower = SQLStorage(path, "É"), SQLStorage(path, "é")
        upper.save_conversations(conversations({"n": 1}))
        assert (upper.count_conversations(), lower.count_conversations()) == (1, 0)


class TestNumbers:
    @pytest.mark.parametrize("reopen", [False, True])
    def test_a_number_is_not_used_again(self, path: Path, reopen: bool) -> None:
        store = SQLStorage(path)
        store.save_conversations(conversations({"n": 3}))
        for statement in ("DELETE FROM {} WHERE {} > 1", "DELETE FROM {}", "TRUNCATE {}"):
            highest = self.numbers(store)
            with store.engine.begin() as connection:
                connection.exec_driver_sql(statement.format("conversations", "id"))
                connection.exec_driver_sql(statement.format("documents", "_id"))
            if reopen:
                store = SQLStorage(path)
            store.save_conversations(conversations({"n": 4}))
            store.save_documents([Document()])
            assert self.numbers(store) == [highest[0] + 1, highest[1] + 1]

    def numbers(self, store: SQLStorage) -> list[int]:
        conversation = store.scan_conversations(["id"]).read_all()["id"].to_pylist()
        document = store.scan_documents(["_id"]).read_all()["_id"].to_pylist()
        return [conversation[-1], document[-1]]

    def test_a_failed_save_uses_no_number(self, path: Path) -> None:
        store = SQLStorage(path)
        with pytest.raises(StorageError):
            store.save_conversations(conversations({"n": "\ud800"}))
        store.save_conversations(conversations({"n": 3}))
        assert self.numbers(store)[0] == 3

    def test_rows_with_higher_numbers_from_sql_are_followed(self, path: Path) -> None:
        run(path, "UPDATE conversations SET id = 100 WHERE id = 2")
        store = SQLStorage(path)
        store.save_conversations(conversations({"n": 3}))
        assert self.numbers(store)[0] == 101

    def test_a_file_of_an_earlier_version_gets_the_column_with_the_first_save(
        self, path: Path
    ) -> None:
        run(path, "ALTER TABLE afterimage_schema DROP COLUMN next_number")
        before = path.read_bytes()
        store = SQLStorage(path)
        assert store.count_conversations() == 2
        assert path.read_bytes() == before
        store.save_conversations(conversations({"n": 3}))
        run(path, "DELETE FROM conversations WHERE id = 3")
        store.save_conversations(conversations({"n": 4}))
        assert self.numbers(store)[0] == 4
