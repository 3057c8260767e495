"""`JSONLStorage`: conversations and documents as lines of JSON, the interchange format."""

from __future__ import annotations

import codecs
import os
from datetime import datetime
from pathlib import Path

from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.jsonl.backend import JsonlBackend
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.system.locks import lock_path

__all__ = ["JSONLStorage"]


class JSONLStorage(RecordStorage):
    r"""Conversations in one JSONL file, documents in another.

    The files are those of the published `afterimage` package, in both directions. When a path is
    omitted, the name is `{conversations|documents}_{timestamp}.jsonl` in the working directory, or
    in the folder that the environment variable AFTERIMAGE_JSONL_DIR names, which is created if
    missing. A path that ends in `.gz` or `.zst` can be read, but not written.

    Args:
        conversations_path: file of the conversations, and of other models' records.
        documents_path: file of the documents.
        encoding: encoding of the files; any that contains ASCII unchanged.
        lock_timeout: seconds to wait for the lock of a file, `<name>.lock` beside it.

    Raises:
        InvalidQueryError: the encoding is unknown, or writes ASCII differently, as UTF-16 does.

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
    ) -> None:
        self.encoding = encoding
        codec = _codec(encoding)
        paths = {
            "conversations": _path(conversations_path, "conversations"),
            "documents": _path(documents_path, "documents"),
        }
        if paths["conversations"] == paths["documents"]:
            raise InvalidQueryError(
                f"{paths['conversations']} cannot hold both conversations and documents; "
                "give two paths"
            )
        super().__init__(JsonlBackend(paths, codec, lock_timeout))

    @property
    def conversations_path(self) -> Path:
        """The file of the conversations, absolute."""
        return self._backend.paths["conversations"]

    @conversations_path.setter
    def conversations_path(self, path: Path) -> None:
        self._backend.paths["conversations"] = path

    @property
    def documents_path(self) -> Path:
        """The file of the documents, absolute."""
        return self._backend.paths["documents"]

    @documents_path.setter
    def documents_path(self, path: Path) -> None:
        self._backend.paths["documents"] = path

    @property
    def conversations_lock_path(self) -> Path:
        """The lock file of the conversations."""
        return lock_path(self.conversations_path)

    @property
    def documents_lock_path(self) -> Path:
        """The lock file of the documents."""
        return lock_path(self.documents_path)

    def __repr__(self) -> str:
        return f"JSONLStorage({str(self.conversations_path)!r}, {str(self.documents_path)!r})"


def _path(path: str | Path | None, prefix: str) -> Path:
    if path:
        return Path(path).absolute()
    name = f"{prefix}_{datetime.now().astimezone().strftime('%Y%m%d_%H%M%S')}.jsonl"
    folder = os.environ.get("AFTERIMAGE_JSONL_DIR")
    if not folder:
        return Path(name).absolute()
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder).absolute() / name


def _codec(encoding: str) -> str:
    """The canonical name of an encoding that leaves ASCII, and so the line feed, as it is."""
    try:
        found = codecs.lookup(encoding).name
        if "\n{}".encode(found) != b"\n{}" and found != "utf-8-sig":
            raise InvalidQueryError(
                f"encoding {encoding!r} writes line feeds differently from ASCII; use 'utf-8'"
            )
    except (LookupError, TypeError):
        raise InvalidQueryError(f"unknown encoding {encoding!r}; use 'utf-8'") from None
    return "utf-8" if found in ("ascii", "utf-8-sig") else found
