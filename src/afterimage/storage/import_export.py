"""Records from files and to files, streamed: JSONL as they were saved or to train from, Parquet.

The invariants: a file is imported whole or not at all, and a file that is written appears whole or
not at all; a storage never writes over its own file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import to_json

from afterimage.storage.backend import Backend, refuse_own_file
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.query.query import Columns, Filters, OrderBy, Query, listed
from afterimage.storage.records.fields import CONVERSATIONS, FieldType, Json
from afterimage.storage.records.kinds import RECORD_TABLES, Kind, check_kind
from afterimage.storage.reports.faults import CorruptRecords, OnError
from afterimage.storage.reports.progress import Progress, followed, only_share, parts, tell, unseen
from afterimage.storage.system.atomic_files import written_lines
from afterimage.storage.system.interrupts import checkpoint, deferred_signals
from afterimage.storage.system.prefetch import prefetched

if TYPE_CHECKING:  # the JSONL storage alone is not to load it
    from afterimage.storage.transfer.training_formats import FormatName, Reasoning, TrainingFormat

__all__ = ["AnyField", "ImportExport"]

# Batches read ahead of what is being written: about as many as make the next row group of Parquet.
_AHEAD = 8


class ImportExport(Backend):
    """The calls of `RecordStorage` that read or write files other than its own."""

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
        corrupt = CorruptRecords(on_error)
        check_kind(kind)
        with deferred_signals():
            saved = self._import(RECORD_TABLES[kind], Path(path), corrupt, progress or unseen)
        corrupt.warn()
        return saved

    def export_jsonl(
        self,
        path: str | Path,
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
            path: `.jsonl`, or `.jsonl.gz` or `.jsonl.zst` to have it packed.
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
        progress = progress or unseen
        corrupt = CorruptRecords(on_error)
        if format is not None:
            from afterimage.storage.transfer.training_formats import TrainingFormat  # noqa: PLC0415  heavy

            check_kind(kind)
            query = self._query(CONVERSATIONS, limit, offset, filters, order_by)
            if kind != "conversations":
                raise InvalidQueryError(f"a format is for conversations, not for {kind}")
            made = TrainingFormat.of(format, system_prompt, reasoning)
            return self._export_training(Path(path), query, made, corrupt, progress)
        if (system_prompt, reasoning) != (None, None):
            raise InvalidQueryError("system_prompt and reasoning go with a format; give one")
        check_kind(kind)
        if kind == "records":
            query = Query.of(
                AnyField(), limit=limit, offset=offset, filters=filters, order_by=order_by
            )
        else:
            query = self._query(RECORD_TABLES[kind], limit, offset, filters, order_by)
        written = 0
        refuse_own_file(Path(path), self._own_files())
        objects = self._objects(kind, query, corrupt, _of_reading(query, progress))
        with deferred_signals(), written_lines(Path(path)) as file, closing(objects) as batches:
            for some in batches:
                checkpoint()
                file.write(b"".join(chain.from_iterable((to_json(o), b"\n") for o in some)))
                written += len(some)
                progress(len(some))
        tell(progress, 0, 1.0)
        corrupt.warn()
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
            partition_by: fields whose values make Hive folders, `metadata.domain=Flights/…`.
            compression: "zstd", "snappy", "gzip", "lz4", "brotli" or "none".
            row_group_bytes: about how many bytes of Arrow data make a row group.
            progress: called now and then with how many records were written since the last call;
                a `ShareProgress` is also told how much of a JSON lines file is read for them.
            on_error: as everywhere.

        Returns:
            How many records were written.
        """
        from afterimage.storage.transfer.parquet import write_parquet  # noqa: PLC0415  heavy

        check_kind(kind)
        if kind == "records":
            raise InvalidQueryError(
                "records of other models have no declared columns; export_jsonl writes them"
            )
        table = RECORD_TABLES[kind]
        names = list(table.stored if columns is None else listed(columns, "columns"))
        partitions = list(listed(partition_by, "partition_by"))
        names += [name for name in partitions if name not in names]
        refuse_own_file(Path(path), self._own_files())
        query = self._query(table, limit, offset, filters, order_by, names)
        corrupt = CorruptRecords(on_error)
        progress = progress or unseen
        found = self._batches(table, query, corrupt, _of_reading(query, progress))
        ahead = prefetched(found, ahead=_AHEAD)
        with deferred_signals(), closing(followed(ahead, progress)) as batches:
            written = write_parquet(
                Path(path),
                table,
                query,
                batches,
                partition_by=partitions,
                compression=compression,
                row_group_bytes=row_group_bytes,
            )
        tell(progress, 0, 1.0)
        corrupt.warn()
        return written

    def _export_training(
        self,
        path: Path,
        query: Query,
        made: TrainingFormat,
        corrupt: CorruptRecords,
        progress: Progress,
    ) -> int:
        written = 0
        refuse_own_file(path, self._own_files())
        texts = self._texts(query, made.line, corrupt, _of_reading(query, progress))
        with deferred_signals(), written_lines(path) as file, closing(texts) as batches:
            for batch in batches:
                checkpoint()
                lines = batch.column(0).drop_null().to_pylist()
                file.write("".join(chain.from_iterable((line, "\n") for line in lines)).encode())
                written += len(lines)
                progress(len(batch))
        tell(progress, 0, 1.0)
        corrupt.warn()
        return written


def _of_reading(query: Query, progress: Progress) -> Progress:
    """What is told how much is read for an export."""
    # Sorted, nothing is written before all is read: that is half of the work.
    return only_share(parts(progress, [1, 1])[0] if query.order else progress)


class AnyField(Mapping[str, FieldType]):
    """Fields of records whose model is not known: any name, any value."""

    def __getitem__(self, name: str) -> FieldType:
        return Json()

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
