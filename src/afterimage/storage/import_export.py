"""`ImportExport`: the methods that read or write files other than the storage's own.

The invariants: A file is imported completely or not at all. A written file appears complete or not
at all. A storage never overwrites its own file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

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
    from afterimage.storage.transfer.training_formats import (
        FormatName,
        Reasoning,
        TrainingFormat,
    )

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
    ) -> ImportCount:
        r"""Save all records of JSON lines, in their order, or none.

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

        Returns:
            The number of records saved, as an integer. Its attribute `of_kind` is the number of
            those that a load of `kind` returns, and `others` of records of other models.

        Raises:
            CorruptRecordError: a line is not a valid record; the message names it. No record was
                saved.
            UnsupportedFileError: a source has another format, such as CSV or Parquet. No record
                was saved.
            MissingFileError: the file does not exist.
            StorageError: a file was changed while it was read. No record was saved.

        >>> import io
        >>> from afterimage.storage import SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.import_jsonl(io.StringIO('{"conversations":[]}\n{"conversations":[]}\n'))
        2
        """
        read = Read(
            kind_named(kind).saved_as,
            faults=Faults(on_error),
            progress=progress or ignore,
            max_line_bytes=None
            if max_line_bytes is None
            else positive(max_line_bytes, "max_line_bytes"),
        )
        several = path if isinstance(path, Sequence) and not isinstance(path, str) else [path]
        origins = [system_path(each) if isinstance(each, str | Path) else each for each in several]
        with DeferredWarnings() as warn:
            saved = self._backend.append_sources(origins, replace(read, warn=warn))
        read.faults.warn()
        return saved

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
        format: FormatName | None = None,  # noqa: A002  the usual word
        system_prompt: str | None = None,
        reasoning: Reasoning | None = None,
        on_error: OnError = "raise",
    ) -> int:
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
                training tools: "messages" (OpenAI, Hugging Face), "sharegpt" or "alpaca". A
                conversation that the format cannot represent is omitted, as by `afterimage export`.
            system_prompt: content of a system message before every conversation; not for "alpaca".
            reasoning: None omits `reasoning_content`; "field" writes it as that field ("messages"
                only); "think" writes it between <think> tags before the content.

        Returns:
            The number of lines written.

        Raises:
            InvalidQueryError: see the class; or the format does not support an option.
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
            from afterimage.storage.transfer.training_formats import (  # noqa: PLC0415  loads DuckDB
                TrainingFormat,
            )

            if kind_named(kind) is not CONVERSATIONS:
                raise InvalidQueryError(f"format is for conversations only, not for {kind}")
            training = TrainingFormat.of(format, system_prompt, reasoning)
        elif (system_prompt, reasoning) != (None, None):
            raise InvalidQueryError("system_prompt and reasoning require a format")
        query = self._query(kind_named(kind), limit, offset, filters, order_by)
        read = Read(kind_named(kind), query, Faults(on_error), progress or ignore, valid=True)
        if isinstance(path, str | Path):
            target = system_path(path)
            refuse_own_file(target, self._backend.files())
            with written_lines(target) as file:
                written = self._write_lines(file, read, training)
        else:
            written = self._write_lines(path, read, training)
        _finish(read)
        return written

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

    def _write_lines(self, file: IO[bytes], read: Read, training: TrainingFormat | None) -> int:
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
                    lines = [*map(training.finished, batch.column(0).drop_null().to_pylist())]
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


def _reading_share(read: Read) -> Read:
    """Return the read of an export: it reports its share of the work, but no record counts."""
    progress = read.progress
    # A sort reads all records before the first is written: that is half of the work.
    stage = split(progress, [1, 1])[0] if read.query.order else progress
    return replace(read, progress=share_only(stage))


def _finish(read: Read) -> None:
    report(read.progress, 0, 1.0)
    read.faults.warn()
