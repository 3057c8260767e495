"""Long calls report their progress: at the end, each record once, and a share of 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document, JSONLStorage, SQLStorage, verify_jsonl
from afterimage.storage.query.figures import kept_rows
from tests.support.factories import LARGE_FACTORIES, Factory, parameters
from tests.support.records import Note, conversations


class Told:
    """Collects the reported records and shares."""

    def __init__(self) -> None:
        self.records = 0
        self.shares: list[float] = []

    def __call__(self, records: int) -> None:
        self.records += records

    def reached(self, share: float) -> None:
        self.shares.append(share)

    def all_of(self) -> int:
        """The number of records; checks that the share grew and ended at 1."""
        assert self.shares == sorted(self.shares)
        assert min(self.shares) >= 0
        assert self.shares[-1] == pytest.approx(1)
        assert len(set(self.shares)) > 1
        return self.records


@pytest.fixture(params=parameters(LARGE_FACTORIES))
def factory(request: pytest.FixtureRequest) -> Factory:
    chosen: Factory = request.param
    return chosen


@pytest.fixture
def filled(storage: Any) -> Any:
    storage.save_conversations(conversations(*({"n": n} for n in range(2501))))
    storage.save_conversations([Note(title="x")])
    return storage


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_rows, "_FEWEST_ROWS", 1000)


def test_an_import_and_an_export_of_json_lines(
    filled: Any, make_storage: Any, tmp_path: Path
) -> None:
    told: list[int] = []
    path = tmp_path / "all.jsonl"
    filled.export_jsonl(path, filters=[("metadata.n", "<", 2401)], progress=told.append)
    assert sum(told) == 2401
    with path.open("a") as file:
        file.write('{"title": "x"}\n')
    told.clear()
    assert make_storage().import_jsonl(path, progress=told.append) == 2402
    assert sum(told) == 2402


def test_an_export_to_parquet(filled: Any, tmp_path: Path) -> None:
    told: list[int] = []
    filled.export_parquet(tmp_path / "all.parquet", progress=told.append)
    assert sum(told) == 2501


@pytest.mark.parametrize("order_by", [None, [("metadata.n", -1)]])
def test_a_scan(filled: Any, order_by: Any) -> None:
    told: list[int] = []
    filled.scan_conversations(["metadata.n"], order_by=order_by, progress=told.append).read_all()
    lines = hasattr(filled, "conversations_path")  # a line that is not a conversation is read too
    assert sum(told) == 2501 + lines


@pytest.fixture(scope="module")
def long_documents() -> list[Document]:
    """More than one chunk, of characters that do not pack to nothing."""
    return [Document(text=f"{n**997}") for n in range(2000, 6500)]


@pytest.fixture(scope="module", params=["jsonl", "jsonl.gz", "jsonl.zst"])
def long_file(
    request: pytest.FixtureRequest,
    long_documents: list[Document],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp("long") / f"long.{request.param}"
    source = SQLStorage("duckdb:///:memory:")
    source.save_documents(long_documents)
    source.export_jsonl(path, kind="documents")
    return path


@pytest.mark.parametrize("order_by", [None, [("text", -1)]])
def test_a_query_over_lines_reports_the_share_that_it_has_read(
    long_documents: list[Document], tmp_path: Path, order_by: Any
) -> None:
    store = JSONLStorage(tmp_path / "talks.jsonl", documents_path=tmp_path / "documents.jsonl")
    store.save_documents(long_documents)
    told = Told()
    scan = store.scan_documents(["id"], [("text", "<", "2")], order_by, progress=told)
    assert 0 < len(scan.read_all()) < 4500
    assert told.all_of() == 4500
    for export in (store.export_jsonl, store.export_parquet):
        told = Told()
        export(tmp_path / "out", kind="documents", order_by=order_by, progress=told)
        assert told.all_of() == 4500


def test_an_import_reports_the_share_of_the_file_compressed_or_not(
    make_storage: Any, long_file: Path
) -> None:
    told = Told()
    make_storage().import_jsonl(long_file, kind="documents", progress=told)
    assert told.all_of() == 4500
    told = Told()
    assert verify_jsonl(long_file, "documents", progress=told).ok
    assert told.all_of() == 4500


def test_verify(filled: Any) -> None:
    filled.save_documents([Document(text="x")] * 100)
    told = Told()
    assert filled.verify(progress=told) == filled.verify()
    assert told.all_of() == 2602
    numbers: list[int] = []
    filled.verify(progress=numbers.append)
    assert sum(numbers) == 2602


@pytest.mark.usefixtures("small_parts")
def test_stats(storage: Any) -> None:
    storage.save_conversations(conversations(*({"n": n % 7} for n in range(2501))))
    storage.save_documents([Document(text="x")] * 100)
    told = Told()
    assert storage.stats(progress=told) == storage.stats()
    assert told.all_of() == 2501
    numbers: list[int] = []
    assert storage.stats(progress=numbers.append) == storage.stats()
    assert sum(numbers) == 2501


@pytest.mark.usefixtures("small_parts")
def test_stats_with_progress_are_the_same(filled: Any) -> None:
    for filters in (None, [("metadata.n", "<", 1200)], {"metadata.n": [1]}, {"persona": "nobody"}):
        assert filled.stats(filters, progress=Told()) == filled.stats(filters)


def test_of_an_empty_storage(storage: Any) -> None:
    assert storage.stats(progress=Told()) == storage.stats()
    assert storage.verify(progress=Told()).ok


@pytest.mark.usefixtures("small_parts")
def test_progress_leaves_nothing_in_a_database(tmp_path: Path) -> None:
    path = tmp_path / "talks.duckdb"
    store = SQLStorage(f"duckdb:///{path}")
    store.save_conversations(conversations(*({"n": n} for n in range(2501))))
    before = path.read_bytes()
    store.stats(progress=Told())
    store.verify(progress=Told())
    assert path.read_bytes() == before
    with store.engine.connect() as connection:
        names = connection.exec_driver_sql("SELECT table_name FROM duckdb_tables()").scalars()
        assert not [name for name in names if name.startswith("kept_")]


def test_an_error_of_the_callback_is_raised(storage: Any) -> None:
    storage.save_conversations(conversations({"n": 1}))

    def stopped(_: int) -> None:
        raise KeyError("stop")

    for call in (storage.verify, storage.stats):
        with pytest.raises(KeyError, match="stop"):
            call(progress=stopped)
    assert storage.count_conversations() == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux lists open files there")
@pytest.mark.parametrize("order_by", [None, [("text", -1)]])
def test_an_error_of_the_callback_leaves_no_file_open(
    make_storage: Any, tmp_path: Path, order_by: Any
) -> None:
    store = make_storage()
    texts = ("".join(chr(33 + n * k * 7919 % 90) for k in range(1, 400)) for n in range(6000))
    store.save_documents([Document(text=text) for text in texts])

    class StoppedError(Exception):
        pass

    def stop(_: int) -> None:
        raise StoppedError

    def own_files() -> list[str]:
        links = [path.resolve() for path in Path("/proc/self/fd").iterdir() if path.exists()]
        return [str(path) for path in links if path in store._backend.files()]

    held = own_files()  # an in-memory database has none
    calls: tuple[Callable[[], Any], ...] = (
        lambda: store.scan_documents(None, order_by=order_by, progress=stop).read_all(),
        lambda: store.export_jsonl(tmp_path / "out", kind="documents", progress=stop),
        lambda: store.export_parquet(tmp_path / "out", kind="documents", progress=stop),
    )
    for call in calls:
        with pytest.raises(StoppedError) as kept:
            call()
        assert own_files() == held
        del kept
