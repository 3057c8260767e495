"""The tables of the database: their DDL, their version, and the columns of metadata fields.

The tables use no keys, sequences, enums or generated columns, because not every catalog supports
them. The table `afterimage_schema` has one row per table, with the version of its layout and the
metadata keys that have their own columns. Every writer reads these keys and fills the columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from afterimage.storage.engine.dialect import SqlType
from afterimage.storage.engine.statements import execute_arrow, existing, fetch_all
from afterimage.storage.errors import InvalidQueryError, SchemaMismatchError, shorten
from afterimage.storage.query.json_values import json_path, kind_of_type
from afterimage.storage.query.relations import RecordSource, Source, TableSource
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    OTHERS,
    FieldType,
    Integer,
    RecordKind,
    Text,
)
from afterimage.storage.records.paths import is_text
from afterimage.storage.records.schema import arrow_type, sql_type
from afterimage.storage.tables.migrations import migrate, must_migrate

__all__ = [
    "SCHEMA_VERSION",
    "VECTOR_ROWS",
    "Layout",
    "StoredTable",
    "messages_view",
    "records_table",
]

SCHEMA_VERSION: Final = 1
"""Version of the layout that this package writes."""

VECTOR_ROWS: Final = 2048
"""Rows that DuckDB processes at a time; also the row group size of the files of this package."""

_CATALOG: Final = sa.Table(
    "afterimage_schema",
    sa.MetaData(),
    sa.Column("table_name", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("metadata_columns", sa.String, nullable=False),
)

# Metadata keys in filters typically have few distinct or short values. Zstandard, the compression
# of all other text, would need four bytes per row for the lengths alone.
_SHORT_TEXT_COMPRESSION: Final = "dict_fsst"

# Metadata keys whose columns one statement fills: its size grows with the square of their number.
_KEYS_AT_A_TIME: Final = 50

_MESSAGES: Final[Mapping[str, FieldType]] = {
    "conversation_id": Integer(),
    "position": Integer(),
    "role": Text(),
    "content": Text(),
    "reasoning_content": Text(),
}


@compiles(sa.schema.CreateColumn, "duckdb")
def _create_column(create: Any, compiler: Any, **options: Any) -> str:
    text: str = compiler.visit_create_column(create, **options)
    compression = create.element.info.get("compression")
    return f"{text} USING COMPRESSION {compression}" if compression else text


@dataclass
class StoredTable:
    """A table of the database and its columns.

    Attributes:
        name: name of the table.
        kind: the kind of its records.
        compress: whether the columns of metadata keys are declared with a compression method.
        metadata_columns: names of the text and type columns of each metadata key that has its own
            columns.
    """

    name: str
    kind: RecordKind
    compress: bool
    metadata_columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    _table: sa.Table | None = field(default=None, init=False, repr=False)

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The declared columns, in order."""
        return {**self.kind.system, **self.kind.stored}

    @property
    def table(self) -> sa.Table:
        """The SQLAlchemy table."""
        own = [name for pair in self.metadata_columns.values() for name in pair]
        if self._table is None or self._table.columns.keys() != [*self.fields, *own]:
            info = {"compression": _SHORT_TEXT_COMPRESSION} if self.compress else {}
            self._table = sa.Table(
                self.name,
                sa.MetaData(),
                *(
                    sa.Column(name, SqlType(sql_type(type_)), nullable=name != self.kind.sequence)
                    for name, type_ in self.fields.items()
                ),
                *(sa.Column(name, sa.String, info=info) for name in own),
            )
        return self._table

    @property
    def sequence(self) -> sa.Column[Any]:
        """The column of the insertion sequence number."""
        return self.table.c[self.kind.sequence]

    @property
    def source(self) -> Source:
        """The fields of the records, for predicates and projections."""
        if self.kind is OTHERS:
            return RecordSource(self.table.c.record, self.sequence)
        return TableSource(self.kind, self.table, self.metadata_columns)

    def metadata_values(
        self, metadata: sa.ColumnElement[Any], keys: Iterable[str]
    ) -> dict[str, sa.ColumnElement[Any]]:
        """Return the values of the columns of metadata `keys`, computed from `metadata`.

        The size of the statement grows with the square of the number of keys. For many keys, select
        `metadata_lists` first.
        """
        keys = list(keys)
        return self.values_of_lists(*self.metadata_lists(metadata, keys), keys)

    def metadata_lists(
        self, metadata: sa.ColumnElement[Any], keys: Iterable[str]
    ) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
        """Return the texts and the JSON types of metadata `keys`, as one list each."""
        # One call for all paths: the metadata of a row is parsed twice, not twice per key.
        paths = sa.func.list_value(*(path for key in keys for path in json_path([key])))
        return sa.func.json_extract_string(metadata, paths), sa.func.json_type(metadata, paths)

    def values_of_lists(
        self, texts: sa.ColumnElement[Any], types: sa.ColumnElement[Any], keys: Iterable[str]
    ) -> dict[str, sa.ColumnElement[Any]]:
        """Return the values of the columns of metadata `keys`, from the `metadata_lists`."""
        values: dict[str, sa.ColumnElement[Any]] = {}
        for index, key in enumerate(keys, 1):
            text, kind = self.metadata_columns[key]
            values[text] = sa.func.list_extract(texts, index)
            values[kind] = kind_of_type(sa.func.list_extract(types, index))
        return values


def records_table(conversations_table: str) -> str:
    """Return the name of the table of records of other models."""
    return "records" if conversations_table == "conversations" else f"{conversations_table}_records"


def messages_view(conversations_table: str) -> str:
    """Return the name of the view with one row per message."""
    return (
        "messages" if conversations_table == "conversations" else f"{conversations_table}_messages"
    )


class Layout:
    """The tables of one storage.

    Args:
        conversations: name of the table of conversations.
        documents: name of the table of documents.
        compress: whether columns can be declared with a compression method.

    Raises:
        InvalidQueryError: a name is not a string.
        SchemaMismatchError: a name is empty, or two names are equal.
    """

    def __init__(self, conversations: str, documents: str, *, compress: bool) -> None:
        for name in (conversations, documents):
            if not isinstance(name, str) or not is_text(name):
                raise InvalidQueryError(f"a table name must be a string, not {name!a}")
        self.conversations = StoredTable(conversations, CONVERSATIONS, compress)
        self.documents = StoredTable(documents, DOCUMENTS, compress)
        self.records = StoredTable(records_table(conversations), OTHERS, compress)
        names = [table.name.casefold() for table in self.all] + [
            messages_view(conversations).casefold(),
            _CATALOG.name,
        ]
        duplicates = {name for name in names if names.count(name) > 1}
        if duplicates or not all(names):
            fault = f"used twice: {', '.join(sorted(duplicates))}" if duplicates else "one is empty"
            raise SchemaMismatchError(
                f"table names must differ and not be empty; {fault}. "
                "Choose another conversations_table_name or documents_table_name."
            )

    @property
    def all(self) -> tuple[StoredTable, ...]:
        """All tables. The table of conversations is first."""
        return (self.conversations, self.documents, self.records)

    def of(self, kind: RecordKind) -> StoredTable:
        """Return the table of a record kind."""
        return next(table for table in self.all if table.kind is kind)

    @property
    def _relations(self) -> tuple[str, ...]:
        tables = (table.name for table in self.all)
        return (*tables, messages_view(self.conversations.name), _CATALOG.name)

    def is_ready(self, connection: sa.Connection, metadata_fields: Iterable[str]) -> bool:
        """Return whether the tables exist in the current layout, with these metadata columns.

        If so, opening the storage does not need to write to the database.

        Raises:
            SchemaMismatchError: a table has other columns, or was written by a newer version.
        """
        present = existing(connection, self._relations)
        if self._outdated(connection, present) or len(present) < len(self._relations):
            return False
        self.refresh(connection)
        self._check_columns(connection, present)
        return all(key in self.conversations.metadata_columns for key in metadata_fields)

    def create(
        self, connection: sa.Connection, metadata_fields: Iterable[str], *, is_new: bool = False
    ) -> None:
        """Create missing tables, upgrade old ones, and add the columns of `metadata_fields`.

        Args:
            connection: a connection for writing.
            metadata_fields: metadata keys of conversations.
            is_new: whether the database is known to be empty.

        Raises:
            SchemaMismatchError: a table has other columns, or was written by a newer version; or a
                metadata key cannot get a column.
        """
        present = set() if is_new else existing(connection, self._relations)
        _upgrade(connection, self._outdated(connection, present))
        self._check_columns(connection, present)
        if _CATALOG.name not in present:
            connection.execute(sa.schema.CreateTable(_CATALOG))
        known = _catalog_names(connection) if not is_new else set()
        if self.conversations.name not in present:
            taken = list(self.conversations.fields)
            for key in metadata_fields:
                self.conversations.metadata_columns[key] = names = _free_names(key, taken)
                taken += names
        for table in self.all:
            if table.name not in present:
                connection.execute(sa.schema.CreateTable(table.table, if_not_exists=True))
        if unknown := [_catalog_row(table) for table in self.all if table.name not in known]:
            connection.execute(_CATALOG.insert().values(unknown))
        if messages_view(self.conversations.name) not in present:
            connection.execute(sa.text(_messages_ddl(connection, self.conversations)))
        if not is_new:
            self.refresh(connection)
            self._add_metadata_fields(connection, metadata_fields)

    def refresh(self, connection: sa.Connection) -> None:
        """Read the metadata keys that have columns; another process may have added some."""
        for row in fetch_all(connection, sa.select(_CATALOG)):
            for table in self.all:
                if row.table_name == table.name:
                    must_migrate(table.name, row.version, SCHEMA_VERSION)
                    pairs = json.loads(row.metadata_columns)
                    table.metadata_columns = {key: tuple(pair) for key, pair in pairs.items()}

    def _outdated(self, connection: sa.Connection, present: set[str]) -> list[sa.Row[Any]]:
        """Return the `afterimage_schema` rows of the tables that have an older layout."""
        if _CATALOG.name not in present:
            return []
        names = {table.name for table in self.all}
        rows = [
            row for row in fetch_all(connection, sa.select(_CATALOG)) if row.table_name in names
        ]
        return [row for row in rows if must_migrate(row.table_name, row.version, SCHEMA_VERSION)]

    def _check_columns(self, connection: sa.Connection, present: set[str]) -> None:
        declared = {table.name: table.fields for table in self.all}
        declared[messages_view(self.conversations.name)] = _MESSAGES
        for relation, fields in declared.items():
            if relation not in present:
                continue
            schema = _arrow_schema_of(connection, relation)
            for name, kind in fields.items():
                index = schema.get_field_index(name)
                if index < 0 or _with_large_offsets(schema.field(index).type) != arrow_type(kind):
                    actual = "no such column" if index < 0 else str(schema.field(index).type)
                    raise SchemaMismatchError(
                        f"table {relation!r} already exists with other columns: "
                        f"column {name!r} should be {shorten(sql_type(kind), 60)}, "
                        f"found {shorten(actual, 60)}. Give another table name or file."
                    )

    def _add_metadata_fields(self, connection: sa.Connection, keys: Iterable[str]) -> None:
        """Add the columns of metadata keys, and fill them for existing rows."""
        stored = self.conversations
        missing = [key for key in keys if key not in stored.metadata_columns]
        if not missing:
            return
        taken = [*_arrow_schema_of(connection, stored.name).names]
        quote = connection.dialect.identifier_preparer.quote
        # Add all columns before filling any: DuckDB 1.5 cannot alter a table after the same
        # transaction has changed its rows.
        for key in missing:
            names = _free_names(key, taken)
            stored.metadata_columns[key] = names
            taken += names
            for name in names:
                statement = f"ALTER TABLE {quote(stored.name)} ADD COLUMN {quote(name)} VARCHAR"
                if stored.compress:
                    statement += f" USING COMPRESSION {_SHORT_TEXT_COMPRESSION}"
                connection.execute(sa.text(_escaped(statement)))
        table = stored.table
        for start in range(0, len(missing), _KEYS_AT_A_TIME):
            keys = missing[start : start + _KEYS_AT_A_TIME]
            values = stored.metadata_values(table.c["metadata"], keys)
            connection.execute(table.update().values(values))
        connection.execute(
            _CATALOG.update()
            .where(_CATALOG.c.table_name == stored.name)
            .values(metadata_columns=_catalog_row(stored)["metadata_columns"])
        )


def _upgrade(connection: sa.Connection, outdated: Iterable[sa.Row[Any]]) -> None:
    for row in outdated:
        migrate(connection, row.kind, row.table_name, row.version, SCHEMA_VERSION)
        connection.execute(
            _CATALOG.update()
            .where(_CATALOG.c.table_name == row.table_name)
            .values(version=SCHEMA_VERSION)
        )


def _arrow_schema_of(connection: sa.Connection, relation: str) -> pa.Schema:
    """Return the Arrow schema of a table or view, as DuckDB exports it."""
    statement = sa.select(sa.text("*")).select_from(sa.table(relation)).limit(0)
    return execute_arrow(connection, statement).schema


def _catalog_names(connection: sa.Connection) -> set[str]:
    return {row.table_name for row in fetch_all(connection, sa.select(_CATALOG))}


def _catalog_row(table: StoredTable) -> dict[str, Any]:
    return {
        "table_name": table.name,
        "kind": table.kind.name,
        "version": SCHEMA_VERSION,
        "metadata_columns": json.dumps(table.metadata_columns),
    }


def _free_names(key: str, taken: Iterable[str]) -> tuple[str, str]:
    """Return the names for the columns of a metadata key: the key itself if it is not taken.

    Raises:
        SchemaMismatchError: no name is free.
    """
    used = {name.casefold() for name in taken}
    for name in (key, f"metadata.{key}"):
        pair = (name, f"{name}_type")
        if name and not used & {part.casefold() for part in pair}:
            return pair
    raise SchemaMismatchError(
        f"metadata field {key!r} cannot get a column: {key!r} and {f'metadata.{key}'!r} are taken "
        "(column names are case-insensitive). Omit it; filters work without the column."
    )


def _messages_ddl(connection: sa.Connection, conversations: StoredTable) -> str:
    quote = connection.dialect.identifier_preparer.quote
    view, table = quote(messages_view(conversations.name)), quote(conversations.name)
    return _escaped(
        f"CREATE VIEW {view} AS SELECT conversation_id, position, message.role AS role, "
        "message.content AS content, message.reasoning_content AS reasoning_content FROM ("
        "SELECT id AS conversation_id, generate_subscripts(conversations, 1) - 1 AS position, "
        f"unnest(conversations) AS message FROM {table})"
    )


def _escaped(statement: str) -> str:
    """Escape a statement for `sa.text`, which reads `:name` as a parameter."""
    return statement.replace(":", "\\:")


def _with_large_offsets(kind: pa.DataType) -> pa.DataType:
    """Convert a type exported by DuckDB to the declared form with 64-bit offsets."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.large_string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_with_large_offsets(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(child.name, _with_large_offsets(child.type)) for child in kind])
    return kind
