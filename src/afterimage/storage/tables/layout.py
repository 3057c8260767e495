"""The tables in the database: their DDL, their version, and the columns of metadata fields.

They need no keys, sequences, enums or generated columns, which not every catalog has. One row for
each table in `afterimage_schema` has the version of its layout and the metadata keys that have
columns of their own, so that every writer fills those columns, whoever asked for them.
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
"""Version of the layout this package writes."""

VECTOR_ROWS: Final = 2048
"""Rows that DuckDB processes at a time, and rows of a row group in our files."""

_CATALOG: Final = sa.Table(
    "afterimage_schema",
    sa.MetaData(),
    sa.Column("table_name", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("metadata_columns", sa.String, nullable=False),
)

# Metadata keys that are asked for have few values or short ones. Zstandard, which all other text
# has, would keep four bytes a row for their lengths alone.
_FEW_VALUES: Final = "dict_fsst"

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
    """A table of the database and how to reach its columns.

    Attributes:
        name: its name.
        kind: the kind of its records.
        compress: whether the columns of metadata keys are declared with a compression.
        metadata_columns: text and type column of each metadata key that has columns of its own.
    """

    name: str
    kind: RecordKind
    compress: bool
    metadata_columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    _made: sa.Table | None = field(default=None, init=False, repr=False)

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The declared columns, in order."""
        return {**self.kind.system, **self.kind.stored}

    @property
    def table(self) -> sa.Table:
        """The table as SQLAlchemy knows it."""
        own = [name for pair in self.metadata_columns.values() for name in pair]
        if self._made is None or self._made.columns.keys() != [*self.fields, *own]:
            info = {"compression": _FEW_VALUES} if self.compress else {}
            self._made = sa.Table(
                self.name,
                sa.MetaData(),
                *(
                    sa.Column(name, SqlType(sql_type(type_)), nullable=name != self.kind.sequence)
                    for name, type_ in self.fields.items()
                ),
                *(sa.Column(name, sa.String, info=info) for name in own),
            )
        return self._made

    @property
    def sequence(self) -> sa.Column[Any]:
        """Column of the insertion sequence."""
        return self.table.c[self.kind.sequence]

    @property
    def source(self) -> Source:
        """Where the fields of its records are."""
        if self.kind is OTHERS:
            return RecordSource(self.table.c.record, self.sequence)
        return TableSource(self.kind, self.table, self.metadata_columns)

    def metadata_values(
        self, metadata: sa.ColumnElement[Any], keys: Iterable[str]
    ) -> dict[str, sa.ColumnElement[Any]]:
        """What the columns of metadata `keys` hold for a `metadata` column."""
        keys = list(keys)
        # All paths in one call, so that the metadata of a row is parsed twice, not twice a key.
        paths = sa.func.list_value(*(path for key in keys for path in json_path([key])))
        texts = sa.func.json_extract_string(metadata, paths)
        types = sa.func.json_type(metadata, paths)
        values: dict[str, sa.ColumnElement[Any]] = {}
        for at, key in enumerate(keys, 1):
            text, kind = self.metadata_columns[key]
            values[text] = sa.func.list_extract(texts, at)
            values[kind] = kind_of_type(sa.func.list_extract(types, at))
        return values


def records_table(conversations_table: str) -> str:
    """Name of the table of other models' records, beside that of the conversations."""
    return "records" if conversations_table == "conversations" else f"{conversations_table}_records"


def messages_view(conversations_table: str) -> str:
    """Name of the view with a row a message, beside the table of the conversations."""
    return (
        "messages" if conversations_table == "conversations" else f"{conversations_table}_messages"
    )


class Layout:
    """The tables of one storage.

    Args:
        conversations: name of the conversations' table.
        documents: name of the documents' table.
        compress: whether columns can be declared with a compression.
    """

    def __init__(self, conversations: str, documents: str, *, compress: bool = True) -> None:
        for name in (conversations, documents):
            if not isinstance(name, str) or not is_text(name):
                raise InvalidQueryError(f"a table is named by a string, not {name!a}")
        self.conversations = StoredTable(conversations, CONVERSATIONS, compress)
        self.documents = StoredTable(documents, DOCUMENTS, compress)
        self.records = StoredTable(records_table(conversations), OTHERS, compress)
        names = [table.name.casefold() for table in self.all] + [
            messages_view(conversations).casefold(),
            _CATALOG.name,
        ]
        twice = {name for name in names if names.count(name) > 1}
        if twice or not all(names):
            raise SchemaMismatchError(
                f"table names must differ and not be empty: {', '.join(sorted(twice)) or 'empty'}. "
                "Choose another conversations_table_name or documents_table_name."
            )

    @property
    def all(self) -> tuple[StoredTable, ...]:
        """Every table, the conversations' first."""
        return (self.conversations, self.documents, self.records)

    def of(self, kind: RecordKind) -> StoredTable:
        """The table of a kind of records."""
        return next(table for table in self.all if table.kind is kind)

    @property
    def _relations(self) -> tuple[str, ...]:
        tables = (table.name for table in self.all)
        return (*tables, messages_view(self.conversations.name), _CATALOG.name)

    def is_ready(self, connection: sa.Connection, metadata_fields: Iterable[str]) -> bool:
        """Whether all is there already, so that nothing needs to be written to open it."""
        present = existing(connection, self._relations)
        if self._outdated(connection, present) or len(present) < len(self._relations):
            return False
        self.refresh(connection)
        self._check_columns(connection, present)
        return all(key in self.conversations.metadata_columns for key in metadata_fields)

    def create(
        self, connection: sa.Connection, metadata_fields: Iterable[str], *, is_new: bool = False
    ) -> None:
        """Create what is missing, upgrade what is old, give each of `metadata_fields` its columns.

        Args:
            connection: to the database, for writing.
            metadata_fields: metadata keys of conversations.
            is_new: whether the database is known to be empty.

        Raises:
            SchemaMismatchError: a table of that name is there, with other columns.
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
        """Read again which metadata keys have columns: another process may have added some."""
        for row in fetch_all(connection, sa.select(_CATALOG)):
            for table in self.all:
                if row.table_name == table.name:
                    must_migrate(table.name, row.version, SCHEMA_VERSION)
                    pairs = json.loads(row.metadata_columns)
                    table.metadata_columns = {key: tuple(pair) for key, pair in pairs.items()}

    def _outdated(self, connection: sa.Connection, present: set[str]) -> list[sa.Row[Any]]:
        """The catalog's rows of this storage's tables that have an older layout."""
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
            found = _arrow_schema_of(connection, relation)
            for name, kind in fields.items():
                at = found.get_field_index(name)
                if at < 0 or _with_large_offsets(found.field(at).type) != arrow_type(kind):
                    has = "no such column" if at < 0 else str(found.field(at).type)
                    raise SchemaMismatchError(
                        f"table {relation!r} is there already, but not as this storage makes it: "
                        f"column {name!r} should be {shorten(sql_type(kind), 60)}, "
                        f"found {shorten(has, 60)}. Give another table name or file."
                    )

    def _add_metadata_fields(self, connection: sa.Connection, keys: Iterable[str]) -> None:
        """Give metadata keys columns, filled in for the rows that are there."""
        stored = self.conversations
        missing = [key for key in keys if key not in stored.metadata_columns]
        if not missing:
            return
        taken = [*_arrow_schema_of(connection, stored.name).names]
        quote = connection.dialect.identifier_preparer.quote
        # All are added before any is filled: DuckDB 1.5 alters no table it has changed rows of.
        for key in missing:
            names = _free_names(key, taken)
            stored.metadata_columns[key] = names
            taken += names
            for name in names:
                statement = f"ALTER TABLE {quote(stored.name)} ADD COLUMN {quote(name)} VARCHAR"
                if stored.compress:
                    statement += f" USING COMPRESSION {_FEW_VALUES}"
                connection.execute(sa.text(_escaped(statement)))
        table = stored.table
        values = stored.metadata_values(table.c["metadata"], missing)
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
    """The columns of a table or view, as DuckDB has them in Arrow."""
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
    """Names for the columns of a metadata key: the key itself wherever that is free."""
    used = {name.casefold() for name in taken}
    for name in (key, f"metadata.{key}"):
        pair = (name, f"{name}_type")
        if name and not used & {part.casefold() for part in pair}:
            return pair
    raise SchemaMismatchError(
        f"metadata field {key!r} gets no column: {key!r} and {f'metadata.{key}'!r} are taken "
        "(names differ by more than their case). Leave it out; filters find it in the metadata."
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
    """A statement for `sa.text`, which reads `:name` as a parameter."""
    return statement.replace(":", "\\:")


def _with_large_offsets(kind: pa.DataType) -> pa.DataType:
    """The type that our schema has for a type as DuckDB hands it over."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.large_string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_with_large_offsets(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(of.name, _with_large_offsets(of.type)) for of in kind])
    return kind
