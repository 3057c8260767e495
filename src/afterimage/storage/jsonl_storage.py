"""`JSONLStorage`: conversations and documents in JSONL files, the interchange format."""

from __future__ import annotations

import codecs
import os
from datetime import datetime
from pathlib import Path

from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.jsonl.backend import JsonlBackend
from afterimage.storage.jsonl.lines import MAX_LINE_BYTES
from afterimage.storage.query.arguments import positive, seconds
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.system.locks import lock_path
from afterimage.storage.system.targets import (
    check_path,
    is_side_file_of,
    same_place,
    system_path,
)

__all__ = ["JSONLStorage"]


class JSONLStorage(RecordStorage):
    r"""Conversations in one JSONL file, documents in another.

    The published `afterimage` package can read these files, and this class can read its files. The
    default path is `{conversations|documents}_{timestamp}.jsonl` in the working directory, or in
    the folder named by the environment variable AFTERIMAGE_JSONL_DIR, which is created if missing.
    A file whose name ends in `.gz` or `.zst` can be read, but not written.

    Args:
        conversations_path: file of the conversations and of records of other models.
        documents_path: file of the documents.
        encoding: encoding of the files; it must leave ASCII characters unchanged.
        lock_timeout: seconds to wait for the lock file, `<name>.lock` in the same folder.
        max_line_bytes: maximum length of a line, 1 GiB by default. A longer record cannot be saved,
            and a longer line is corrupt.

    Raises:
        InvalidQueryError: the encoding is unknown or does not leave ASCII unchanged (UTF-16, for
            example), or both paths name the same file, or one names a side file of the other.

    >>> import tempfile
    >>> from afterimage.storage import Conversation
    >>> folder = Path(tempfile.mkdtemp())
    >>> store = JSONLStorage(folder / "talks.jsonl", folder / "texts.jsonl")
    >>> store.save_conversations([Conversation(conversations=[], metadata={"n": 1})])
    >>> (folder / "talks.jsonl").read_text()
    '{"conversations":[],"metadata":{"n":1}}\n'
    """

    _backend: JsonlBackend

    def __init__(
        self,
        conversations_path: str | Path | None = None,
        documents_path: str | Path | None = None,
        encoding: str = "utf-8",
        lock_timeout: int = 30,
        *,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self.encoding = encoding
        codec = _codec(encoding)
        paths = {
            "conversations": _path(conversations_path, "conversations"),
            "documents": _path(documents_path, "documents"),
        }
        _check_apart(*paths.values())
        timeout = seconds(lock_timeout, "lock_timeout")
        most_bytes = positive(max_line_bytes, "max_line_bytes")
        super().__init__(JsonlBackend(paths, codec, timeout, most_bytes))

    @property
    def conversations_path(self) -> Path:
        """The absolute path of the file of the conversations."""
        return self._backend.paths["conversations"]

    @conversations_path.setter
    def conversations_path(self, path: Path) -> None:
        self._backend.paths["conversations"] = path

    @property
    def documents_path(self) -> Path:
        """The absolute path of the file of the documents."""
        return self._backend.paths["documents"]

    @documents_path.setter
    def documents_path(self, path: Path) -> None:
        self._backend.paths["documents"] = path

    @property
    def conversations_lock_path(self) -> Path:
        """The path of the lock file of the conversations."""
        return lock_path(self.conversations_path)

    @property
    def documents_lock_path(self) -> Path:
        """The path of the lock file of the documents."""
        return lock_path(self.documents_path)

    def __repr__(self) -> str:
        return f"JSONLStorage({str(self.conversations_path)!r}, {str(self.documents_path)!r})"


def _path(path: str | Path | None, prefix: str) -> Path:
    if path:
        return system_path(path).absolute()
    name = f"{prefix}_{datetime.now().astimezone().strftime('%Y%m%d_%H%M%S')}.jsonl"
    folder = os.environ.get("AFTERIMAGE_JSONL_DIR")
    if not folder:
        return Path(name).absolute()
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder).absolute() / name


def _check_apart(conversations: Path, documents: Path) -> None:
    """Check that two paths name two files, also through links, and no side files of each other."""
    check_path(conversations)
    check_path(documents)
    if same_place(conversations, documents):
        raise InvalidQueryError(
            f"{conversations} cannot hold both conversations and documents; give two paths"
        )
    for side_file, owner in ((conversations, documents), (documents, conversations)):
        if is_side_file_of(side_file, owner):
            raise InvalidQueryError(
                f"{side_file} is a side file of {owner.name}, which a save would overwrite or "
                "remove. Give another path."
            )


def _codec(encoding: str) -> str:
    """Return the codec name of an encoding that leaves ASCII, and so line feeds, unchanged.

    Raises:
        InvalidQueryError: the encoding is unknown or does not leave ASCII unchanged.
    """
    try:
        name = codecs.lookup(encoding).name
        if "\n{}".encode(name) != b"\n{}" and name != "utf-8-sig":
            raise InvalidQueryError(
                f"encoding {encoding!r} writes line feeds differently from ASCII; use 'utf-8'"
            )
    except (LookupError, TypeError):
        raise InvalidQueryError(f"unknown encoding {encoding!r}; use 'utf-8'") from None
    return "utf-8" if name in ("ascii", "utf-8-sig") else name
