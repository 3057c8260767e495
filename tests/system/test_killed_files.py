"""A killed import or export is complete or absent, and the next one succeeds."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pydantic_core import from_json

from afterimage.storage import Document
from afterimage.storage.jsonl.lines import read_chunks
from tests.support.processes import KINDS, LONG, call, child, opened, received
from tests.support.records import Line, conversation

RECORDS = 6000
KILLS = 4 * LONG
SEED = int(os.environ.get("AFTERIMAGE_SEED", "4"))

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX"),
    # The truncated bytes that are kept, and that reads leave out before that.
    pytest.mark.filterwarnings("ignore:.*ended in a:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*of a save that was killed:UserWarning"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same records in each kind of storage, with a file `talks.jsonl`."""
    folder = tmp_path_factory.mktemp("source")
    rng = random.Random(SEED)
    records: list[Any] = [
        conversation(rng.randbytes(600).hex(), {"n": n, "domain": "ABC"[n % 3]})
        for n in range(RECORDS)
    ]
    opened("jsonl", folder).save_conversations(records)
    opened("sql", folder).import_jsonl(folder / "talks.jsonl")
    return folder


def is_killed(moment: float, kind: str, folder: Path, *arguments: Any) -> bool:
    """Kill a call after so many seconds; return whether it was still running."""
    with child(call, kind, folder, *arguments) as (process, pipe):
        assert pipe.recv() == "ready"
        time.sleep(moment)
        process.kill()
        process.join()
        return "returned" not in received(pipe)


def duration(kind: str, folder: Path, *arguments: Any) -> float:
    with child(call, kind, folder, *arguments) as (_, pipe):
        assert pipe.recv() == "ready"
        start = time.monotonic()
        assert pipe.recv() == "returned"
        return time.monotonic() - start


def rows(path: Path) -> int:
    """The number of records of an export; raises an error if it is not complete."""
    if path.is_dir():
        return int(ds.dataset(path, partitioning="hive").to_table().num_rows)
    if path.suffix == ".parquet":
        return int(pq.read_table(path).num_rows)
    return sum(len([from_json(text) for text in chunk.texts()]) for chunk in read_chunks(path))


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


EXPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "out.jsonl": ("export_jsonl", {}),
    "out.jsonl.gz": ("export_jsonl", {}),
    "out.jsonl.zst": ("export_jsonl", {}),
    "out.parquet": ("export_parquet", {"row_group_bytes": 500_000}),
    "out": ("export_parquet", {"partition_by": ["metadata.domain"], "row_group_bytes": 100_000}),
}


class TestKilledExports:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=pytest.mark.slow if name.endswith(("gz", "zst")) else ())
            for name in EXPORTS
        ],
    )
    def test_the_target_is_the_old_file_or_missing(
        self, source: Path, tmp_path: Path, name: str, kind: str
    ) -> None:
        method, options = EXPORTS[name]
        path = tmp_path / name
        storage: Any = opened(kind, source)
        longest = duration(kind, source, method, path, options)
        killed = 0
        rng = random.Random(SEED)
        for kill in range(KILLS):
            remove(path)
            has_earlier = kill % 2 == 1 and name != "out"  # no export replaces a folder with files
            if has_earlier:
                getattr(storage, method)(path, limit=7, **options)
            moment = rng.uniform(0, longest)
            before_its_end = is_killed(moment, kind, source, method, path, options)
            killed += before_its_end
            if path.exists():
                assert rows(path) == RECORDS or (before_its_end and rows(path) == 7)
            else:
                assert before_its_end
            assert path.exists() >= has_earlier
        assert killed
        # The unfinished file is next to it under a hidden name.
        remove(path)
        left = {each.name for each in tmp_path.iterdir()}
        assert all(each.startswith(f".{name}.") and each.endswith(".tmp") for each in left)
        assert getattr(storage, method)(path, **options) == RECORDS
        assert rows(path) == RECORDS
        assert {each.name for each in tmp_path.iterdir()} - left == {name}


class TestKilledImports:
    @pytest.mark.filterwarnings("ignore:.*a save that was killed")  # of the part that is kept
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_file_is_imported_completely_or_not_at_all(
        self, source: Path, tmp_path: Path, kind: str
    ) -> None:
        arguments = ("import_jsonl", source / "talks.jsonl")
        (tmp_path / "try").mkdir()
        longest = duration(kind, tmp_path / "try", *arguments)
        storage = opened(kind, tmp_path)
        storage.save_conversations([conversation("first")])
        imports = killed = 0
        rng = random.Random(SEED)
        for _ in range(KILLS + 2):
            before = imports
            # Mostly late, while records are written and not only read.
            moment = longest * rng.uniform(0.4, 1)
            killed += is_killed(moment, kind, tmp_path, *arguments)
            count = storage.count_conversations()
            imports = (count - 1) // RECORDS
            assert count == 1 + imports * RECORDS
            assert before <= imports <= before + 1
        assert killed
        assert storage.import_jsonl(source / "talks.jsonl") == RECORDS
        assert storage.count_conversations() == 1 + (imports + 1) * RECORDS
        numbers = [r.metadata["n"] for r in storage.load_conversations(offset=1)]
        assert numbers == list(range(RECORDS)) * (imports + 1)


def merge(pipe: Any, kind: str, folder: Path, source_kind: str, source: Path) -> None:
    store, other = opened(kind, folder), opened(source_kind, source)
    pipe.send("ready")
    store.import_store(other)
    pipe.send("returned")


class TestKilledMerges:
    @pytest.mark.parametrize(("kind", "source_kind"), [("sql", "jsonl"), ("jsonl", "sql")])
    def test_a_storage_is_merged_completely_or_not_at_all(
        self, tmp_path: Path, kind: str, source_kind: str
    ) -> None:
        rng = random.Random(SEED)
        other = opened(source_kind, tmp_path)
        talks = [conversation(rng.randbytes(300).hex(), {"n": n}) for n in range(2000)]
        other.save_conversations([*talks, *(Line(role="r", content=str(n)) for n in range(500))])
        other.save_documents([Document(id=str(n), text=f"text {n}") for n in range(1500)])
        expected = (2001, 500, 1501)

        def counts(store: Any) -> tuple[int, ...]:
            return store.count_conversations(), store.count_records(), store.count_documents()

        def new(name: str) -> Path:
            folder = tmp_path / name
            folder.mkdir()
            store = opened(kind, folder)
            store.save_conversations([conversation("first")])
            store.save_documents([Document(id="first", text="first")])
            return folder

        with child(merge, kind, new("try"), source_kind, tmp_path) as (process, pipe):
            assert pipe.recv() == "ready"
            started = time.monotonic()
            assert pipe.recv() == "returned"
            longest = time.monotonic() - started
        assert counts(opened(kind, tmp_path / "try")) == expected
        outcomes = set()
        for kill in range(30 * LONG):
            folder = new(str(kill))
            with child(merge, kind, folder, source_kind, tmp_path) as (process, pipe):
                assert pipe.recv() == "ready"
                time.sleep(rng.uniform(0.2, 1) * longest)
                process.kill()
                process.join()
            store = opened(kind, folder)
            found = counts(store)
            assert found[:2] in ((1, 0), expected[:2])
            assert found[2] in (1, expected[2])
            # A database is one file; of two JSONL files, the conversations come first.
            assert kind == "jsonl" or found in ((1, 0, 1), expected)
            assert found[2] == 1 or found == expected
            outcomes.add(found)
            assert store.import_store(other) == sum(expected) - sum(found)
            assert counts(store) == expected
            assert store.import_store(other) == 0
            assert store.verify().ok
            shutil.rmtree(folder)
        assert (1, 0, 1) in outcomes
