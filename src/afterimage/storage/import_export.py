"""`ImportExport`: the methods that read or write files other than the storage's own.

The invariants: A file is imported completely or not at all. A written file appears complete or not
at all. A storage never overwrites its own file.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from pydantic_core import to_json

from afterimage.storage.backend import Backend
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.query.arguments import Columns, Filters, OrderBy, as_list, positive
from afterimage.storage.query.arguments import seconds as checked_seconds
from afterimage.storage.query.query import Query
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    OTHERS,
    Kind,
    RecordKind,
    kind_named,
)
from afterimage.storage.reports.exports import ExportCount
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.reports.imports import ImportCount
from afterimage.storage.reports.progress import (
    Progress,
    counting,
    ignore,
    report,
    share_only,
    split,
)
from afterimage.storage.system.atomic_files import written_lines
from afterimage.storage.system.interrupts import checkpoint, signal_safe
from afterimage.storage.system.package import DeferredWarnings
from afterimage.storage.system.prefetch import prefetched
from afterimage.storage.system.targets import refuse_own_file, system_path

if TYPE_CHECKING:  # importing the JSONL storage must not load the engine
    from afterimage.storage.transfer.incoming import Incoming
    from afterimage.storage.transfer.outgoing import Outgoing
    from afterimage.storage.transfer.training_formats import Reasoning

__all__ = ["ImportExport"]

JsonLines = str | Path | IO[bytes] | IO[str]
"""What JSON lines are read from: a path, or a stream of bytes or text."""

# Batches that are prefetched for the writer: about one row group of Parquet.
_AHEAD = 8


class ImportExport:
    """The methods of `RecordStorage` that read or write files other than its own.

    Args:
        backend: reads and writes the records of the storage.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for other writers and processes; may be changed at any time."""
        return self._backend.lock_timeout

    @lock_timeout.setter
    def lock_timeout(self, seconds: float) -> None:
        self._backend.lock_timeout = checked_seconds(seconds, "lock_timeout")

    @signal_safe
    def import_jsonl(
        self,
        path: JsonLines | Sequence[JsonLines],
        *,
        kind: Kind = "conversations",
        progress: Progress | None = None,
        on_error: OnError = "raise",
        max_line_bytes: int | None = None,
        format: str | None = None,  # noqa: A002  the usual word
        fields: Mapping[str, str] | None = None,
    ) -> ImportCount:
        r"""Save all records of JSON lines or of a JSON array, in their order, or none.

        Args:
            path: a file or a pipe, or a stream of bytes or text, which stays open; or several of
                them, whose records are saved all or none. Data that is compressed with gzip or
                zstd is decompressed. Each source is read once. Of another storage's file, a save
                that is not complete is not read.
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
        read, incoming = _import(kind, on_error, progress, format, fields)
        read = replace(read, max_line_bytes=limit)
        several = path if isinstance(path, Sequence) and not isinstance(path, str) else [path]
        origins = [system_path(each) if isinstance(each, str | Path) else each for each in several]
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
        progress: Progress | None = None,
        on_error: OnError = "raise",
        format: str | None = None,  # noqa: A002  the usual word
        fields: Mapping[str, str] | None = None,
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

        read, incoming = _import(kind, on_error, progress, format, fields)
        native = _is_native(incoming)
        chunks = chunks_of_arrow(source, read.kind, read.faults.handle, native=native)
        return self._import_chunks(chunks, read, incoming)

    @signal_safe
    def import_parquet(
        self,
        path: str | Path,
        *,
        kind: Kind = "conversations",
        progress: Progress | None = None,
        on_error: OnError = "raise",
        format: str | None = None,  # noqa: A002  the usual word
        fields: Mapping[str, str] | None = None,
    ) -> ImportCount:
        """Save all rows of a Parquet file or folder as records, in their order, or none.

        Args:
            path: a file; or a folder, whose files are read in the order of their paths. The names
                of Hive folders, such as `lang=en`, are keys of their rows.
            kind: see `import_jsonl`.
            progress: see `import_jsonl`.
            on_error: see `import_jsonl`.
            format: see `import_jsonl`. None is an export of this package.
            fields: see `import_jsonl`.

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

        read, incoming = _import(kind, on_error, progress, format, fields)
        native = _is_native(incoming)
        chunks = chunks_of_parquet(system_path(path), read.kind, read.faults.handle, native=native)
        return self._import_chunks(chunks, read, incoming)

    def _import_chunks(
        self, chunks: Iterator[Any], read: Read, incoming: Incoming | None
    ) -> ImportCount:
        with DeferredWarnings() as warn, closing(cast("Generator[Any]", chunks)):
            saved = self._backend.append_chunks(chunks, replace(read, warn=warn))
        read.faults.warn()
        return _with_format(saved, incoming)

    @signal_safe
    def export_jsonl(
        self,
        path: str | Path | IO[bytes],
        *,
        kind: Kind = "conversations",
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        progress: Progress | None = None,
        format: str | None = None,  # noqa: A002  the usual word
        system_prompt: str | None = None,
        reasoning: Reasoning | None = None,
        on_error: OnError = "raise",
        lossy: bool = False,
        trim: bool = False,
        columns: Columns = None,
    ) -> ExportCount:
        r"""Write matching records to a JSONL file: whole records, or lines for training tools.

        The file appears when it is complete. An existing file stays unchanged until then, and its
        permissions are kept. A pipe or a device is written in place.

        Args:
            path: a `.jsonl` file; a `.jsonl.gz` or `.jsonl.zst` file, which is compressed; or a
                binary stream, which receives uncompressed lines and stays open.
            kind: "conversations", "documents", or "records" for records of other models.
            filters: see the class; for "records", filters may name any field.
            order_by: see the class.
            limit: see the class.
            offset: see the class.
            progress: called repeatedly with the number of records written since the last call. A
                `ShareProgress` also gets the share of a JSONL file that was read.
            on_error: see the class.
            format: None for whole records as they were saved; or a format of conversations for
                training tools: "messages" (Hugging Face), "openai", "sharegpt", "alpaca", "gemini",
                "prompt-completion", "preference", or a name of `afterimage export`: "dpo",
                "llama_factory", "oumi", "raw". A conversation that has no line in the format, such
                as one without an answer, is left out and counted.
            system_prompt: content of a system message before conversations that have none; not for
                "alpaca".
            reasoning: None omits `reasoning_content`; "field" writes it as that field ("messages"
                only); "think" writes it between <think> tags before the content.
            lossy: whether to leave out what the format has no place for, such as tool calls in
                "alpaca". Otherwise, it is an error.
            trim: whether to end each conversation at its last assistant message.
            columns: fields that are added to each line under their last name, such as
                "metadata.domain"; "metadata.*" is every key of the metadata.

        Returns:
            The number of lines written, as an integer. Its attribute `omitted` is the number of
            conversations that were left out and the first of them, and `reasons` is their number by
            reason.

        Raises:
            InvalidQueryError: see the class; or the format does not support an option.
            StorageError: the format has no place for a part of a conversation, and `lossy` is
                false. The message names the part. No file was written.
            CorruptRecordError: a stored record is not valid; the message names its place.

        >>> import tempfile
        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        >>> store.save_conversations([Conversation(conversations=talk)])
        >>> path = Path(tempfile.mkdtemp(), "train.jsonl")
        >>> store.export_jsonl(path, format="sharegpt")
        1
        >>> path.read_text()
        '{"conversations":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Hello"}]}\n'
        """
        training = None
        if format is not None:
            from afterimage.storage.transfer.outgoing import Outgoing  # noqa: PLC0415  loads DuckDB

            if kind_named(kind) is not CONVERSATIONS:
                raise InvalidQueryError(f"format is for conversations only, not for {kind}")
            where = ", ".join(map(str, self._backend.files())) or ":memory:"
            training = Outgoing(
                where, format, system_prompt, reasoning, lossy=lossy, trim=trim, columns=columns
            )
        elif (system_prompt, reasoning, columns) != (None, None, None) or lossy or trim:
            raise InvalidQueryError(
                "system_prompt, reasoning, lossy, trim and columns require a format"
            )
        records = kind_named(kind) if training is None else training.kind
        query = self._query(records, limit, offset, filters, order_by)
        read = Read(records, query, Faults(on_error), progress or ignore, valid=True)
        if isinstance(path, str | Path):
            target = system_path(path)
            refuse_own_file(target, self._backend.files())
            with written_lines(target) as file:
                written = self._write_lines(file, read, training)
        else:
            written = self._write_lines(path, read, training)
        _finish(read)
        return training.omissions.of(written) if training else ExportCount(written)

    @signal_safe
    def export_parquet(
        self,
        path: str | Path,
        *,
        kind: Kind = "conversations",
        columns: Columns = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        partition_by: Columns = None,
        compression: str = "zstd",
        row_group_bytes: int = 16 * 2**20,
        progress: Progress | None = None,
        on_error: OnError = "raise",
    ) -> int:
        """Write matching records to Parquet as a stream.

        The file or folder appears when it is complete. An existing file keeps its permissions. A
        pipe or a device is written in place.

        Args:
            path: the file or, with `partition_by`, a new folder.
            kind: "conversations" or "documents".
            columns: see `scan_conversations`.
            filters: see the class.
            order_by: see the class.
            limit: see the class.
            offset: see the class.
            partition_by: fields whose values make Hive folders, `metadata.domain=Flights/…`, with
                one file each, `part-0.parquet`. There can be any number of values. Rows wait in a
                temporary file in the new folder, which can take as much disk space as the records
                take as Arrow data. A value must fit into the name of a folder.
            compression: "zstd", "snappy", "gzip", "lz4", "brotli" or "none".
            row_group_bytes: approximate size of a row group in bytes of Arrow data.
            progress: called repeatedly with the number of records written since the last call. A
                `ShareProgress` also gets the share of a JSONL file that was read.
            on_error: see the class.

        Returns:
            The number of records written.
        """
        from afterimage.storage.transfer.parquet import write_parquet  # noqa: PLC0415  heavy

        records = kind_named(kind)
        if records is OTHERS:
            raise InvalidQueryError(
                "records of other models have no declared columns; use export_jsonl"
            )
        names = list(records.stored if columns is None else as_list(columns, "columns"))
        partitions = list(as_list(partition_by, "partition_by"))
        names += [name for name in partitions if name not in names]
        target = system_path(path)
        refuse_own_file(target, self._backend.files())
        query = self._query(records, limit, offset, filters, order_by, names)
        read = Read(records, query, Faults(on_error), progress or ignore)
        ahead = prefetched(self._backend.select(_reading_share(read)), ahead=_AHEAD)
        with closing(counting(ahead, read.progress)) as batches:
            written = write_parquet(
                target,
                records,
                query,
                batches,
                partition_by=partitions,
                compression=compression,
                row_group_bytes=row_group_bytes,
            )
        _finish(read)
        return written

    def _write_lines(self, file: IO[bytes], read: Read, training: Outgoing | None) -> int:
        """Write the records of a read, or their lines in a format; return the number of lines."""
        written = 0
        reading = _reading_share(read)
        if training is None:
            with closing(self._backend.objects(reading)) as batches:
                for objects in batches:
                    checkpoint()
                    file.write(b"".join(chain.from_iterable((to_json(o), b"\n") for o in objects)))
                    written += len(objects)
                    read.progress(len(objects))
        else:
            with closing(self._backend.select(reading, training.line)) as texts:
                for batch in texts:
                    checkpoint()
                    lines = training.lines(batch.column(0).to_pylist())
                    joined = "".join(chain.from_iterable((line, "\n") for line in lines))
                    file.write(joined.encode())
                    written += len(lines)
                    read.progress(len(batch))
        return written

    def _query(
        self,
        kind: RecordKind,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
        columns: Columns = None,
    ) -> Query:
        """Return the checked query of a call."""
        fields = self._backend.fields(kind)
        projectable = None if columns is None else {**fields, **kind.stored}
        return Query.of(
            fields,
            limit=limit,
            offset=offset,
            filters=filters,
            order_by=order_by,
            columns=columns,
            projectable=projectable,
        )


def _import(
    kind: Kind,
    on_error: OnError,
    progress: Progress | None,
    format_name: str | None,
    fields: Mapping[str, str] | None,
) -> tuple[Read, Incoming | None]:
    """Return the read of an import, and what converts its rows; None for our own records."""
    from afterimage.storage.transfer.incoming import Incoming, refuse_foreign  # noqa: PLC0415

    chosen = kind_named(kind)
    read = Read(chosen.saved_as, faults=Faults(on_error), progress=progress or ignore)
    if format_name is None:
        if fields is not None:
            raise InvalidQueryError("fields requires a format")
        return (read if chosen is OTHERS else replace(read, other=refuse_foreign)), None
    if chosen is not CONVERSATIONS:
        raise InvalidQueryError(f"format is for conversations only, not for {kind}")
    incoming = Incoming(format_name, fields, read.faults)
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


def _reading_share(read: Read) -> Read:
    """Return the read of an export: it reports its share of the work, but no record counts."""
    progress = read.progress
    # A sort reads all records before the first is written: that is half of the work.
    stage = split(progress, [1, 1])[0] if read.query.order else progress
    return replace(read, progress=share_only(stage))


def _finish(read: Read) -> None:
    report(read.progress, 0, 1.0)
    read.faults.warn()
