"""Uploads and downloads that fail, and what is shown of a URL."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
import uuid
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Conversation, JSONLStorage, StorageError
from afterimage.storage.transfer.remote import is_url, name_of, without_secrets

fsspec: Any = pytest.importorskip("fsspec", reason="fsspec is in the extra `test`")

from fsspec.implementations.memory import MemoryFile, MemoryFileSystem  # noqa: E402

SECRET = "pa/ss:w0rd"
URL = f"failing://me:{SECRET}@host/{{}}/a?signature=sig-{SECRET}"


class _Failing(MemoryFileSystem):  # type: ignore[misc]
    """A file system whose server is lost in the middle, with errors that show credentials."""

    protocol = "failing"
    store: dict[str, Any] = {}
    pseudo_dirs: list[str] = [""]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self.lose(path, "open")
        file = super()._open(path, mode, **options)
        if "/write/" in path:
            file.__class__ = _Lost
        if "/short" in path and mode == "rb":
            file = MemoryFile(self, path, file.getvalue()[:-5])
            file.__class__ = _Short
        return file

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        self.lose(path2, "move")
        super().cp_file(path1, path2, **options)

    def lose(self, path: str, step: str) -> None:
        if f"/{step}" in path:
            raise OSError(
                f"lost {URL.format(step)} at https://me:{SECRET}@proxy/x?X-Signature={SECRET}"
                f" with {os.environ.get('AWS_SECRET_ACCESS_KEY')}"
            )


class _Lost(MemoryFile):  # type: ignore[misc]
    def write(self, data: Any) -> int:
        self.fs.lose("/write", "write")
        return 0


class _Short(MemoryFile):  # type: ignore[misc]
    size = 1000


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JSONLStorage:
    fsspec.register_implementation("failing", _Failing, clobber=True)
    _Failing.store.clear()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment-s3cret")
    storage = JSONLStorage(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    storage.save_conversations([Conversation(conversations=[])] * 3)
    return storage


@pytest.mark.parametrize("step", ["open", "write", "move"])
def test_an_upload_that_fails_leaves_nothing_and_shows_no_secret(
    storage: JSONLStorage, step: str
) -> None:
    for export in (storage.export_jsonl, storage.export_parquet, storage.export_html):
        with pytest.raises(StorageError, match="cannot be written: OSError: lost") as caught:
            export(URL.format(step))
        shown = "".join(traceback.format_exception(caught.value))
        assert SECRET not in shown
        assert "environment-s3cret" not in shown
    assert _Failing.store == {}


def test_a_download_that_fails_saves_nothing_and_shows_no_secret(storage: JSONLStorage) -> None:
    for read in (storage.import_jsonl, storage.import_parquet):
        with pytest.raises(StorageError, match="cannot be read: OSError: lost") as caught:
            read(URL.format("open"))
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert storage.count_conversations() == 3


def test_a_file_that_ends_early_is_an_error(storage: JSONLStorage) -> None:
    storage.export_jsonl("failing://host/short.jsonl")
    for on_error in ("raise", "skip"):
        with pytest.raises(StorageError, match="ended after"):
            storage.import_jsonl("failing://host/short.jsonl", on_error=on_error)
    assert storage.count_conversations() == 3


def test_a_package_that_is_missing_is_named_before_anything_is_read(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['fsspec'] = None\n"
        "import afterimage.storage as s\n"
        "store = s.JSONLStorage('a.jsonl', 'b.jsonl')\n"
        "store.export_jsonl('s3://bucket/a.jsonl')\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "pip install 'afterimage-storage[remote]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("url", "shown", "name"),
    [
        ("s3://bucket/a@b.jsonl", "s3://bucket/a@b.jsonl", "a@b.jsonl"),
        ("s3://bucket/a.jsonl?versionId=1", "s3://bucket/a.jsonl", "a.jsonl"),
        (f"sftp://me:{SECRET}@host:22/a/b.gz", "sftp://host:22/a/b.gz", "b.gz"),
        ("sftp://me@host/a", "sftp://host/a", "a"),
        ("s3://bucket", "s3://bucket", ""),
        ("s3://bucket/a/", "s3://bucket/a/", ""),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str, name: str) -> None:
    assert (without_secrets(url), name_of(url)) == (shown, name)


def test_only_urls_of_remote_files_are_urls() -> None:
    others = ["a.jsonl", "C:/a", "duckdb:///a", "ducklake+postgresql://a", "file:///a", b"s3://a"]
    assert not any(map(is_url, [*others, Path("s3://a/b"), None]))
    assert is_url(f"S3://{uuid.uuid4()}")


class TestCommandLine:
    def test_exports_and_imports_at_urls(self, storage: JSONLStorage, tmp_path: Path) -> None:
        pytest.importorskip("click")
        from tests.cli.conftest import attempt

        url = "memory://me:s3cret@host/{}?token=s3cret"
        store, new = str(tmp_path / "a.jsonl"), str(tmp_path / "new.duckdb")
        done = [
            attempt("export", store, url.format("talks.jsonl")),
            attempt("export", store, url.format("talks.parquet")),
            attempt("import", url.format("talks.jsonl"), new),
            attempt("import", url.format("talks.parquet"), new, "--json"),
        ]
        assert [each.exit_code for each in done] == [0, 0, 0, 0], [each.output for each in done]
        assert done[0].stdout == "3 conversations exported to memory://host/talks.jsonl\n"
        wrong = [
            attempt("import", url.format("none.jsonl"), new),
            attempt("import", url.format("talks.jsonl"), new, "--skip-existing"),
            attempt("export", store, url.format("talks.csv")),
            attempt("export", store, url.format("talks"), "--split", "0.1"),
            attempt("import", "postgresql://me:s3cret@host/db", new),
        ]
        assert [each.exit_code for each in wrong] == [2] * 5, [each.output for each in wrong]
        assert "s3cret" not in "".join(each.output for each in done + wrong)
