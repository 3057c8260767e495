"""The calls that every storage of this package answers, over the few that each must implement.

A storage implements `_save`, `_objects`, `_models`, `_batches`, `_texts`, `_count`, `_relation` and
`_import`, each for one kind of records and one checked `Query`, and `_verify`; all public calls
follow from those here, so that they mean the same everywhere.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel
from pydantic_core import to_json

from afterimage.storage.atomic_files import written_lines
from afterimage.storage.base import BaseStorage
from afterimage.storage.errors import InvalidQueryError, InvalidRecordError, shown
from afterimage.storage.fields import CONVERSATIONS, DOCUMENTS, FieldType, Json, RecordTable
from afterimage.storage.models import (
    Conversation,
    ConversationWithContext,
    Document,
    EvaluatedConversationWithContext,
)
from afterimage.storage.query import Columns, Filters, OrderBy, Query, listed, positive
from afterimage.storage.records import matching
from afterimage.storage.skipping import CorruptRecords, OnError
from afterimage.storage.verification import Verification

if TYPE_CHECKING:  # the JSONL storage alone is not to load it
    import pyarrow as pa
    import sqlalchemy as sa

    from afterimage.storage.predicates import Source
    from afterimage.storage.stats import Statistics
    from afterimage.storage.training_formats import FormatName, Reasoning

__all__ = ["Kind", "Progress", "RecordStorage"]

Kind = Literal["conversations", "documents", "records"]
"""Which records: conversations, documents, or those of other models among the conversations."""

Progress = Callable[[int], object]
"""Is told of records as they are worked on; the `update` of a progress bar, for one."""

_TABLES: Mapping[str, RecordTable] = {"conversations": CONVERSATIONS, "documents": DOCUMENTS}
_Model = TypeVar("_Model", bound=BaseModel)
_Found = TypeVar("_Found")

# Records that one step of a load builds: enough to make its costs vanish, few enough for memory.
_LOAD_BATCH = 4096


class RecordStorage(BaseStorage):
    """What the storages of this package have in common.

    All reads take the same arguments:

    - `limit`, `offset`: most records to give, and records to leave out before them;
    - `filters`: `{field: value}`, or `[(field, op, value), …]` (ANDed), or a list of such lists
      (ORed), with `==` `=` `!=` `<` `<=` `>` `>=` `in` `not in`;
    - `order_by`: `[(field, direction), …]` with direction 1, -1, "asc" or "desc". Null sorts last
      in either direction; ties, and no order at all, follow insertion order;
    - `on_error`: what to do where something stored is no valid record, as after a write that broke
      off or an edit by hand. "raise" raises `CorruptRecordError` where the call cannot go on (a
      load on every record it is to give; counts, scans and exports only where a line is no JSON).
      "skip" answers as if what a load would refuse were not there, and warns at the end with a
      `SkippedRecordsWarning`: how many were skipped, and where the first are. It checks every
      record, so that a count or a scan then costs about what a load does.

    A field is a top-level field, or a dotted path into a struct or into metadata. All reads raise
    `UnknownFieldError` for a field that is none and `InvalidQueryError` for what has no meaning,
    both before anything is read.
    """

    # -- what a storage implements ------------------------------------------------------------

    @abstractmethod
    def _save(self, table: RecordTable, records: Sequence[BaseModel]) -> None:
        """Save all of them or none."""

    @abstractmethod
    def _objects(
        self, kind: Kind, query: Query, corrupt: CorruptRecords
    ) -> Iterator[list[dict[str, Any]]]:
        """Matching records as JSON objects, extras included, in bounded lists."""

    @abstractmethod
    def _models(
        self, table: RecordTable, query: Query, batch_size: int, corrupt: CorruptRecords
    ) -> Iterator[list[Any]]:
        """Matching records as validated models, in lists of at most `batch_size`."""

    @abstractmethod
    def _batches(
        self, table: RecordTable, query: Query, corrupt: CorruptRecords
    ) -> Iterator[pa.RecordBatch]:
        """The query's columns of matching records, with the declared schema."""

    @abstractmethod
    def _texts(
        self, query: Query, text: Callable[[Source], Any], corrupt: CorruptRecords
    ) -> Iterator[pa.RecordBatch]:
        """What `text` makes of each matching conversation in SQL: one column of strings."""

    @abstractmethod
    def _count(self, kind: Kind, query: Query, corrupt: CorruptRecords) -> int:
        """How many records match."""

    @abstractmethod
    def _relation(
        self, kind: Kind
    ) -> AbstractContextManager[tuple[sa.Connection, sa.FromClause, Source]]:
        """The records for one SQL statement that reads them once, and where the fields are."""

    @abstractmethod
    def _import(
        self, table: RecordTable, path: Path, corrupt: CorruptRecords, progress: Progress
    ) -> int:
        """Save the records of a JSONL file, all that are not skipped or none; how many."""

    @abstractmethod
    def _verify(self) -> Verification:
        """What `verify` gives."""

    @abstractmethod
    def _own_files(self) -> list[Path]:
        """The files that hold this storage's records."""

    # Iterators that a caller may keep for long; a storage that would shut others out meanwhile
    # overrides these two.

    def _held_models(
        self, table: RecordTable, query: Query, batch_size: int, corrupt: CorruptRecords
    ) -> Iterator[list[Any]]:
        return self._models(table, query, batch_size, corrupt)

    def _held_batches(
        self, table: RecordTable, query: Query, corrupt: CorruptRecords
    ) -> Iterator[pa.RecordBatch]:
        return self._batches(table, query, corrupt)

    def _refuse_own_file(self, path: Path) -> None:
        for own in self._own_files():
            if path.absolute() == own or (path.exists() and own.exists() and path.samefile(own)):
                raise InvalidQueryError(f"{path} is this storage's own file. Give another one.")

    def _fields(self, table: RecordTable) -> Mapping[str, FieldType]:
        """The fields that filters and sorts may name."""
        return table.record.fields

    # -- conversations ------------------------------------------------------------------------

    def save_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """Save conversations, and records of other models, in the order given.

        All are saved or, where one is refused, none; on return they are on the disk. A subclass's
        own fields are kept, at any depth. A record of another model is kept whole for
        `load_records`.

        Raises:
            InvalidRecordError: a record has no form in JSON, or could not be read back.
            LockTimeoutError: another process held the file for all of `lock_timeout`.
        """
        self._save(CONVERSATIONS, _listed(conversations))

    async def asave_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """`save_conversations` in a worker thread; a subclass that overrides it is honoured."""
        await asyncio.to_thread(self.save_conversations, conversations)

    def load_conversations(  # type: ignore[override]  # lists are invariant; both are documented
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        on_error: OnError = "raise",
    ) -> list[EvaluatedConversationWithContext]:
        """Conversations as validated models.

        Raises:
            InvalidQueryError: see the class.
            CorruptRecordError: something stored is no valid record; names the place. With
                `on_error="skip"` it is left out instead.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations(
        ...     [Conversation(conversations=[], metadata={"turn": turn}) for turn in range(5)]
        ... )
        >>> newest = store.load_conversations(
        ...     limit=2, filters=[("metadata.turn", "<", 4)], order_by=[("metadata.turn", -1)]
        ... )
        >>> [conversation.metadata["turn"] for conversation in newest]
        [3, 2]
        """
        query = self._query(CONVERSATIONS, limit, offset, filters, order_by)
        return self._load(CONVERSATIONS, query, on_error)

    def iter_conversations(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        batch_size: int = 1024,
        on_error: OnError = "raise",
    ) -> Iterator[EvaluatedConversationWithContext]:
        """The records of `load_conversations` one by one, `batch_size` of them in memory."""
        query = self._query(CONVERSATIONS, limit, offset, filters, order_by)
        return self._iterate(CONVERSATIONS, query, batch_size, on_error)

    def scan_conversations(
        self,
        columns: Columns = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        *,
        on_error: OnError = "raise",
    ) -> pa.RecordBatchReader:
        """Conversations as Arrow record batches, in bounded memory; no model is built.

        Args:
            columns: field paths in the order wanted; a dotted path is a column of that name. What
                lies inside metadata comes as text: strings as they are, other values as JSON.
                None gives all declared fields and `extra`.
            filters: as everywhere.
            order_by: as everywhere.
            limit: as everywhere.
            offset: as everywhere.
            on_error: as everywhere; the warning comes when the reader is at its end.

        Returns:
            A reader of the declared schema; anything that takes an Arrow stream reads it. Where
            there is more to read than some megabytes, a database file stays open, and so locked
            for other processes, until the reader is read to its end or let go of (`del reader`;
            its own `close()` does not reach that far).

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Conversation(conversations=[], metadata={"a": {"b": 1}})])
        >>> store.scan_conversations(columns=["metadata.a.b", "persona"]).read_all().to_pylist()
        [{'metadata.a.b': '1', 'persona': None}]
        """
        return self._scan(CONVERSATIONS, columns, limit, offset, filters, order_by, on_error)

    def count_conversations(self, filters: Filters = None, *, on_error: OnError = "raise") -> int:
        """How many conversations match."""
        corrupt = CorruptRecords(on_error)
        query = self._query(CONVERSATIONS, None, None, filters, None)
        counted = self._count("conversations", query, corrupt)
        corrupt.warn()
        return counted

    # -- documents ----------------------------------------------------------------------------

    def save_documents(self, documents: list[Document]) -> None:
        """Save documents in the order given: all or, where one is refused, none.

        Raises:
            InvalidRecordError: a record is no document, or has no form in JSON.
            LockTimeoutError: another process held the file for all of `lock_timeout`.
        """
        self._save(DOCUMENTS, _listed(documents))

    async def asave_documents(self, documents: list[Document]) -> None:
        """`save_documents` in a worker thread; a subclass that overrides it is honoured."""
        await asyncio.to_thread(self.save_documents, documents)

    def load_documents(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        on_error: OnError = "raise",
    ) -> list[Document]:
        """Documents as validated models; see `load_conversations`."""
        query = self._query(DOCUMENTS, limit, offset, filters, order_by)
        return self._load(DOCUMENTS, query, on_error)

    def iter_documents(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        batch_size: int = 1024,
        on_error: OnError = "raise",
    ) -> Iterator[Document]:
        """The records of `load_documents` one by one, `batch_size` of them in memory."""
        query = self._query(DOCUMENTS, limit, offset, filters, order_by)
        return self._iterate(DOCUMENTS, query, batch_size, on_error)

    def scan_documents(
        self,
        columns: Columns = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        *,
        on_error: OnError = "raise",
    ) -> pa.RecordBatchReader:
        """Documents as Arrow record batches; see `scan_conversations`."""
        return self._scan(DOCUMENTS, columns, limit, offset, filters, order_by, on_error)

    def count_documents(self, filters: Filters = None, *, on_error: OnError = "raise") -> int:
        """How many documents match."""
        corrupt = CorruptRecords(on_error)
        query = self._query(DOCUMENTS, None, None, filters, None)
        counted = self._count("documents", query, corrupt)
        corrupt.warn()
        return counted

    # -- records of any model -----------------------------------------------------------------

    def load_records(
        self,
        model: type[_Model],
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        on_error: OnError = "raise",
    ) -> list[_Model]:
        """Saved records as `model`: those whose keys are all fields of it and that validate as it.

        For a subclass of `Conversation` these are conversations, with the subclass's own fields;
        for any other model, the records that are no conversations. Filters and sorts may name the
        model's own fields and what lies inside them.

        >>> from afterimage.storage import SQLStorage
        >>> class Note(BaseModel):
        ...     text: str
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Note(text="one"), Note(text="two")])
        >>> store.load_records(Note, filters=[("text", ">", "one")])
        [Note(text='two')]
        >>> store.load_conversations()
        []
        """
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise InvalidQueryError(f"a model is a pydantic class, not {shown(model, 60)}")
        own: dict[str, FieldType] = {name: Json() for name in model.model_fields}
        kind: Kind = "records"
        if issubclass(model, Conversation):
            # The model's own fields come before columns of the storage of the same name.
            kind = "conversations"
            own = {**self._fields(CONVERSATIONS), **own, **CONVERSATIONS.record.fields}
        query = Query.of(own, limit=limit, offset=offset, filters=filters, order_by=order_by)
        match = matching(model)
        corrupt = CorruptRecords(on_error)
        found = (
            record
            for objects in self._objects(kind, query.without_slice(), corrupt)
            for record in map(match, objects)
            if record is not None
        )
        page = list(islice(islice(found, query.offset, None), query.limit))
        corrupt.warn()
        return page

    # -- all at once --------------------------------------------------------------------------

    def stats(self, filters: Filters = None, *, top_keys: int = 20) -> Statistics:
        """What is in here: counts, lengths, scores, metadata keys, duplicates; see `Statistics`.

        The engine works it out in one pass over the conversations. It keeps no contents, but some
        numbers of each conversation and message.

        Args:
            filters: which conversations it is about. Documents and records of other models are
                always counted whole.
            top_keys: how many metadata keys to tell of.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> talk = [{"role": "user", "content": "To Rome, please."}]
        >>> store.save_conversations([Conversation(conversations=talk, metadata={"day": 3})] * 2)
        >>> found = store.stats()
        >>> found.messages, found.characters["user"].median, found.duplicates
        (2, 16.0, 1)
        >>> found.metadata_keys
        (MetadataKey(key='day', rows=2, values=1),)
        """
        from afterimage.storage.stats_query import (  # noqa: PLC0415  heavy
            conversation_statistics,
            counted,
        )

        query = self._query(CONVERSATIONS, None, None, filters, None)
        positive(top_keys, "top_keys")
        with self._relation("documents") as (connection, relation, _):
            documents = counted(connection, relation)
        with self._relation("records") as (connection, relation, _):
            records = counted(connection, relation)
        with self._relation("conversations") as (connection, relation, source):
            return conversation_statistics(
                connection,
                relation,
                source,
                query,
                documents=documents,
                records=records,
                top_keys=top_keys,
            )

    # -- files --------------------------------------------------------------------------------

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
        if kind == "records":
            kind = "conversations"
        corrupt = CorruptRecords(on_error)
        saved = self._import(_TABLES[_checked(kind)], Path(path), corrupt, progress or _unseen)
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
            progress: called now and then with how many records were written since the last call.
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
        progress = progress or _unseen
        corrupt = CorruptRecords(on_error)
        if format is not None:
            return self._export_training(
                Path(path),
                _checked(kind),
                self._query(CONVERSATIONS, limit, offset, filters, order_by),
                (format, system_prompt, reasoning),
                corrupt,
                progress,
            )
        if (system_prompt, reasoning) != (None, None):
            raise InvalidQueryError("system_prompt and reasoning go with a format; give one")
        if _checked(kind) == "records":
            query = Query.of(
                _AnyField(), limit=limit, offset=offset, filters=filters, order_by=order_by
            )
        else:
            query = self._query(_TABLES[kind], limit, offset, filters, order_by)
        written = 0
        self._refuse_own_file(Path(path))
        objects = self._objects(kind, query, corrupt)
        with written_lines(Path(path)) as file, _closed_after(objects) as batches:
            for some in batches:
                file.write(b"".join(chain.from_iterable((to_json(o), b"\n") for o in some)))
                written += len(some)
                progress(len(some))
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
        row_group_bytes: int = 32 * 2**20,
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
            progress: called now and then with how many records were written since the last call.
            on_error: as everywhere.

        Returns:
            How many records were written.
        """
        from afterimage.storage.parquet import write_parquet  # noqa: PLC0415  heavy

        if _checked(kind) == "records":
            raise InvalidQueryError(
                "records of other models have no declared columns; export_jsonl writes them"
            )
        table = _TABLES[kind]
        names = list(table.stored if columns is None else listed(columns, "columns"))
        partitions = list(listed(partition_by, "partition_by"))
        names += [name for name in partitions if name not in names]
        self._refuse_own_file(Path(path))
        query = self._query(table, limit, offset, filters, order_by, names)
        corrupt = CorruptRecords(on_error)
        with _closed_after(self._batches(table, query, corrupt)) as batches:
            written = write_parquet(
                Path(path),
                table,
                query,
                _followed(batches, progress or _unseen),
                partition_by=partitions,
                compression=compression,
                row_group_bytes=row_group_bytes,
            )
        corrupt.warn()
        return written

    # -- what is stored -----------------------------------------------------------------------

    def verify(self) -> Verification:
        """Read again all that is stored, in bounded memory, and report what is wrong with it.

        Nothing is changed. Printed, the report is a page; `report.ok` says that nothing is wrong.

        Raises:
            LockTimeoutError: another process held the file for all of `lock_timeout`.

        >>> from afterimage.storage import Document, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_documents([Document(id="a"), Document(id="a")])
        >>> report = store.verify()
        >>> report.ok, report.documents, report.duplicate_ids.count
        (False, 2, 1)
        """
        return self._verify()

    def _export_training(
        self,
        path: Path,
        kind: str,
        query: Query,
        options: tuple[Any, Any, Any],
        corrupt: CorruptRecords,
        progress: Progress,
    ) -> int:
        from afterimage.storage.training_formats import TrainingFormat  # noqa: PLC0415  heavy

        if kind != "conversations":
            raise InvalidQueryError(f"a format is for conversations, not for {kind}")
        made = TrainingFormat.of(*options)
        written = 0
        self._refuse_own_file(path)
        texts = self._texts(query, made.line, corrupt)
        with written_lines(path) as file, _closed_after(texts) as batches:
            for batch in batches:
                lines = batch.column(0).drop_null().to_pylist()
                file.write("".join(chain.from_iterable((line, "\n") for line in lines)).encode())
                written += len(lines)
                progress(len(batch))
        corrupt.warn()
        return written

    # -- what the above share -----------------------------------------------------------------

    def _query(
        self,
        table: RecordTable,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
        columns: Columns = None,
    ) -> Query:
        fields = self._fields(table)
        return Query.of(
            fields,
            limit=limit,
            offset=offset,
            filters=filters,
            order_by=order_by,
            columns=columns,
            projectable={**fields, **table.stored},
        )

    def _load(self, table: RecordTable, query: Query, on_error: OnError) -> list[Any]:
        corrupt = CorruptRecords(on_error)
        found = list(chain.from_iterable(self._models(table, query, _LOAD_BATCH, corrupt)))
        corrupt.warn()
        return found

    def _iterate(
        self, table: RecordTable, query: Query, batch_size: int, on_error: OnError
    ) -> Iterator[Any]:
        corrupt = CorruptRecords(on_error)
        size = positive(batch_size, "batch_size")
        batches = self._held_models(table, query, size, corrupt)
        return chain.from_iterable(corrupt.watched(batches))

    def _scan(
        self,
        table: RecordTable,
        columns: Columns,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
        on_error: OnError,
    ) -> pa.RecordBatchReader:
        import pyarrow as pa  # noqa: PLC0415  heavy: not with the JSONL storage

        from afterimage.storage.schema import projected_schema  # noqa: PLC0415

        names = list(table.stored) if columns is None else columns
        query = self._query(table, limit, offset, filters, order_by, names)
        assert query.columns is not None
        corrupt = CorruptRecords(on_error)
        return pa.RecordBatchReader.from_batches(
            projected_schema(query.columns),
            corrupt.watched(self._held_batches(table, query, corrupt)),
        )


def _unseen(_: int) -> None:
    """Follow nothing."""


def _followed(batches: Iterator[pa.RecordBatch], progress: Progress) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        progress(batch.num_rows)


class _AnyField(Mapping[str, FieldType]):
    """Fields of records whose model is not known: any name, any value."""

    def __getitem__(self, name: str) -> FieldType:
        return Json()

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@contextmanager
def _closed_after(found: Iterator[_Found]) -> Iterator[Iterator[_Found]]:
    """Let go of the storage's files even where an error, which is kept, keeps the iterator."""
    try:
        yield found
    finally:
        if isinstance(found, Generator):
            found.close()


def _checked(kind: str) -> str:
    if kind not in get_args(Kind):
        raise InvalidQueryError(
            f"unknown kind {shown(kind, 40)}; use {', '.join(map(repr, get_args(Kind)))}"
        )
    return kind


def _listed(records: Any) -> list[BaseModel]:
    if isinstance(records, BaseModel | str | Mapping) or not isinstance(records, Iterable):
        raise InvalidRecordError(
            f"give a list of records, not one {type(records).__name__}: [record]"
        )
    return list(records)
