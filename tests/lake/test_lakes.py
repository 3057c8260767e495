"""Lakes: what a URL names, when a lake is made, and what of its URL is shown."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    Conversation,
    DatabaseError,
    MissingFileError,
    SQLStorage,
    StorageError,
    UnsupportedURLError,
)
from afterimage.storage.engine.lake.address import LakeAddress
from tests.lake.test_lost_connections import batch, stored
from tests.support.postgres import Server

PASSWORD = "s3cret"


@pytest.fixture(params=["file", "server"])
def lake(request: pytest.FixtureRequest) -> str:
    """The URL of a lake of either kind."""
    name = "file_url" if request.param == "file" else "url"
    return str(request.getfixturevalue(name))


class TestAddresses:
    @pytest.mark.parametrize(
        ("url", "fault"),
        [
            ("ducklake+mysql://h/db", "in PostgreSQL or in a file"),
            ("ducklake+postgresql://h", "does not name a database"),
            ("ducklake://", "does not name the file"),
            ("ducklake://host/lake.ducklake", "does not name the file"),
            ("ducklake:///lake.ducklake?metadata_schema=a", "'metadata_schema' is not supported"),
            ("ducklake+postgresql://h/db?datapath=/d", "'datapath' is not supported"),
            (f"ducklake+postgresql://me:{PASSWORD}@h:x/db", "cannot be read"),
        ],
    )
    def test_a_url_that_is_not_understood_is_an_error(self, url: str, fault: str) -> None:
        with pytest.raises(UnsupportedURLError, match=fault) as caught:
            SQLStorage(url)
        assert PASSWORD not in str(caught.value)

    def test_the_password_is_not_shown(self) -> None:
        address = LakeAddress.of(f"ducklake+postgresql://me:{PASSWORD}@h/db?metadata_schema=a")
        assert PASSWORD not in repr(address) + address.display_name
        assert address.display_name == "ducklake+postgresql://me:***@h/db?metadata_schema=a"

    def test_a_relative_data_path_is_one_of_the_working_folder(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert LakeAddress.of("ducklake:///a?data_path=d").data_path == str(tmp_path / "d")
        assert LakeAddress.of("ducklake:///a?data_path=s3://b/d").data_path == "s3://b/d"


class TestOpening:
    def test_a_lake_is_made_by_the_first_save(self, lake: str, tmp_path: Path) -> None:
        storage = SQLStorage(lake)
        assert storage.load_conversations() == []
        assert not (tmp_path / "data").exists()
        with pytest.raises(MissingFileError):
            SQLStorage(lake, create=False)
        storage.save_conversations(batch("a"))
        assert SQLStorage(lake, create=False).count_conversations() == 3

    def test_the_catalog_knows_the_data_path(self, lake: str, tmp_path: Path) -> None:
        SQLStorage(lake).save_conversations(batch("a"))
        without = lake.replace(f"&data_path={tmp_path / 'data'}", "").partition("?data_path")[0]
        assert SQLStorage(without).count_conversations() == 3
        sign = "&" if "?" in without else "?"
        with pytest.raises(DatabaseError, match="has its data in"):
            SQLStorage(f"{without}{sign}data_path={tmp_path / 'other'}")

    def test_a_new_lake_on_a_server_needs_a_data_path(self, server: Server) -> None:
        storage = SQLStorage(server.url(None))
        with pytest.raises(DatabaseError, match=r"Add \?data_path="):
            storage.save_conversations(batch("a"))

    def test_a_file_of_another_kind_is_refused(self, file_url: str, tmp_path: Path) -> None:
        SQLStorage(f"duckdb:///{tmp_path / 'talks.ducklake'}").save_conversations(batch("a"))
        with pytest.raises(DatabaseError, match="not the catalog of a lake"):
            SQLStorage(file_url)

    def test_a_folder_that_does_not_exist_is_an_error(self, file_url: str) -> None:
        with pytest.raises(MissingFileError, match="does not exist"):
            SQLStorage(file_url.replace("talks.", "missing/talks.")).save_conversations(batch("a"))

    def test_several_stores_of_different_tables_share_a_lake(self, lake: str) -> None:
        first = SQLStorage(lake)
        second = SQLStorage(lake, "others", "other_documents", metadata_fields=["batch"])
        first.save_conversations(batch("a"))
        second.save_conversations(batch("b"))
        assert stored(first) == [("a", row) for row in range(3)]
        assert stored(second) == [("b", row) for row in range(3)]

    def test_two_storages_of_one_process_see_each_other(self, lake: str) -> None:
        first, second = SQLStorage(lake), SQLStorage(lake)
        first.save_conversations(batch("a"))
        second.save_conversations(batch("b"))
        assert first.count_conversations() == second.count_conversations() == 6

    def test_new_columns_are_filled(self, lake: str) -> None:
        SQLStorage(lake).save_conversations(batch("a"))
        storage = SQLStorage(lake, metadata_fields=["batch", "rowid", "k.l"])
        storage.save_conversations(batch("b"))
        assert storage.count_conversations({"metadata.batch": "a"}) == 3
        assert storage.verify().ok
        with storage.engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT batch, count(*) FROM conversations GROUP BY 1"
            )
            assert sorted(found.all()) == [("a", 3), ("b", 3)]

    def test_a_number_that_is_none_can_be_saved_and_read(self, lake: str) -> None:
        storage = SQLStorage(lake)
        talk = Conversation(
            conversations=[{"role": "user", "content": "x"}],
            metadata={"score": math.nan, "far": math.inf},
        )
        storage.save_conversations([talk])
        assert math.isnan(storage.load_conversations()[0].metadata["score"])


class TestCopies:
    def test_a_copy_opens_the_same_lake(self, lake: str) -> None:
        storage = SQLStorage(lake)
        storage.save_conversations(batch("a"))
        copy = pickle.loads(pickle.dumps(storage))
        copy.save_conversations(batch("b"))
        assert storage.count_conversations() == 6

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    @pytest.mark.process
    def test_a_forked_process_uses_a_connection_of_its_own(self, lake: str) -> None:
        storage = SQLStorage(lake)
        storage.save_conversations(batch("parent"))
        process = os.fork()
        if process == 0:
            try:
                storage.save_conversations(batch("child"))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        assert os.waitpid(process, 0)[1] == 0
        storage.save_conversations(batch("again"))
        assert [name for name, _ in stored(storage)][::3] == ["parent", "child", "again"]


class TestSecrets:
    def test_no_error_list_or_repr_has_the_password(self, url: str, server: Server) -> None:
        storage = SQLStorage(url, lock_timeout=0.3)
        storage.save_conversations(batch("a"))
        shown = [repr(storage), storage.verify().__repr__(), str(storage.verify())]
        with storage.engine.connect() as connection:
            shown += [
                str(connection.exec_driver_sql(f"FROM {listing}()").all())
                for listing in ("duckdb_databases", "duckdb_secrets", "duckdb_settings")
            ]
        for port in (1, server.port):
            wrong = url.replace(f":{server.port}/", f":{port}/").replace("/postgres?", "/none?")
            with pytest.raises(StorageError) as caught:
                SQLStorage(wrong, lock_timeout=0.3).count_conversations()
            error: Any = caught.value
            shown += traceback.format_exception(error)
        assert [text for text in shown if PASSWORD in text] == []


class TestInstallation:
    def test_a_lake_is_not_loaded_without_its_url(self) -> None:
        code = (
            "import sys, afterimage.storage as s\n"
            "s.SQLStorage('duckdb:///:memory:').count_conversations()\n"
            "print([name for name in sys.modules if 'engine.lake' in name])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert done.stdout.strip() == "[]"

    def test_an_extension_that_is_missing_is_an_error_that_says_how_to_install_it(
        self, tmp_path: Path
    ) -> None:
        import duckdb

        from afterimage.storage.engine.lake.extensions import load_extension

        with duckdb.connect(":memory:") as connection:
            connection.execute(f"SET extension_directory = '{tmp_path}'")
            with pytest.raises(DatabaseError, match=r"pip install 'afterimage-storage\[lake\]'"):
                load_extension(connection, "not_there")


class TestCommandLine:
    def test_it_reads_and_writes_a_lake_and_hides_the_password(
        self, url: str, tmp_path: Path
    ) -> None:
        from tests.cli.conftest import attempt

        lines = tmp_path / "a.jsonl"
        lines.write_text('{"conversations":[{"role":"user","content":"a"}],"metadata":{}}\n')
        done = [
            attempt("import", str(lines), url),
            attempt("head", url),
            attempt("sql", url, "SELECT content FROM messages"),
            attempt("verify", url),
        ]
        assert [each.exit_code for each in done] == [0, 0, 0, 0]
        assert PASSWORD not in "".join(each.output for each in done)
        wrong = attempt("sql", url, "SELECT nothing FROM conversations")
        assert wrong.exit_code != 0
        assert PASSWORD not in wrong.output

    @pytest.mark.parametrize(
        "statement",
        [
            "FROM ducklake_expire_snapshots('lake', older_than => now())",
            "FROM ducklake_delete_orphaned_files('lake', cleanup_all => true)",
            "FROM postgres_execute('afterimage_server', 'CREATE TABLE made (a INT)')",
            "FROM postgres_execute('__ducklake_metadata_lake', 'CREATE TABLE made (a INT)')",
            "FROM ducklake_set_option('lake', 'parquet_version', '2')",
            "FROM read_text('/etc/hostname')",
        ],
    )
    def test_sql_changes_no_lake(self, url: str, statement: str) -> None:
        from tests.cli.conftest import attempt

        storage = SQLStorage(url)
        storage.save_conversations(batch("a"))
        versions = storage.snapshots()
        assert attempt("sql", url, statement).exit_code != 0
        assert storage.snapshots() == versions
        assert storage.count_conversations() == 3
