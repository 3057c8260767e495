"""Targets of exports: links, pipes, devices, permissions, long names, and files not to write."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from afterimage.storage import JSONLStorage, SQLStorage, StorageError
from tests.support.factories import EVALUATORS, Factory
from tests.support.records import conversations

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")

Export = Callable[[Any, Path], int]

EXPORTS: dict[str, Export] = {
    "jsonl": lambda store, path: store.export_jsonl(path),
    "messages": lambda store, path: store.export_jsonl(path, format="messages"),
    "parquet": lambda store, path: store.export_parquet(path),
}


@pytest.fixture(params=EXPORTS)
def export(request: pytest.FixtureRequest) -> Export:
    return EXPORTS[request.param]


@pytest.fixture(params=EVALUATORS[:2], ids=lambda factory: factory.name)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    factory: Factory = request.param
    folder = tmp_path / "store"
    folder.mkdir()
    storage = factory.open(folder)
    storage.save_conversations(conversations({"n": 1}, {"n": 2}))
    return storage


class TestLinks:
    def test_an_export_to_a_link_replaces_the_file_that_it_names(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        real, link = tmp_path / "real", tmp_path / "link"
        (tmp_path / "folder").mkdir()
        real.write_text("former")
        (tmp_path / "folder" / "second").symlink_to("../real")
        link.symlink_to("folder/second")
        assert export(store, link) == 2
        assert link.is_symlink()
        assert real.stat().st_size > 10
        assert not list(tmp_path.glob("*/.*"))

    def test_an_export_to_a_link_without_a_file_creates_the_file(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "link").symlink_to("new")
        assert export(store, tmp_path / "link") == 2
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "new").is_file()

    def test_a_link_to_itself_is_an_error(self, store: Any, export: Export, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(StorageError, match="loop"):
            export(store, tmp_path / "loop")

    def test_a_partitioned_export_to_a_link_fills_the_folder(
        self, store: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("folder")
        assert store.export_parquet(tmp_path / "link", partition_by=["metadata.n"]) == 2
        assert (tmp_path / "link").is_symlink()
        assert len(list((tmp_path / "folder").iterdir())) == 2


class TestStorages:
    """The file of a storage is a file."""

    @pytest.mark.parametrize("cls", [JSONLStorage, SQLStorage])
    @pytest.mark.parametrize("call", ["load", "save"])
    def test_a_pipe_is_refused_at_once(self, tmp_path: Path, cls: Any, call: str) -> None:
        path = tmp_path / ("store.jsonl" if cls is JSONLStorage else "store.duckdb")
        os.mkfifo(path)
        with pytest.raises(StorageError, match="is a pipe, not a file"):
            self.call(cls, path, call)

    @pytest.mark.parametrize("cls", [JSONLStorage, SQLStorage])
    @pytest.mark.parametrize("call", ["load", "save"])
    def test_a_link_to_itself_is_refused(self, tmp_path: Path, cls: Any, call: str) -> None:
        path = tmp_path / ("store.jsonl" if cls is JSONLStorage else "store.duckdb")
        path.symlink_to(path)
        with pytest.raises(StorageError, match="symbolic links"):
            self.call(cls, path, call)
        assert path.is_symlink()

    @staticmethod
    def call(make: Any, path: Path, call: str) -> None:
        store = make(path, path.with_name("texts.jsonl")) if make is JSONLStorage else make(path)
        if call == "load":
            store.load_conversations()
        else:
            store.save_conversations(conversations({"n": 1}))


class TestPermissions:
    def test_a_replaced_file_keeps_its_mode(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        for mode in (0o600, 0o640, 0o664, 0o444):
            path = tmp_path / f"{mode:o}"
            path.touch()
            path.chmod(mode)
            export(store, path)
            assert stat.S_IMODE(path.stat().st_mode) == mode

    def test_a_new_file_has_the_usual_mode(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "usual").touch()
        export(store, tmp_path / "new")
        assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")
    def test_a_replaced_file_keeps_its_owner(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        path = tmp_path / "owned"
        path.touch()
        os.chown(path, 1234, 2345)
        export(store, path)
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)

    def test_nobody_else_can_read_a_private_file_while_it_is_written(
        self, store: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "private").touch()
        (tmp_path / "private").chmod(0o600)
        modes: list[int] = []

        def look(count: int) -> None:
            modes.extend(path.stat().st_mode & 0o77 for path in tmp_path.glob(".private.*"))

        store.export_jsonl(tmp_path / "private", progress=look)
        assert modes
        assert set(modes) == {0}


class TestPipesAndDevices:
    @pytest.mark.parametrize("name", ["pipe", "pipe.gz", "pipe.zst"])
    def test_lines_are_written_into_a_pipe(self, store: Any, tmp_path: Path, name: str) -> None:
        pipe = tmp_path / name
        os.mkfifo(pipe)
        read = self._reader(pipe)
        assert store.export_jsonl(pipe) == 2
        assert pipe.is_fifo()
        data = read()
        if name == "pipe.gz":
            data = gzip.decompress(data)
        elif name == "pipe.zst":
            data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
        store.export_jsonl(tmp_path / "file.jsonl")
        assert data == (tmp_path / "file.jsonl").read_bytes()

    def test_parquet_is_written_into_a_pipe(self, store: Any, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        read = self._reader(pipe)
        assert store.export_parquet(pipe) == 2
        assert pq.read_table(pa.BufferReader(read())).num_rows == 2

    def test_a_pipe_without_a_reader_any_more_is_an_error(self, store: Any, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        store.save_conversations(conversations(*({"text": "x" * 2000} for _ in range(200))))

        def read_a_little() -> None:
            with pipe.open("rb") as file:
                file.read(10)

        reader = threading.Thread(target=read_a_little)
        reader.start()
        with pytest.raises(StorageError, match="pipe cannot be written: Broken pipe"):
            store.export_jsonl(pipe)
        reader.join()

    def test_the_null_device_stays_a_device(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "null").symlink_to(os.devnull)
        assert export(store, Path(os.devnull)) == 2
        assert export(store, tmp_path / "null") == 2
        assert Path(os.devnull).is_char_device()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_device_is_an_error(self, store: Any, export: Export) -> None:
        with pytest.raises(StorageError, match="/dev/full cannot be written: No space left"):
            export(store, Path("/dev/full"))

    @pytest.mark.process
    def test_standard_output_is_written_where_it_goes(self, tmp_path: Path) -> None:
        store = JSONLStorage(tmp_path / "t.jsonl")
        store.save_conversations(conversations({"n": 1}))
        script = (
            "import sys; from afterimage.storage import JSONLStorage;"
            "JSONLStorage(sys.argv[1]).export_jsonl('/dev/stdout')"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "t.jsonl")]
        line = (tmp_path / "t.jsonl").read_bytes()
        assert subprocess.run(command, capture_output=True, check=True).stdout == line
        out = tmp_path / "out"
        out.write_bytes(b"before\n")
        with out.open("ab") as file:
            subprocess.run(command, stdout=file, check=True)
        assert out.read_bytes() == b"before\n" + line

    def _reader(self, pipe: Path) -> Callable[[], bytes]:
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
        thread.start()

        def result() -> bytes:
            thread.join(10)
            return found[0]

        return result


class TestNames:
    def test_a_name_too_long_is_a_short_error(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        with pytest.raises(StorageError, match="File name too long"):
            export(store, tmp_path / ("x" * 300))
        assert not list(tmp_path.glob("x*"))

    def test_the_longest_name_works(self, store: Any, export: Export, tmp_path: Path) -> None:
        assert export(store, tmp_path / ("x" * 255)) == 2
        assert export(store, tmp_path / ("é" * 127)) == 2

    def test_a_name_that_is_not_utf8_works(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        assert export(store, tmp_path / "\udcff.zst") == 2
        assert (tmp_path / "\udcff.zst").stat().st_size

    def test_a_nul_in_a_path_is_a_short_error(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        with pytest.raises(StorageError, match="NUL"):
            export(store, tmp_path / "a\0b")

    def test_a_folder_is_refused_before_anything_is_read(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(StorageError, match="is a folder"):
            export(store, tmp_path / "folder")


class TestSideFiles:
    @pytest.mark.parametrize("suffix", [".lock", ".saving", ".torn-12", ".wal", ".WAL"])
    def test_a_side_file_of_the_store_is_no_target(
        self, export: Export, tmp_path: Path, suffix: str
    ) -> None:
        lines = JSONLStorage(tmp_path / "t.jsonl", tmp_path / "d.jsonl")
        base = SQLStorage(f"duckdb:///{tmp_path / 't.duckdb'}")
        for store, own in ((lines, "t.jsonl"), (lines, "d.jsonl"), (base, "t.duckdb")):
            with pytest.raises(StorageError, match="side file"):
                export(store, tmp_path / f"{own}{suffix}")
            (tmp_path / "link").symlink_to(f"{own}{suffix}")
            with pytest.raises(StorageError, match="side file"):
                export(store, tmp_path / "link")
            (tmp_path / "link").unlink()

    def test_a_side_file_of_another_file_is_no_target(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "other.duckdb").touch()
        with pytest.raises(StorageError, match=r"side file of other\.duckdb"):
            export(store, tmp_path / "other.duckdb.wal")

    def test_a_name_like_a_side_file_without_a_file_is_a_target(
        self, store: Any, export: Export, tmp_path: Path
    ) -> None:
        assert export(store, tmp_path / "poetry.lock") == 2

    def test_the_store_itself_is_no_target_by_any_of_its_names(
        self, export: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "link").symlink_to("t.jsonl")
        store = JSONLStorage(tmp_path / "t.jsonl")
        for name in ("sub/../t.jsonl", "link"):  # the file does not exist yet
            with pytest.raises(StorageError, match="own file"):
                export(store, tmp_path / name)

    @pytest.mark.parametrize("name", ["t.jsonl.saving", "t.jsonl.lock", "t.jsonl.torn-0"])
    def test_the_documents_cannot_be_in_a_side_file_of_the_conversations(
        self, tmp_path: Path, name: str
    ) -> None:
        with pytest.raises(StorageError, match="side file"):
            JSONLStorage(tmp_path / "t.jsonl", tmp_path / name)
        with pytest.raises(StorageError, match="side file"):
            JSONLStorage(tmp_path / name, tmp_path / "t.jsonl")

    def test_one_file_cannot_hold_both_kinds_by_any_of_its_names(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "t.jsonl").touch()
        (tmp_path / "link").symlink_to("t.jsonl")
        (tmp_path / "hard").hardlink_to(tmp_path / "t.jsonl")
        for name in ("t.jsonl", "sub/../t.jsonl", "link", "hard"):
            with pytest.raises(StorageError, match="cannot hold both"):
                JSONLStorage(tmp_path / "t.jsonl", tmp_path / name)

    def test_nothing_is_saved_into_a_side_file(self, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").touch()
        (tmp_path / "link").symlink_to("t.jsonl.saving")
        for name in ("t.jsonl.saving", "t.jsonl.lock", "link"):
            with pytest.raises(StorageError, match="side file"):
                JSONLStorage(tmp_path / name).save_conversations(conversations({}))
        with pytest.raises(StorageError, match="side file"):
            SQLStorage(f"duckdb:///{tmp_path / 't.jsonl.wal'}").save_conversations(
                conversations({})
            )
