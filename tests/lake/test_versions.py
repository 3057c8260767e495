"""Versions of a lake, and the merging of its small files."""

from __future__ import annotations

import datetime as dt
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from afterimage.storage import InvalidQueryError, SQLStorage
from tests.lake.test_lost_connections import batch, stored
from tests.lake.test_writers import assert_whole, ids, save_for
from tests.support.processes import child, told_by


@pytest.fixture(params=["file", "server"])
def lake(request: pytest.FixtureRequest) -> str:
    """The URL of a lake of either kind."""
    name = "file_url" if request.param == "file" else "url"
    return str(request.getfixturevalue(name))


class TestVersions:
    def test_each_save_makes_a_version_that_can_be_opened(self, lake: str) -> None:
        storage = SQLStorage(lake)
        storage.save_conversations(batch("a"))
        first = storage.snapshots()[-1]
        storage.save_conversations(batch("b"))
        assert storage.snapshots()[-1].version == first.version + 1
        assert first.message == "save"
        assert abs(first.time - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=10)
        earlier = SQLStorage(lake, at=first.version)
        assert stored(earlier) == [("a", row) for row in range(3)]
        assert earlier.count_conversations() == 3
        assert SQLStorage(lake, at=dt.datetime.now(dt.UTC)).count_conversations() == 6
        assert storage.count_conversations() == 6

    def test_a_version_is_only_read(self, lake: str) -> None:
        storage = SQLStorage(lake)
        storage.save_conversations(batch("a"))
        at = SQLStorage(lake, at=storage.snapshots()[-1].version)
        with pytest.raises(InvalidQueryError, match="only read"):
            at.save_conversations(batch("b"))
        assert storage.count_conversations() == 3

    @pytest.mark.parametrize("at", [-1, True, "1", dt.datetime(2026, 1, 1)])  # noqa: DTZ001
    def test_a_version_is_a_number_or_a_time_with_a_zone(self, file_url: str, at: object) -> None:
        with pytest.raises(InvalidQueryError, match="at must be a version"):
            SQLStorage(file_url, at=at)  # type: ignore[arg-type]

    def test_a_version_that_is_not_there_is_an_error(self, lake: str) -> None:
        SQLStorage(lake).save_conversations(batch("a"))
        with pytest.raises(InvalidQueryError, match="has no version"):
            SQLStorage(lake, at=10_000)

    def test_only_lakes_have_versions(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidQueryError, match="only lakes have versions"):
            SQLStorage(tmp_path / "a.duckdb", at=1)
        assert SQLStorage(tmp_path / "a.duckdb").snapshots() == []


class TestCompaction:
    def test_it_merges_files_and_keeps_ids_and_order(self, lake: str, tmp_path: Path) -> None:
        storage = SQLStorage(lake)
        for number in range(8):
            storage.save_conversations(batch(str(number)))
        before, rows = sorted(ids(storage)), stored(storage)
        storage.compact()
        assert (sorted(ids(storage)), stored(storage)) == (before, rows)
        with storage.engine.connect() as connection:
            files = "FROM ducklake_list_files('lake', 'conversations_rows')"
            assert len(connection.exec_driver_sql(files).all()) == 1

    @pytest.mark.process
    def test_writers_beside_it_lose_nothing(self, url: str) -> None:
        storage = SQLStorage(url)
        storage.save_conversations(batch("first"))
        with ExitStack() as stack:
            running = [
                stack.enter_context(child(save_for, url, str(number), 3.0, 3))
                for number in range(2)
            ]
            end = time.monotonic() + 3
            while time.monotonic() < end:
                storage.compact()
            saved = [name for process, pipe in running for name in told_by(process, pipe)]
        assert sorted(assert_whole(storage, ["first", *saved], 3)) == sorted(["first", *saved])
