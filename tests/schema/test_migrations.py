"""A database with an older layout is upgraded in one transaction; a newer one is rejected."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from afterimage.storage import SchemaMismatchError, SQLStorage
from afterimage.storage.tables.schema import layout, migrations
from tests.support.data import make_version_1 as version_1
from tests.support.plain_python import same
from tests.support.processes import child
from tests.support.records import (
    Note,
    OpenConversation,
    RatedConversation,
    StructuredRow,
    TaggedDocument,
    TracedConversation,
    conversation,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the database that the first version wrote."""
    path = tmp_path / "store.duckdb"
    path.write_bytes(gzip.decompress(version_1.DATABASE.read_bytes()))
    return path


def opened(path: Path) -> SQLStorage:
    return SQLStorage(f"duckdb:///{path}")


def layouts(path: Path) -> set[int]:
    with duckdb.connect(str(path)) as connection:
        return {
            row[0] for row in connection.sql("SELECT version FROM afterimage_schema").fetchall()
        }


def columns(path: Path) -> list[str]:
    with duckdb.connect(str(path)) as connection:
        return [row[0] for row in connection.sql("DESCRIBE conversations").fetchall()]


def set_layout(path: Path, version: int) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE afterimage_schema SET version = ?", [version])


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_whole(storage: SQLStorage, folder: Path) -> None:
    """Check everything that the first version saved, through every kind of read."""
    expected = json.loads(version_1.EXPECTED.read_text("utf-8"))
    for kind, records in expected.items():
        out = folder / f"{kind}.jsonl"
        storage.export_jsonl(out, kind=kind)
        lines = [json.loads(line) for line in out.read_bytes().split(b"\n")[:-1]]
        assert same(lines, records), kind
    assert storage.count_conversations() == len(expected["conversations"])
    assert same(
        version_1.as_json(storage.load_documents()),
        [{k: v for k, v in each.items() if k != "tags"} for each in expected["documents"]],
    )
    for model in (RatedConversation, TracedConversation, OpenConversation):
        own = [r for r in version_1.CONVERSATIONS if type(r) is model]
        assert all(any(same(each, r) for r in storage.load_records(model)) for each in own), model
    assert storage.load_records(Note) == [version_1.OTHERS[0]]
    assert storage.load_records(StructuredRow) == [version_1.OTHERS[1]]
    assert isinstance(version_1.DOCUMENTS[2], TaggedDocument)
    assert storage.count_conversations({"metadata.domain": "Trains"}) == 1
    assert storage.count_conversations({"metadata.Domain": 3}) == 1
    assert storage.count_conversations({'metadata."k.l"': [None]}) == 1


class TestTheFirstLayout:
    def test_opens_with_all_records(self, path: Path, tmp_path: Path) -> None:
        assert_whole(opened(path), tmp_path)
        assert layouts(path) == {layout.SCHEMA_VERSION}

    def test_accepts_more_records(self, path: Path, tmp_path: Path) -> None:
        storage = opened(path)
        before = storage.count_conversations()
        storage.save_conversations([conversation(metadata={"domain": "Trains"})])
        assert storage.count_conversations({"metadata.domain": "Trains"}) == 2
        assert storage.count_conversations() == before + 1

    def test_the_file_is_small(self) -> None:
        assert version_1.DATABASE.stat().st_size < 2_000_000

    def test_there_is_a_step_from_every_layout(self) -> None:
        assert sorted(migrations.MIGRATIONS) == list(range(1, layout.SCHEMA_VERSION))


def add_mood(connection: sa.Connection, kind: str, table: str) -> None:
    """A step that no release has: a new column, filled for existing rows."""
    if kind == "conversations":
        connection.execute(sa.text(f'ALTER TABLE "{table}" ADD COLUMN mood VARCHAR'))
        connection.execute(sa.text(f"UPDATE \"{table}\" SET mood = 'mood ' || id"))


@pytest.fixture
def next_layout(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str]]]:
    """Make the package write the next layout; returns the list of the steps that were taken."""

    def register(step: migrations.Migration) -> list[tuple[str, str]]:
        taken = []

        def noted(connection: sa.Connection, kind: str, table: str) -> None:
            taken.append((kind, table))
            step(connection, kind, table)

        monkeypatch.setitem(migrations.MIGRATIONS, layout.SCHEMA_VERSION, noted)
        monkeypatch.setattr(layout, "SCHEMA_VERSION", layout.SCHEMA_VERSION + 1)
        return taken

    return register


def die_half_way(pipe: Connection, path: Path) -> None:
    """Upgrade one table, and wait to be killed before the next one."""

    def step(connection: sa.Connection, kind: str, table: str) -> None:
        if kind != "conversations":
            pipe.send("half-way")
            pipe.recv()
        add_mood(connection, kind, table)

    migrations.MIGRATIONS[layout.SCHEMA_VERSION] = step
    layout.SCHEMA_VERSION += 1  # type: ignore[misc]
    opened(path)


class TestUpgrades:
    def test_each_table_is_upgraded_once(
        self, path: Path, tmp_path: Path, next_layout: Any
    ) -> None:
        taken = next_layout(add_mood)
        storage = opened(path)
        assert sorted(taken) == [(n, n) for n in ("conversations", "documents", "records")]
        assert layouts(path) == {layout.SCHEMA_VERSION}
        with duckdb.connect(str(path)) as connection:
            moods = connection.sql("SELECT DISTINCT mood = 'mood ' || id FROM conversations")
            assert moods.fetchall() == [(True,)]
        assert_whole(storage, tmp_path)
        opened(path)
        assert len(taken) == 3

    def test_one_that_fails_changes_nothing(
        self, path: Path, tmp_path: Path, next_layout: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = columns(path)

        def fail(connection: sa.Connection, kind: str, table: str) -> None:
            add_mood(connection, kind, table)
            if kind == "records":
                raise ZeroDivisionError

        with monkeypatch.context():
            taken = next_layout(fail)
            with pytest.raises(ZeroDivisionError):
                opened(path)
        assert ("conversations", "conversations") in taken
        monkeypatch.undo()
        assert layouts(path) == {1}
        assert columns(path) == before
        assert_whole(opened(path), tmp_path)

    def test_one_that_is_killed_changes_nothing(
        self, path: Path, tmp_path: Path, next_layout: Any
    ) -> None:
        before = columns(path)
        with child(die_half_way, path) as (_, pipe):
            assert pipe.recv() == "half-way"
        assert columns(path) == before
        assert layouts(path) == {1}
        assert_whole(opened(path), tmp_path)
        next_layout(add_mood)
        assert_whole(opened(path), tmp_path)
        assert layouts(path) == {layout.SCHEMA_VERSION}

    def test_a_layout_without_a_step_is_rejected(self, path: Path) -> None:
        set_layout(path, 0)
        before = fingerprint(path)
        with pytest.raises(SchemaMismatchError, match="cannot upgrade"):
            opened(path)
        assert fingerprint(path) == before

    def test_two_storages_may_share_a_table(self, path: Path, next_layout: Any) -> None:
        SQLStorage(f"duckdb:///{path}", conversations_table_name="others")
        taken = next_layout(add_mood)
        SQLStorage(f"duckdb:///{path}", conversations_table_name="others")
        assert ("conversations", "conversations") not in taken
        opened(path)
        assert sorted(taken) == sorted(set(taken))  # the shared documents are upgraded once
        assert len(taken) == 5


class TestNewerLayouts:
    def test_they_are_rejected_and_unchanged(self, path: Path) -> None:
        set_layout(path, layout.SCHEMA_VERSION + 1)
        before = fingerprint(path)
        with pytest.raises(SchemaMismatchError, match="newer") as caught:
            SQLStorage(f"duckdb:///{path}", metadata_fields=["another"])
        assert len(str(caught.value)) < 300
        assert fingerprint(path) == before

    def test_a_newer_layout_with_other_tables_is_rejected(self, path: Path) -> None:
        set_layout(path, layout.SCHEMA_VERSION + 1)
        with duckdb.connect(str(path)) as connection:
            connection.execute("DROP VIEW messages; ALTER TABLE conversations DROP COLUMN extra")
        before = fingerprint(path)
        with pytest.raises(SchemaMismatchError, match="newer"):
            opened(path)
        assert fingerprint(path) == before

    def test_an_open_storage_cannot_save_after_another_one_upgraded(self, path: Path) -> None:
        storage = opened(path)
        set_layout(path, layout.SCHEMA_VERSION + 1)
        before = fingerprint(path)
        with pytest.raises(SchemaMismatchError, match="newer"):
            storage.save_conversations([conversation()])
        assert fingerprint(path) == before
