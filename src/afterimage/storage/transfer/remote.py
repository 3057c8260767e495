"""Files at URLs of object stores and other remote file systems, through `fsspec`.

The invariants: A file at a URL appears complete or not at all. No credential of a URL or of the
environment is in an error, a name or a `repr`.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

from afterimage.storage.errors import (
    InvalidQueryError,
    MissingFileError,
    StorageError,
    UnsupportedURLError,
    shorten,
)
from afterimage.storage.system.interrupts import checkpoint

__all__ = [
    "from_url",
    "is_url",
    "lines_from_urls",
    "name_of",
    "refuse_folder",
    "to_url",
    "without_secrets",
]

_URL: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+)://", re.I)
# Stores and local files, which have their own calls.
_OTHER_SCHEMES: Final = re.compile(r"duckdb|ducklake(\+.*)?|file", re.I)
# File systems whose files appear when they are committed. Others get a file of another name first.
_COMMITTED: Final = frozenset({"s3", "s3a"})

_BLOCK_BYTES: Final = 4 * 2**20
# The end of a long name has the suffixes, which choose the compression.
_LONGEST_NAME: Final = 60
_SHORTEST_SECRET: Final = 4
_SECRET_VARIABLES: Final = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|CREDENTIAL")

# The user and the password before a host. A password can contain `/`.
_USER: Final = re.compile(r"^([^/@]*:[^@]*|[^/@]*)@")

_Method = TypeVar("_Method", bound=Callable[..., Any])


def is_url(path: object) -> bool:
    """Return whether a path is the URL of a remote file.

    >>> is_url("s3://bucket/talks.jsonl"), is_url("talks.jsonl"), is_url("duckdb:///talks.duckdb")
    (True, False, False)
    """
    found = _URL.match(path) if isinstance(path, str) else None
    return found is not None and not _OTHER_SCHEMES.fullmatch(found["scheme"])


def without_secrets(url: str) -> str:
    """Return a URL without its user, its password and its query, to be shown.

    >>> without_secrets("s3://key:secret@bucket/talks.jsonl?token=abc")
    's3://bucket/talks.jsonl'
    >>> without_secrets("s3://bucket/a@b.jsonl")
    's3://bucket/a@b.jsonl'
    """
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{_USER.sub('', _without_query(rest), count=1)}"


def name_of(url: str) -> str:
    """Return the last part of the path of a URL.

    >>> name_of("s3://bucket/folder/talks.jsonl.gz?token=abc")
    'talks.jsonl.gz'
    """
    return without_secrets(url).partition("://")[2].partition("/")[2].rpartition("/")[2]


def _without_query(text: str) -> str:
    return re.split(r"[?#]", text, maxsplit=1)[0]


def to_url(method: _Method) -> _Method:
    """Let a method that writes one file take a URL: the file is uploaded when it is complete."""

    @wraps(method)
    def call(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_url(path):
            return method(self, path, *args, **kwargs)
        if kwargs.get("split") or kwargs.get("partition_by"):
            refuse_folder(path)
        with _uploaded(path) as file:
            return method(self, file, *args, **kwargs)

    return cast("_Method", call)


def from_url(method: _Method) -> _Method:
    """Let a method that reads one file take a URL: the file is downloaded first."""

    @wraps(method)
    def call(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_url(path):
            return method(self, path, *args, **kwargs)
        with _downloaded(path) as file:
            return method(self, file, *args, **kwargs)

    return cast("_Method", call)


def lines_from_urls(method: _Method) -> _Method:
    """Let a method that reads one or several sources take URLs, which are read as streams."""

    @wraps(method)
    def call(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_url(path) and not _has_url(path):
            return method(self, path, *args, **kwargs)
        with ExitStack() as stack:
            given = [path] if is_url(path) else path
            sources = [stack.enter_context(_opened(e)) if is_url(e) else e for e in given]
            return method(self, sources, *args, **kwargs)

    return cast("_Method", call)


def _has_url(path: Any) -> bool:
    is_several = isinstance(path, Sequence) and not isinstance(path, str | bytes | bytearray)
    return is_several and any(map(is_url, path))


def refuse_folder(path: str | Path) -> None:
    """Refuse the URL of a remote folder as the target of an export.

    Raises:
        InvalidQueryError: `path` is a URL.
    """
    if is_url(path):
        raise InvalidQueryError(
            f"{without_secrets(str(path))}: a folder of several files cannot appear there as a "
            "whole. Export it to a local folder, and copy the folder."
        )


class _Remote:
    """A file at a URL."""

    def __init__(self, url: str) -> None:
        self.name = without_secrets(url)
        self._secrets = _secrets_of(url)
        self._is_committed = url.partition("://")[0].lower() in _COMMITTED
        if not name_of(url):
            raise InvalidQueryError(f"{self.name} does not name a file. Give the URL of a file.")
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415  an extra
        except ImportError:
            raise _missing(self.name, "fsspec") from None
        try:
            self._system, self._path = url_to_fs(url)
        except ValueError:
            raise UnsupportedURLError(
                f"{self.name}: fsspec knows no such files. Give a path, or a URL such as "
                "s3://bucket/talks.jsonl."
            ) from None
        except ImportError as error:  # the package of the file system, such as s3fs
            raise _missing(self.name, str(error)) from None
        except Exception as error:  # noqa: BLE001  those of every file system
            raise self.failed("opened", error) from None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def file_name(self) -> str:
        """The last part of the path, as the file system has it."""
        return str(self._path).rpartition("/")[2]

    def failed(self, what: str, error: BaseException) -> StorageError:
        """Return the error for a failure of the file system, without credentials."""
        if isinstance(error, StorageError):
            return error
        if isinstance(error, FileNotFoundError):
            return MissingFileError(f"{self.name} does not exist. Check the URL.")
        text = f"{type(error).__name__}: {error}"
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = re.sub(r"(://)[^\s/]*@", r"\1", text)  # of another URL, such as that of a proxy
        text = re.sub(r"(https?://[^\s?]*)\?[^\s'\"]+", r"\1", text)
        return StorageError(f"{self.name} cannot be {what}: {shorten(text)}")

    def open(self) -> Any:
        try:
            return self._system.open(self._path, "rb")
        except Exception as error:  # noqa: BLE001  those of every file system
            raise self.failed("read", error) from None

    def upload(self, file: Path) -> None:
        """Upload a local file. It appears when it is complete, in place of an existing one.

        Raises:
            StorageError: the upload has failed. The URL is as it was.
        """
        part = self._path
        if not self._is_committed:
            folder, slash, _ = self._path.rpartition("/")
            part = f"{folder}{slash}.{uuid.uuid4().hex}.part"
        try:
            with file.open("rb") as source:
                self._write(source, part)
            if part != self._path:
                self._move(part)
        except BaseException as error:
            if part != self._path:
                with suppress(Exception):
                    self._system.rm_file(part)
            if isinstance(error, Exception):
                raise self.failed("written", error) from None
            raise

    def _move(self, part: str) -> None:
        from fsspec import AbstractFileSystem  # noqa: PLC0415  an extra

        if type(self._system).mv is not AbstractFileSystem.mv:  # it renames
            self._system.mv(part, self._path)
        else:  # that `mv` reads the names as patterns
            self._system.cp_file(part, self._path)
            self._system.rm_file(part)

    def _write(self, source: IO[bytes], path: str) -> None:
        options = {"autocommit": False} if self._is_committed else {}
        target = self._system.open(path, "wb", **options)
        try:
            while data := source.read(_BLOCK_BYTES):
                checkpoint()
                target.write(data)
            target.close()
            if options:
                target.commit()
        except BaseException:
            with suppress(Exception):
                target.closed = True  # so that the end of the object does not finish the upload
            with suppress(Exception):
                target.discard()
            raise


class _Stream(io.RawIOBase):
    """The bytes of a remote file, with a name that can be shown.

    Attributes:
        name: the URL without credentials.
    """

    def __init__(self, remote: _Remote) -> None:
        self.name = remote.name
        self._remote = remote
        self._file = remote.open()
        self._size = getattr(self._file, "size", None)
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, count: int = -1, /) -> bytes:
        """Return the next bytes.

        Raises:
            StorageError: they cannot be read, or the file is shorter than it was.
        """
        checkpoint()
        try:
            data: bytes = self._file.read(count)
        except Exception as error:  # noqa: BLE001  those of every file system
            raise self._remote.failed("read", error) from None
        self._count += len(data)
        if not data and count and isinstance(self._size, int) and self._count < self._size:
            raise StorageError(
                f"{self.name} ended after {self._count:,} of {self._size:,} bytes. Import it "
                "again. Nothing was saved."
            )
        return data

    def close(self) -> None:
        if not self.closed:
            super().close()
            with suppress(Exception):
                self._file.close()


@contextmanager
def _uploaded(url: str) -> Iterator[Path]:
    """Provide the path of a local file, and upload the file at the end of the block."""
    remote = _Remote(url)
    with _temporary(remote.file_name) as file:
        yield file
        remote.upload(file)


@contextmanager
def _downloaded(url: str) -> Iterator[Path]:
    """Provide a local copy of a file."""
    with _opened(url) as source, _temporary(name_of(url)) as file:
        try:
            with file.open("wb") as target:
                while data := source.read(_BLOCK_BYTES):
                    target.write(data)
        except OSError as error:
            raise StorageError(
                f"{source.name} cannot be copied to {file.parent}: {error.strerror or error}. Set "
                "TMPDIR to a folder with more space."
            ) from error
        yield file


@contextmanager
def _opened(url: str) -> Iterator[_Stream]:
    with _Stream(_Remote(url)) as stream:
        yield stream


@contextmanager
def _temporary(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="afterimage-") as folder:
        yield Path(folder, name[-_LONGEST_NAME:])


def _secrets_of(url: str) -> list[str]:
    """Return the texts that no error may have, longest first."""
    rest = url.partition("://")[2]
    found = _USER.match(rest)
    user = found[1] if found else ""
    query = re.split(r"[?#]", rest, maxsplit=1)[1:]
    parts = [user, user.partition(":")[2], user.partition(":")[0], *query]
    parts += [pair.partition("=")[2] for text in query for pair in text.split("&")]
    parts += [value for name, value in os.environ.items() if _SECRET_VARIABLES.search(name.upper())]
    return sorted({part for part in parts if len(part) >= _SHORTEST_SECRET}, key=len, reverse=True)


def _missing(name: str, what: str) -> StorageError:
    return StorageError(
        f"{name} needs a package that is not installed ({shorten(what, 80)}). "
        "pip install 'afterimage-storage[remote]' installs those for S3."
    )
