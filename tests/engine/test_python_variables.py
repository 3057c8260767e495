"""Names of tables are looked up in the database only: never Python variables, never files."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa

from afterimage.storage import Document, SchemaMismatchError, SQLStorage
from tests.support.records import conversations


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"duckdb:///{tmp_path / 'a.duckdb'}" if request.param == "file" else "duckdb:///:memory:"


@pytest.mark.parametrize("name", ["keys", "store", "connection", "self", "table", "other"])
def test_a_table_with_the_name_of_a_variable_is_a_table(url: str, name: str) -> None:
    keys = store = connection = other = pa.table({"id": [1]})
    SQLStorage(url).save_documents([Document()])  # the file exists
    storage = SQLStorage(url, name, f"{name}_documents", ["n"])
    storage.save_conversations(conversations({"n": 1}))
    assert storage.count_conversations({"metadata.n": 1}) == 1
    assert storage.verify().conversations == 1
    assert keys.num_rows + store.num_rows + connection.num_rows + other.num_rows == 4


def test_a_table_with_the_name_of_a_file_is_a_table(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("id,conversations\n1,2\n")
    (tmp_path / "d.json").write_text('{"id": 1}\n')
    SQLStorage(url).save_documents([Document()])
    storage = SQLStorage(url, "a.csv", "d.json")
    storage.save_conversations(conversations({"n": 1}))
    storage.save_documents([Document(id="a")])
    assert storage.count_conversations({"metadata.n": 1}) == 1
    assert [each.id for each in storage.load_documents()] == ["a"]
    assert (tmp_path / "a.csv").read_text() == "id,conversations\n1,2\n"


def test_a_file_is_not_taken_for_the_tables_of_an_existing_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("id\n1\n")
    url = f"duckdb:///{tmp_path / 'a.duckdb'}"
    SQLStorage(url).save_documents([Document()])
    with pytest.raises(SchemaMismatchError, match="no storage tables"):
        SQLStorage(url, "a.csv", create=False)


def test_sql_of_the_engine_does_not_read_variables(url: str) -> None:
    frame = pa.table({"id": [1]})
    with SQLStorage(url).engine.connect() as connection, pytest.raises(sa.exc.ProgrammingError):
        connection.exec_driver_sql("FROM frame")
    assert frame.num_rows == 1


def test_connections_of_other_code_keep_their_setting(tmp_path: Path) -> None:
    frame = pa.table({"id": [1]})
    storage = SQLStorage(f"duckdb:///{tmp_path / 'a.duckdb'}")
    storage.save_documents([Document()])
    with duckdb.connect(str(tmp_path / "a.duckdb")) as own:
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("FROM documents").all()
        assert storage.count_documents() == 1
        assert own.execute("FROM frame").fetchall() == [(1,)]
    assert frame.num_rows == 1
