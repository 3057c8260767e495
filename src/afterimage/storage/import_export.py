"""`ImportExport`: the calls that read or write files other than the storage's own.

The invariants: a file is imported whole or not at all; a file that is written appears whole or not
at all; a storage never overwrites its own file.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pydantic_core import to_json

from afterimage.storage.backend import Backend
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.query.arguments import Columns, Filters, OrderBy, as_list
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
from afterimage.storage.reports.progress import (
    Progress,
    counting,
    ignore,
    report,
    share_only,
    split,
)
from afterimage.storage.system.atomic_files import refuse_own_file, written_lines
from afterimage.storage.system.prefetch import prefetched

if TYPE_CHECKING:  # importing the JSONL storage does not load the engine
    from afterimage.storage.transfer.training_formats import (
        FormatName,
        Reasoning,
        TrainingFormat,
    )

__all__ = ["ImportExport"]

# Batches read ahead of the writer: about as many as make the next row group of Parquet.
_AHEAD = 8


class ImportExport:
    """The calls of `RecordStorage` that read or write files other than its own.

    Args:
        backend: where the records are.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for other writers and processes; may be changed at any time."""
        return self._backend.lock_timeout

    @lock_timeout.setter
    def lock_timeout(self, seconds: float) -> None:
        self._backend.lock_timeout = seconds

    def import_jsonl(
        self,
        path: str | Path,
        *,
        kind: Kind = "conversations",
        progress: Progress | None = None,
        on_error: OnError = "raise",
    ) -> int:
        """Save every record of a JSONL file, in its order: all of them, or none.

        Args:
            path: a `.jsonl` file, or one packed as `.jsonl.gz` or `.jsonl.zst`.
            kind: what its lines are; "conversations" takes records of other models, too.
            progress: called now and then with how many records were read since the last call.
            on_error: with "skip", lines that are no valid records are left out, and those behind
                the damage of a packed file; the rest is saved, all of it or nothing, and a
                `SkippedRecordsWarning` then says how many were skipped and where the first are.

        Returns:
            How many records were saved.

        Raises:
            CorruptRecordError: a line is no valid record; names it. Nothing was saved.
            MissingFileError: there is no such file.
        """
        read = Read(kind_named(kind).saved_as, faults=Faults(on_error), progress=progress or ignore)
        saved = self._backend.append_file(Path(path), read)
        read.faults.warn()
        return saved

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
        format: FormatName | None = None,  # noqa: A002  the word that trainers use
        system_prompt: str | None = None,
        reasoning: Reasoning | None = None,
        on_error: OnError = "raise",
    ) -> int:
        r"""Write matching records to a JSONL file: whole as they were saved, or to train from.

        The file appears when it is complete; whatever was there before stays until then.

        Args:
            path: a `.jsonl` file, or `.jsonl.gz` or `.jsonl.zst` for a compressed one; or a binary
                stream, which gets plain lines and stays open.
            kind: "conversations", "documents", or "records" for those of other models.
            filters: as everywhere; of "records", any field.
            order_by: as everywhere.
            limit: as everywhere.
            offset: as everywhere.
            progress: called now and then with how many records were written since the last call;
                a `ShareProgress` is also told how much of a JSON lines file is read for them.
            on_error: as everywhere.
            format: None for records as they were saved, or a format of conversations that trainers
                read: "messages" (OpenAI, Hugging Face), "sharegpt" or "alpaca". A conversation
                that the format has no line for is left out, as `afterimage export` does.
            system_prompt: what a system message before every conversation says; not in "alpaca".
            reasoning: None leaves `reasoning_content` out; "field" keeps it as that field
                ("messages" only); "think" puts it between <think> tags before the content.

        Returns:
            How many lines were written.

        Raises:
            InvalidQueryError: see the class; an option that the format has no place for.
            CorruptRecordError: something stored is no valid record; names the place.

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
        made = None
        if format is not None:
            from afterimage.storage.transfer.training_formats import (  # noqa: PLC0415  loads DuckDB
                TrainingFormat,
            )

            if kind_named(kind) is not CONVERSATIONS:
                raise InvalidQueryError(f"a format is for conversations, not for {kind}")
            made = TrainingFormat.of(format, system_prompt, reasoning)
        elif (system_prompt, reasoning) != (None, None):
            raise InvalidQueryError("system_prompt and reasoning go with a format; give one")
        query = self._query(kind_named(kind), limit, offset, filters, order_by)
        read = Read(kind_named(kind), query, Faults(on_error), progress or ignore)
        if isinstance(path, str | Path):
            refuse_own_file(Path(path), self._backend.files())
            with written_lines(Path(path)) as file:
                written = self._write_lines(file, read, made)
        else:
            written = self._write_lines(path, read, made)
        _finish(read)
        return written

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
        """Write matching records to Parquet, streaming.

        The file or folder appears when it is complete.

        Args:
            path: the file or, with `partition_by`, a new folder.
            kind: "conversations" or "documents".
            columns: as in a scan.
            filters: as everywhere.
            order_by: as everywhere.
            limit: as everywhere.
            offset: as everywhere.
            partition_by: fields whose values make Hive folders, `metadata.domain=Flights/…`, with
                one file each, `part-0.parquet`. There can be any number of values. Rows wait in a
                temporary file in the new folder, which can take as much disk space as the records
                take as Arrow data. A value must fit into the name of a folder.
            compression: "zstd", "snappy", "gzip", "lz4", "brotli" or "none".
            row_group_bytes: about how many bytes of Arrow data make a row group.
            progress: called now and then with how many records were written since the last call;
                a `ShareProgress` is also told how much of a JSON lines file is read for them.
            on_error: as everywhere.

        Returns:
            How many records were written.
        """
        from afterimage.storage.transfer.parquet import write_parquet  # noqa: PLC0415  heavy

        records = kind_named(kind)
        if records is OTHERS:
            raise InvalidQueryError(
                "records of other models have no declared columns; export_jsonl writes them"
            )
        names = list(records.stored if columns is None else as_list(columns, "columns"))
        partitions = list(as_list(partition_by, "partition_by"))
        names += [name for name in partitions if name not in names]
        refuse_own_file(Path(path), self._backend.files())
        query = self._query(records, limit, offset, filters, order_by, names)
        read = Read(records, query, Faults(on_error), progress or ignore)
        ahead = prefetched(self._backend.select(_reading_share(read)), ahead=_AHEAD)
        with closing(counting(ahead, read.progress)) as batches:
            written = write_parquet(
                Path(path),
                records,
                query,
                batches,
                partition_by=partitions,
                compression=compression,
                row_group_bytes=row_group_bytes,
            )
        _finish(read)
        return written

    def _write_lines(self, file: IO[bytes], read: Read, made: TrainingFormat | None) -> int:
        """Write the records of a read, or the lines that a format makes of them; how many."""
        written = 0
        reading = _reading_share(read)
        if made is None:
            with closing(self._backend.objects(reading)) as batches:
                for objects in batches:
                    file.write(b"".join(chain.from_iterable((to_json(o), b"\n") for o in objects)))
                    written += len(objects)
                    read.progress(len(objects))
        else:
            with closing(self._backend.select(reading, made.line)) as texts:
                for batch in texts:
                    lines = batch.column(0).drop_null().to_pylist()
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
        """The query of a call, checked before anything is read."""
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
    """The read of an export, which reports its share of the work and no records."""
    progress = read.progress
    # With a sort, nothing is written before everything is read: that is half of the work.
    stage = split(progress, [1, 1])[0] if read.query.order else progress
    return replace(read, progress=share_only(stage))


def _finish(read: Read) -> None:
    report(read.progress, 0, 1.0)
    read.faults.warn()
