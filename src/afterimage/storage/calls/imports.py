"""Add the records of files and of Arrow streams.

The invariant: a source is imported completely or not at all.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from afterimage.storage.calls.shared import Calls
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.query.arguments import positive
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import CONVERSATIONS, OTHERS, Kind, kind_named
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.reports.imports import ImportCount
from afterimage.storage.reports.progress import Followed, Progress, following
from afterimage.storage.system.interrupts import signal_safe
from afterimage.storage.system.package import DeferredWarnings
from afterimage.storage.system.targets import system_path
from afterimage.storage.transfer.remote import from_url, lines_from_urls

if TYPE_CHECKING:  # importing the JSONL storage must not load the engine
    from afterimage.storage.transfer.incoming import Incoming

__all__ = ["ImportCalls"]

JsonLines = str | Path | IO[bytes] | IO[str]
"""What JSON lines are read from: a path, or a stream of bytes or text."""


class ImportCalls(Calls):
    """The methods that import records."""

    @signal_safe
    @lines_from_urls
    def import_jsonl(
        self,
        path: JsonLines | Sequence[JsonLines],
        *,
        kind: Kind = "conversations",
        progress: Progress | bool | None = None,
        on_error: OnError = "raise",
        max_line_bytes: int | None = None,
        format: str | None = None,  # noqa: A002  the usual word
        fields: Mapping[str, str] | None = None,
        group_by: str | None = None,
        order_by: str | None = None,
    ) -> ImportCount:
        r"""Save all records of JSON lines or of a JSON array, in their order, or none.

        Args:
            path: a file or a pipe; a URL of `fsspec`, such as "s3://bucket/talks.jsonl"; a stream
                of bytes or text, which stays open; or several of them, whose records are saved all
                or none. Data that is compressed with gzip, zstd or xz is decompressed. Each source
                is read once. Of another storage's file, a save that is not complete is not read.
            kind: the kind of its lines; "conversations" includes records of other models.
            progress: called repeatedly with the number of records read since the last call.
            on_error: "skip" skips lines that are not valid records, and all lines after damage in
                a compressed file. The others are saved, all or none. A `SkippedRecordsWarning`
                then gives the number of skipped lines and the places of the first ones.
            max_line_bytes: maximum length of a line; a longer one is corrupt. The default is 1 GiB,
                or what a `JSONLStorage` was given.
            format: the format of the rows: "messages", "openai", "sharegpt", "alpaca",
                "prompt-completion", "preference", "gemini", "agent-trace" or "auto", which is the
                format that the keys of the first rows show. None is this package's own.
            fields: names of keys in the rows, and the names that the format has for them, such as
                `{"question": "instruction"}`.
            group_by: for format "rows", with one message a row, as in the view `messages`: the key
                that names the conversation. Rows of one conversation must follow each other; the
                names of all conversations are in memory.
            order_by: for format "rows", the key by which the messages of a conversation are sorted,
                and that they do not keep; `position` if it is not given. Messages without it keep
                their order.

        Returns:
            The number of records saved, as an integer. Its attribute `of_kind` is the number of
            those that a load of `kind` returns, and `others` of records of other models.

        Raises:
            CorruptRecordError: a line is not a valid record; the message names it. No record was
                saved.
            UnsupportedFileError: a source has another format, such as CSV or Parquet, or has rows
                of another format than this package's own and `format` is not given. No record was
                saved.
            MissingFileError: the file does not exist.
            StorageError: a file was changed while it was read. No record was saved.

        >>> import io
        >>> from afterimage.storage import SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.import_jsonl(io.StringIO('{"conversations":[]}\n{"conversations":[]}\n'))
        2
        """
        limit = None if max_line_bytes is None else positive(max_line_bytes, "max_line_bytes")
        read, incoming = _import(kind, on_error, progress, format, fields, group_by, order_by)
        read = replace(read, max_line_bytes=limit)
        origins = _origins(path)
        with DeferredWarnings() as warn:
            saved = self._backend.append_sources(origins, replace(read, warn=warn))
        read.faults.warn()
        return _with_format(saved, incoming)

    @signal_safe
    def import_arrow(
        self,
        source: Any,
        *,
        kind: Kind = "conversations",
        progress: Progress | bool | None = None,
        on_error: OnError = "raise",
        format: str | None = None,  # noqa: A002  the usual word
        fields: Mapping[str, str] | None = None,
        group_by: str | None = None,
        order_by: str | None = None,
    ) -> ImportCount:
        """Save all rows of an Arrow stream as records, in their order, or none.

        Args:
            source: anything with the Arrow PyCapsule stream, such as a DataFrame of pandas or
                Polars, a relation of DuckDB, or a scan of a storage; or a `Dataset` of Hugging
                Face. It is read once, in batches.
            kind: see `import_jsonl`.
            progress: see `import_jsonl`.
            on_error: see `import_jsonl`.
            format: see `import_jsonl`. None is a scan of this package: `metadata` is JSON text.
            fields: see `import_jsonl`.
            group_by: see `import_jsonl`.
            order_by: see `import_jsonl`.

        Returns:
            The number of records saved; see `import_jsonl`.

        Raises:
            CorruptRecordError: a row is not a valid record; its `line` is the number of the row.
            UnsupportedFileError: the columns are those of another format.

        >>> import pyarrow as pa
        >>> from afterimage.storage import SQLStorage
        >>> rows = [{"instruction": "Add 1 and 1.", "output": "2"}]
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.import_arrow(pa.Table.from_pylist(rows), format="alpaca")
        1
        """
        from afterimage.storage.transfer.arrow_rows import (  # noqa: PLC0415  heavy
            chunks_of_arrow,
        )

        read, incoming = _import(kind, on_error, progress, format, fields, group_by, order_by)
        native = _is_native(incoming)
        chunks = chunks_of_arrow(source, read.kind, read.faults.handle, native=native)
        return self._import_chunks(chunks, read, incoming)

    @signal_safe
    @from_url
    def import_parquet(
        self,
        path: str | Path,
        *,
        kind: Kind = "conversations",
        progress: Progress | bool | None = None,
        on_error: OnError = "raise",
        format: str | None = None,  # noqa: A002  the usual word
        fields: Mapping[str, str] | None = None,
        group_by: str | None = None,
        order_by: str | None = None,
    ) -> ImportCount:
        """Save all rows of a Parquet file or folder as records, in their order, or none.

        Args:
            path: a file, or its URL; or a folder, whose files are read in the order of their paths.
                The names of Hive folders, such as `lang=en`, are keys of their rows.
            kind: see `import_jsonl`.
            progress: see `import_jsonl`.
            on_error: see `import_jsonl`.
            format: see `import_jsonl`. None is an export of this package.
            fields: see `import_jsonl`.
            group_by: see `import_jsonl`.
            order_by: see `import_jsonl`.

        Returns:
            The number of records saved; see `import_jsonl`.

        Raises:
            MissingFileError: there is no such file, or no Parquet file in the folder.
            CorruptRecordError: a row is not a valid record; its `line` is the number of the row.
            UnsupportedFileError: it is no Parquet, or the columns are those of another format.
        """
        from afterimage.storage.transfer.arrow_rows import (  # noqa: PLC0415  heavy
            chunks_of_parquet,
        )

        read, incoming = _import(kind, on_error, progress, format, fields, group_by, order_by)
        native = _is_native(incoming)
        chunks = chunks_of_parquet(system_path(path), read.kind, read.faults.handle, native=native)
        return self._import_chunks(chunks, read, incoming)

    def _import_chunks(
        self, chunks: Iterator[Any], read: Read, incoming: Incoming | None
    ) -> ImportCount:
        with DeferredWarnings() as warn, closing(cast("Generator[Any]", chunks)):
            saved = self._backend.append_chunks([(chunks, replace(read, warn=warn))])
        read.faults.warn()
        return _with_format(saved, incoming)


def _origins(given: JsonLines | Sequence[JsonLines]) -> list[Path | IO[Any]]:
    """Return the sources of an import.

    Raises:
        InvalidQueryError: a path is empty, or a stream is given twice: it is read once.
    """
    is_one = isinstance(given, str | bytes | bytearray) or not isinstance(given, Sequence)
    several = [cast("JsonLines", given)] if is_one else [*cast("Sequence[JsonLines]", given)]
    if "" in [each for each in several if isinstance(each, str)]:
        raise InvalidQueryError("a source has an empty path")
    streams = [id(each) for each in several if not isinstance(each, str | Path)]
    if len({*streams}) < len(streams):
        raise InvalidQueryError("a stream is given twice, and it can be read only once")
    return [system_path(each) if isinstance(each, str | Path) else each for each in several]


def _import(
    kind: Kind,
    on_error: OnError,
    progress: Followed,
    format_name: str | None,
    fields: Mapping[str, str] | None,
    group_by: str | None,
    order_by: str | None,
) -> tuple[Read, Incoming | None]:
    """Return the read of an import, and what converts its rows; None for our own records."""
    from afterimage.storage.transfer.incoming import Incoming, refuse_foreign  # noqa: PLC0415

    chosen = kind_named(kind)
    read = Read(chosen.saved_as, faults=Faults(on_error), progress=following(progress))
    if format_name is None:
        if (fields, group_by, order_by) != (None, None, None):
            raise InvalidQueryError("fields, group_by and order_by require a format")
        return (read if chosen is OTHERS else replace(read, other=refuse_foreign)), None
    if chosen is not CONVERSATIONS:
        raise InvalidQueryError(f"format is for conversations only, not for {kind}")
    incoming = Incoming(format_name, fields, read.faults, group_by, order_by)
    return replace(read, converted=incoming.converted), incoming


def _is_native(incoming: Incoming | None) -> bool | None:
    """Return whether Arrow columns are this package's own; None if they themselves decide."""
    if incoming is None:
        return True
    return None if incoming.shape is None else incoming.shape.name == "native"


def _with_format(saved: ImportCount, incoming: Incoming | None) -> ImportCount:
    if incoming is not None and incoming.shape is not None:
        saved.format = incoming.shape.name
    return saved
