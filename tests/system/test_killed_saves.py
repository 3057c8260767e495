"""A process is killed while it saves: returned saves are stored, others completely or not."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import (
    KINDS,
    LONG,
    add_metadata_fields,
    broken_batches,
    child,
    duckdb_cli,
    opened,
    received,
    save_batches,
)
from tests.support.records import conversation

KILLS = 24 * LONG
SEED = int(os.environ.get("AFTERIMAGE_SEED", "4"))

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX"),
    pytest.mark.filterwarnings(
        "ignore:.*(ended in a|a save that was killed)"
    ),  # the truncated bytes that are kept
]


def metadata_by_cli(folder: Path) -> list[dict[str, Any]] | None:
    cli = duckdb_cli()
    if cli is None:
        return None
    query = (
        "SELECT (metadata->>'batch')::INT AS batch, (metadata->>'at')::INT AS at, "
        "(metadata->>'of')::INT AS of FROM conversations ORDER BY id"
    )
    command = [cli, "-json", str(folder / "store.duckdb"), "-c", query]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    # Without any row, the CLI prints `[{]`.
    return json.loads(done.stdout) if '"batch"' in done.stdout else []


def metadata_by_us(kind: str, folder: Path) -> list[dict[str, Any]]:
    return [record.metadata for record in opened(kind, folder).iter_conversations()]


@pytest.mark.slow
class TestKilledAtRandomMoments:
    @pytest.mark.process
    @pytest.mark.parametrize("kind", KINDS)
    def test_saved_batches_are_stored_once_and_others_completely_or_not_at_all(
        self, tmp_path: Path, kind: str
    ) -> None:
        rng = random.Random(SEED)
        folder = tmp_path / "0"
        folder.mkdir()
        returned: list[int] = []
        for kill in range(KILLS):
            if kill % 8 == 7:  # keeps the files small, and tests new files too
                folder, returned = tmp_path / str(kill), []
                folder.mkdir()
            with child(save_batches, kind, folder, 1000 * kill, SEED) as (process, pipe):
                assert pipe.recv() == "ready"
                if (
                    kill % 4
                ):  # every fourth process is killed while it opens the storage, or soon after
                    returned.append(pipe.recv())
                time.sleep(rng.uniform(0, 0.15))
                process.kill()
                process.join()
                returned += received(pipe)
            # The command line reads first, so that it gets the file as the kill left it.
            if kind == "sql" and (folder / "store.duckdb").exists() and returned:
                shown = metadata_by_cli(folder)
                if shown is not None:
                    assert broken_batches(shown) == []
                    assert set(returned) <= {each["batch"] for each in shown}
            found = metadata_by_us(kind, folder)
            assert broken_batches(found) == [], f"kill {kill}"
            batches = list(dict.fromkeys(each["batch"] for each in found))
            # A save that was killed just before it returned may be stored completely.
            assert set(returned) <= set(batches), f"kill {kill}"
            assert len(set(batches) - set(returned)) <= kill % 8 + 1
            returned = batches

    def test_the_part_of_a_killed_save_is_moved_to_a_side_file(self, tmp_path: Path) -> None:
        storage = opened("jsonl", tmp_path)
        storage.save_conversations([conversation("before")])
        path = tmp_path / "talks.jsonl"
        before = path.read_bytes()
        part = (conversation("a").model_dump_json() + "\n").encode()
        # The state after a kill during a save of three records: two are written.
        path.with_name("talks.jsonl.saving").write_bytes(
            b"%d %d\n" % (len(before), 3 * len(part)) + part * 3
        )
        path.write_bytes(before + part * 2)
        assert storage.count_conversations() == 1
        with pytest.warns(UserWarning, match="a save that was killed"):
            storage.save_conversations([conversation("after")])
        assert path.with_name(f"talks.jsonl.torn-{len(before)}").read_bytes() == part * 2
        assert [r.conversations[0].content for r in storage.load_conversations()] == [
            "before",
            "after",
        ]
        assert not path.with_name("talks.jsonl.saving").exists()

    @pytest.mark.parametrize(
        "mark",
        [
            b"",
            b"1",
            b"0 99999\nanother text",
            b"100000 10\n",
            b"%(size)d 500\n{",
            b"0 99999\n",
            b"-5 99999\n{",
            b"2 99999\nconversations",
        ],
        ids=[
            "empty",
            "cut off",
            "another text",
            "beyond the end",
            "of nothing written",
            "without the beginning",
            "before the file",
            "inside a line",
        ],
    )
    def test_a_journal_that_does_not_match_the_file_is_ignored(
        self, tmp_path: Path, mark: bytes
    ) -> None:
        storage = opened("jsonl", tmp_path)
        storage.save_conversations([conversation("a"), conversation("b")])
        size = (tmp_path / "talks.jsonl").stat().st_size
        (tmp_path / "talks.jsonl.saving").write_bytes(mark.replace(b"%(size)d", b"%d" % size))
        assert storage.count_conversations() == 2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            storage.save_conversations([conversation("c")])
        assert storage.count_conversations() == 3
        assert sorted(each.name for each in tmp_path.iterdir()) == [
            "talks.jsonl",
            "talks.jsonl.lock",
        ]


class TestPowerCuts:
    """A test cannot cut the power, but it can check that a call syncs before it returns."""

    @pytest.fixture
    def synced(self, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], int]:
        """The number of synced bytes of each file, by device and inode."""
        sizes = {}
        fsync = os.fsync

        def noted(handle: int) -> None:
            fsync(handle)
            found = os.fstat(handle)
            sizes[found.st_dev, found.st_ino] = found.st_size

        monkeypatch.setattr(os, "fsync", noted)
        return sizes

    def test_appends_are_synced(self, tmp_path: Path, synced: dict[Any, int]) -> None:
        storage = opened("jsonl", tmp_path)
        batches: tuple[list[Any], ...] = ([conversation()], [conversation()] * 50)
        for records in batches:
            storage.save_conversations(records)
            found = (tmp_path / "talks.jsonl").stat()
            assert synced[found.st_dev, found.st_ino] == found.st_size
            assert (tmp_path.stat().st_dev, tmp_path.stat().st_ino) in synced  # its directory entry

    @pytest.mark.parametrize("kind", KINDS)
    def test_exports_are_synced(self, tmp_path: Path, kind: str, synced: dict[Any, int]) -> None:
        storage = opened(kind, tmp_path)
        storage.save_conversations([conversation(metadata={"n": 1})] * 50)
        (tmp_path / "out").mkdir()
        storage.export_jsonl(tmp_path / "out" / "a.jsonl")
        storage.export_jsonl(tmp_path / "out" / "a.jsonl.gz")
        storage.export_parquet(tmp_path / "out" / "a.parquet")
        storage.export_parquet(tmp_path / "out" / "a", partition_by=["metadata.n"])
        for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]:
            found = path.stat()
            assert (found.st_dev, found.st_ino) in synced, path
            if path.is_file():
                assert synced[found.st_dev, found.st_ino] == found.st_size, path


@pytest.mark.process
class TestKilledAfterAChangeOfTheSchema:
    """The new columns are in the write-ahead log only: DuckDB must replay them before the rows."""

    def test_columns_and_rows_are_stored(self, tmp_path: Path) -> None:
        storage = opened("sql", tmp_path)
        storage.save_conversations([conversation(metadata={"batch": -1, "at": 0, "of": 1})])
        keys: list[str] = []
        expected = {-1: None}
        rng = random.Random(SEED)
        for kill in range(5 * LONG):
            keys.append(f"key {kill}")
            with child(add_metadata_fields, "sql", tmp_path, keys, kill * 1000) as (process, pipe):
                first = pipe.recv()
                time.sleep(rng.uniform(0, 0.05))
                process.kill()
                process.join()
                returned = [first, *received(pipe)]
            if kill % 2:
                shown = metadata_by_cli(tmp_path)
                assert shown is None or broken_batches(shown) == []
            found = {
                record.metadata["batch"]: record.metadata.get(keys[-1])
                for record in opened("sql", tmp_path).load_conversations()
            }
            expected |= {number: f"v{number}" for number in returned}
            again = opened("sql", tmp_path, metadata_fields=keys)
            for number in returned:
                assert found[number] == expected[number]
                assert again.count_conversations({f"metadata.{keys[-1]}": f"v{number}"}) == 1
            assert set(expected) <= set(found)
            assert len(found) <= len(expected) + kill + 1
