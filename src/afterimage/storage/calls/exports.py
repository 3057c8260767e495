"""Write records to other files.

The invariants: A written file appears complete or not at all. A storage never overwrites its own
file.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Unpack, cast

from pydantic_core import to_json

from afterimage.storage.calls.shared import Calls
from afterimage.storage.calls.splitting import new_folder, parts_of, reads_of, seed_of
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.query.arguments import Choice, Columns, Filters, OrderBy, Types, as_list
from afterimage.storage.query.query import Query, Share
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import CONVERSATIONS, OTHERS, Kind, RecordKind, kind_named
from afterimage.storage.reports.exports import ExportCount
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.reports.progress import Progress, counting, following, report, share_only
from afterimage.storage.reports.progress import split as stages
from afterimage.storage.system.atomic_files import written_lines
from afterimage.storage.system.interrupts import checkpoint, signal_safe
from afterimage.storage.system.prefetch import prefetched
from afterimage.storage.system.targets import refuse_own_file, system_path
from afterimage.storage.transfer.remote import to_url

if TYPE_CHECKING:  # importing the JSONL storage must not load the engine
    from afterimage.storage.transfer.outgoing import Outgoing
    from afterimage.storage.transfer.training_formats import Reasoning

__all__ = ["ExportCalls"]

# Batches that are prefetched for the writer: about one row group of Parquet.
_AHEAD = 8


class ExportCalls(Calls):
    """The methods that export records."""

    @signal_safe
    @to_url
    def export_jsonl(
        self,
        path: str | Path | IO[bytes],
        *,
        kind: Kind = "conversations",
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        progress: Progress | bool | None = None,
        format: str | None = None,  # noqa: A002  the usual word
        system_prompt: str | None = None,
        reasoning: Reasoning | None = None,
        on_error: OnError = "raise",
        lossy: bool = False,
        trim: bool = False,
        columns: Columns = None,
        split: Mapping[str, float] | None = None,
        split_by: str | None = None,
        **choice: Unpack[Choice],
    ) -> ExportCount:
        r"""Write matching records to a JSONL file: whole records, or lines for training tools.

        The file appears when it is complete. An existing file stays unchanged until then, and its
        permissions are kept. A pipe or a device is written in place.

        Args:
            path: a `.jsonl` file; a `.jsonl.gz` or `.jsonl.zst` file, which is compressed; a URL of
                `fsspec`, such as "s3://bucket/talks.jsonl"; a binary stream, which receives
                uncompressed lines and stays open; or, with `split`, a new folder.
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
            split: the parts with their shares, such as {"train": 0.9, "validation": 0.1}. Each part
                is a file, `train.jsonl`. The seed is `seed`, 42 by default.
            split_by: a field. Records with the same value are in the same part, and a record stays
                in its part when the storage grows. None keeps equal conversations together.
            **choice: see the class.

        Returns:
            The number of lines written, as an integer. Its attribute `omitted` is the number of
            conversations that were left out and the first of them, and `reasons` is their number by
            reason. `dropped` is what lines do not have of their conversations, such as
            {"tool calls": 3}, with the number of these conversations: what `lossy` leaves out,
            reasoning, and the other turns in "alpaca". `parts` is the number of lines of
            each part of a split, and `shares` are the shares that came out.

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
        training = self._training(
            kind, format, system_prompt, reasoning, lossy=lossy, trim=trim, columns=columns
        )
        records = kind_named(kind) if training is None else training.kind
        seed, choice = seed_of(choice, split)
        query = self._query(records, limit, offset, filters, order_by, choice=choice)
        parts = parts_of(split, split_by, seed, self._backend.fields(records))
        _check_split(parts, path, query)
        read = Read(records, query, Faults(on_error), following(progress), valid=True)
        counts: dict[str, int] = {}
        if parts:
            with new_folder(system_path(cast("Path", path))) as folder:
                for name, part in reads_of(self._chosen(read), parts):
                    with written_lines(folder / f"{name}.jsonl") as file:
                        counts[name] = self._write_lines(file, part, training)
            written = sum(counts.values())
        elif isinstance(path, str | Path):
            target = system_path(path)
            refuse_own_file(target, self._backend.files())
            with written_lines(target) as file:
                written = self._write_lines(file, read, training)
        else:
            written = self._write_lines(path, read, training)
        _finish(read)
        if training is not None:
            return training.omissions.of(written, counts)
        return ExportCount(written, parts=counts)

    @signal_safe
    @to_url
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
        progress: Progress | bool | None = None,
        on_error: OnError = "raise",
        format: str | None = None,  # noqa: A002  the usual word
        system_prompt: str | None = None,
        reasoning: Reasoning | None = None,
        lossy: bool = False,
        trim: bool = False,
        split: Mapping[str, float] | None = None,
        split_by: str | None = None,
        types: Types = None,
        **choice: Unpack[Choice],
    ) -> ExportCount:
        """Write matching records to Parquet as a stream: whole records, or rows for training tools.

        The file or folder appears when it is complete. An existing file keeps its permissions. A
        pipe or a device is written in place.

        Args:
            path: the file, or its URL; or, with `partition_by` or `split`, a new folder.
            kind: "conversations" or "documents".
            columns: see `scan_conversations`; with `format`, see `export_jsonl`.
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
            format: None for the columns of a scan; or a format for training tools, with the rows
                that `export_jsonl` writes. Messages and tool calls are structs. Tools, content
                parts, and values of several types are JSON, which Hugging Face `datasets` reads as
                the values, and other readers as text. The types follow from all rows, which wait in
                a temporary file.
            system_prompt: see `export_jsonl`.
            reasoning: see `export_jsonl`.
            lossy: see `export_jsonl`.
            trim: see `export_jsonl`.
            split: see `export_jsonl`. The files are named as on the Hugging Face Hub,
                `train-00000-of-00001.parquet`.
            split_by: see `export_jsonl`.
            types: see `scan_conversations`. A value that does not fit is an error, and no file is
                written.
            **choice: see the class.

        Returns:
            The number of rows written; see `export_jsonl`.

        >>> import tempfile
        >>> import pyarrow.parquet as pq
        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        >>> store.save_conversations([Conversation(conversations=talk)])
        >>> path = Path(tempfile.mkdtemp(), "train.parquet")
        >>> store.export_parquet(path, format="messages")
        1
        >>> pq.read_table(path).to_pylist() == [{"messages": talk}]
        True
        """
        is_whole = format in (None, "native", "raw")
        training = self._training(
            kind,
            None if is_whole else format,
            system_prompt,
            reasoning,
            lossy=lossy,
            trim=trim,
            columns=None if is_whole else columns,
        )
        if training is not None and partition_by is not None:
            raise InvalidQueryError("partition_by cannot be combined with a format")
        if training is not None and types is not None:
            raise InvalidQueryError("types cannot be combined with a format")
        from afterimage.storage.transfer.parquet import (  # noqa: PLC0415  heavy
            json_of_partitions,
            write_parquet,
        )

        records = kind_named(kind) if training is None else training.kind
        partitions = list(as_list(partition_by, "partition_by"))
        names = None if training else self._columns_of(records, columns, partitions)
        target = system_path(path)
        refuse_own_file(target, self._backend.files())
        seed, choice = seed_of(choice, split)
        query = self._query(records, limit, offset, filters, order_by, names, choice)
        query, declared = self._declared(query, types)
        json_columns: frozenset[str] = frozenset()
        if partitions:
            query, json_columns = json_of_partitions(query, partitions)
        parts = parts_of(split, split_by, seed, self._backend.fields(records))
        _check_split(parts, path, query)
        if parts and partitions:
            raise InvalidQueryError("an export has either split or partition_by")
        read = Read(
            records, query, Faults(on_error), following(progress), valid=training is not None
        )

        def write(target: Path, part: Read) -> int:
            part = self._chosen(part)
            if training is not None:
                return self._training_parquet(target, training, part, compression, row_group_bytes)
            selected = self._backend.select(_reading_share(part))
            if declared is not None:
                selected = declared.batches(selected)
            ahead = prefetched(selected, ahead=_AHEAD)
            with closing(counting(ahead, part.progress)) as batches:
                return write_parquet(
                    target,
                    records,
                    part.query,
                    batches,
                    declared,
                    partition_by=partitions,
                    json_columns=json_columns,
                    compression=compression,
                    row_group_bytes=row_group_bytes,
                )

        counts: dict[str, int] = {}
        if parts:
            with new_folder(target) as folder:
                for name, part in reads_of(self._chosen(read), parts):
                    counts[name] = write(folder / f"{name}-00000-of-00001.parquet", part)
            written = sum(counts.values())
        else:
            written = write(target, read)
        _finish(read)
        if training is not None:
            return training.omissions.of(written, counts)
        return ExportCount(written, parts=counts)

    def _columns_of(
        self, records: RecordKind, columns: Columns, partitions: Sequence[str]
    ) -> list[str]:
        if records is OTHERS:
            raise InvalidQueryError(
                "records of other models have no declared columns; use export_jsonl"
            )
        names = list(records.stored if columns is None else as_list(columns, "columns"))
        return names + [name for name in partitions if name not in names]

    def _training(
        self,
        kind: Kind,
        format_name: str | None,
        system_prompt: str | None,
        reasoning: Reasoning | None,
        *,
        lossy: bool,
        trim: bool,
        columns: Columns,
    ) -> Outgoing | None:
        """Return what makes the rows of a format; None for whole records."""
        if format_name is None:
            if (system_prompt, reasoning, columns) != (None, None, None) or lossy or trim:
                raise InvalidQueryError(
                    "system_prompt, reasoning, lossy, trim and columns require a format"
                )
            return None
        from afterimage.storage.transfer.outgoing import Outgoing  # noqa: PLC0415  loads DuckDB

        if kind_named(kind) is not CONVERSATIONS:
            raise InvalidQueryError(f"format is for conversations only, not for {kind}")
        where = ", ".join(map(str, self._backend.files())) or ":memory:"
        return Outgoing(
            where, format_name, system_prompt, reasoning, lossy=lossy, trim=trim, columns=columns
        )

    def _training_parquet(
        self, path: Path, training: Outgoing, read: Read, compression: str, row_group_bytes: int
    ) -> int:
        """Write the rows of a read in a format to a Parquet file; return their number."""
        from afterimage.storage.transfer.training_parquet import (  # noqa: PLC0415  heavy
            write_training_parquet,
        )

        with closing(self._lines(read, training)) as batches:
            return write_training_parquet(
                path,
                batches,
                training.keys,
                compression=compression,
                row_group_bytes=row_group_bytes,
            )

    def _write_lines(self, file: IO[bytes], read: Read, training: Outgoing | None) -> int:
        """Write the records of a read, or their lines in a format; return the number of lines."""
        written = 0
        read = self._chosen(read)
        if training is not None:
            with closing(self._lines(read, training)) as batches_of_lines:
                for lines in batches_of_lines:
                    joined = "".join(chain.from_iterable((line, "\n") for line in lines))
                    file.write(joined.encode())
                    written += len(lines)
            return written
        with closing(self._backend.objects(_reading_share(read))) as batches:
            for objects in batches:
                checkpoint()
                file.write(b"".join(chain.from_iterable((to_json(o), b"\n") for o in objects)))
                written += len(objects)
                read.progress(len(objects))
        return written

    def _lines(self, read: Read, training: Outgoing) -> Generator[list[str], None, None]:
        """Yield the lines of the records of a read in a format, without line feeds."""
        with closing(self._backend.select(_reading_share(read), training.line)) as texts:
            for batch in texts:
                checkpoint()
                yield training.lines(batch.column(0).to_pylist())
                read.progress(len(batch))


def _check_split(parts: Mapping[str, Share], path: object, query: Query) -> None:
    if not parts:
        return
    if not isinstance(path, str | Path):
        raise InvalidQueryError("an export with split requires a new folder, not a stream")
    if query.limit is not None or query.offset:
        raise InvalidQueryError("limit and offset do not go with split; use sample")


def _reading_share(read: Read) -> Read:
    """Return the read of an export: it reports its share of the work, but no record counts."""
    progress = read.progress
    # A sort reads all records before the first is written: that is half of the work.
    stage = stages(progress, [1, 1])[0] if read.query.order else progress
    return replace(read, progress=share_only(stage))


def _finish(read: Read) -> None:
    report(read.progress, 0, 1.0)
    read.faults.warn()
