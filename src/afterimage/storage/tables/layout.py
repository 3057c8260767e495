"""The tables of the database: their DDL, their version, and the columns of metadata fields.

The tables use no keys, sequences, enums or generated columns, because not every catalog supports
them. The table `afterimage_schema` has one row per table, with the version of its layout and the
metadata keys that have their own columns. Every writer reads these keys and fills the columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from afterimage.storage.arrow.schema import arrow_type, sql_type
from afterimage.storage.engine.dialect import SqlType
from afterimage.storage.engine.statements import (
    columns_of,
    existing,
    is_view,
    readable_schema,
    tables_of,
)
from afterimage.storage.errors import InvalidQueryError, SchemaMismatchError, shorten
from afterimage.storage.query.json_values import json_path, kind_of_type
from afterimage.storage.query.relations import RecordSource, Source, TableSource
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    OTHERS,
    FieldType,
    RecordKind,
)
from afterimage.storage.records.paths import is_text
from afterimage.storage.tables.messages import (
    MESSAGES,
    create_messages,
    is_of_an_older_version,
)
from afterimage.storage.tables.migrations import migrate, must_migrate
from afterimage.storage.tables.names import folded, free_names, messages_view, records_table
from afterimage.storage.tables.schema_rows import (
    SCHEMA,
    SchemaRow,
    add_next_number,
    names_match,
    read_rows,
)

__all__ = [
    "SCHEMA_VERSION",
    "VECTOR_ROWS",
    "Layout",
    "StoredTable",
]

SCHEMA_VERSION: Final = 1
"""Version of the layout that this package writes."""

VECTOR_ROWS: Final = 2048
"""Rows that DuckDB processes at a time; also the row group size of the files of this package."""

# Metadata keys in filters typically have few distinct or short values. Zstandard, the compression
# of all other text, would need four bytes per row for the lengths alone.
_SHORT_TEXT_COMPRESSION: Final = "dict_fsst"

# Metadata keys whose columns one statement fills: its size grows with the square of their number.
_KEYS_AT_A_TIME: Final = 50


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
        next_number: the lowest number that no row of the table has ever had, as last read; 0 if
            the file does not say.
    """

    name: str
    kind: RecordKind
    compress: bool
    metadata_columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    next_number: int = field(default=0, init=False)
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


class Layout:
    """The tables of one storage.

    Args:
        conversations: name of the table of conversations.
        documents: name of the table of documents.
        compress: whether columns can be declared with a compression method.

    Attributes:
        lost_columns: whether `afterimage_schema` names metadata columns that the last check did not
            find. They are not used.
        has_old_view: whether the last check found a view of messages of an older version.

    Raises:
        InvalidQueryError: a name is not a string.
        SchemaMismatchError: a name is empty, or two names are equal.
    """

    def __init__(self, conversations: str, documents: str, *, compress: bool) -> None:
        for name in (conversations, documents):
            if not isinstance(name, str) or not is_text(name):
                raise InvalidQueryError(f"a table name must be a string, not {name!a}")
        self.lost_columns = self.has_old_view = False
        self.conversations = StoredTable(conversations, CONVERSATIONS, compress)
        self.documents = StoredTable(documents, DOCUMENTS, compress)
        self.records = StoredTable(records_table(conversations), OTHERS, compress)
        names = [table.name.casefold() for table in self.all] + [
            messages_view(conversations).casefold(),
            SCHEMA.name,
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
        return (*tables, messages_view(self.conversations.name), SCHEMA.name)

    def is_ready(self, connection: sa.Connection, metadata_fields: Iterable[str]) -> bool:
        """Return whether the tables exist in the current layout, with these metadata columns.

        If so, opening the storage does not need to write to the database.

        Raises:
            SchemaMismatchError: a table has other columns, was renamed or replaced by a view, or
                was written by a newer version.
        """
        present = existing(connection, self._relations)
        rows = self._rows(connection, present)
        if self._outdated(rows) or len(present) < len(self._relations):
            return False
        if not all(folded(table.name) in rows for table in self.all):
            return False
        self._apply(rows)
        self._check_columns(connection, present)
        return all(key in self.conversations.metadata_columns for key in metadata_fields)

    def create(
        self, connection: sa.Connection, metadata_fields: Iterable[str], *, is_new: bool = False
    ) -> None:
        """Create missing tables, upgrade old ones, and add the columns of `metadata_fields`.

        A table that was dropped is created with the metadata columns that it had. A metadata column
        that was dropped is forgotten.

        Args:
            connection: a connection for writing.
            metadata_fields: metadata keys of conversations.
            is_new: whether the database is known to be empty.

        Raises:
            SchemaMismatchError: a table has other columns, was renamed or replaced by a view, or
                was written by a newer version; or a metadata key cannot get a column.
        """
        present = set() if is_new else existing(connection, self._relations)
        rows = self._rows(connection, present)
        self._check_renamed(connection, present, rows)
        _upgrade(connection, self._outdated(rows))
        self._apply(rows)
        self._check_columns(connection, present)
        if SCHEMA.name not in present:
            connection.execute(sa.schema.CreateTable(SCHEMA))
        if self.conversations.name not in present:
            self.name_columns(metadata_fields)
        for table in self.all:
            if table.name not in present:
                connection.execute(sa.schema.CreateTable(table.table, if_not_exists=True))
        unknown = [_schema_row(table) for table in self.all if folded(table.name) not in rows]
        if unknown:
            connection.execute(SCHEMA.insert().values(unknown))
        view = messages_view(self.conversations.name)
        if view not in present or self.has_old_view:
            create_messages(connection, view, self.conversations.name)
            self.has_old_view = False
        if not is_new:
            self._add_metadata_fields(connection, metadata_fields)
            row = rows.get(folded(self.conversations.name))
            if row is None or row.metadata_columns != self.conversations.metadata_columns:
                self._write_metadata_columns(connection)
            self.lost_columns = False

    def name_columns(self, metadata_fields: Iterable[str]) -> None:
        """Choose the names of the columns of metadata keys, for a table that is not created yet.

        Raises:
            SchemaMismatchError: a metadata key cannot get a column.
        """
        columns = self.conversations.metadata_columns
        taken = [*self.conversations.fields, *chain.from_iterable(columns.values())]
        for key in metadata_fields:
            if key not in columns:
                columns[key] = free_names(key, taken)
                taken += columns[key]

    def refresh(self, connection: sa.Connection, *, to_write: bool = False) -> None:
        """Read what may have changed: the metadata keys with columns, and the next numbers.

        Args:
            connection: a connection to the database.
            to_write: whether rows will be inserted, so that the next numbers must be stored.
        """
        rows, has_numbers = read_rows(connection)
        if to_write and not has_numbers:
            add_next_number(connection)
        self._outdated(rows)
        self._apply(rows)

    def store_next_number(self, connection: sa.Connection, table: StoredTable, number: int) -> None:
        """Store that all numbers below `number` may have been used by rows of a table."""
        connection.execute(
            SCHEMA.update().where(names_match(table.name)).values(next_number=number)
        )
        table.next_number = number

    def check(self, connection: sa.Connection) -> None:
        """Check the tables of a storage that is open: they may have been changed with SQL.

        Metadata columns that are missing are forgotten.

        Raises:
            SchemaMismatchError: a table is missing or has other columns.
        """
        present = existing(connection, self._relations)
        rows = self._rows(connection, present)
        self._check_renamed(connection, present, rows)
        missing = [name for name in self._relations if name not in present]
        if missing:
            raise SchemaMismatchError(
                f"table {missing[0]!r} is missing: it was dropped or renamed with SQL. Rename it "
                "back, or open the storage again to create an empty one."
            )
        self._apply(rows)
        self._check_columns(connection, present)

    def _rows(self, connection: sa.Connection, present: set[str]) -> dict[str, SchemaRow]:
        """Return the rows of `afterimage_schema` about the tables, by their folded names."""
        if SCHEMA.name not in present:
            return {}
        return read_rows(connection)[0]

    def _apply(self, rows: Mapping[str, SchemaRow]) -> None:
        for table in self.all:
            if (row := rows.get(folded(table.name))) is not None:
                table.metadata_columns = dict(row.metadata_columns)
                table.next_number = row.next_number

    def _outdated(self, rows: Mapping[str, SchemaRow]) -> list[SchemaRow]:
        """Return the rows of the tables that have an older layout."""
        found = [rows[name] for table in self.all if (name := folded(table.name)) in rows]
        return [row for row in found if must_migrate(row.table_name, row.version, SCHEMA_VERSION)]

    def _check_renamed(
        self, connection: sa.Connection, present: set[str], rows: Mapping[str, SchemaRow]
    ) -> None:
        """Refuse to create a table anew whose records are probably in a table of another name."""
        for table in self.all:
            if table.name in present or folded(table.name) not in rows:
                continue
            for name, columns in tables_of(connection).items():
                if table.fields.keys() <= columns and folded(name) not in rows:
                    raise SchemaMismatchError(
                        f"table {table.name!r} is missing, and table {name!r} has its columns. If "
                        f"it was renamed, rename it back: ALTER TABLE {name!r} RENAME TO "
                        f"{table.name!r}, with names in double quotes. Nothing was changed."
                    )

    def _check_columns(self, connection: sa.Connection, present: set[str]) -> None:
        view = messages_view(self.conversations.name)
        declared = {**{table.name: table.fields for table in self.all}, view: MESSAGES}
        for relation, fields in declared.items():
            if relation not in present:
                continue
            schema = readable_schema(connection, relation)
            if schema is None and self.conversations.name not in present:
                continue  # the view can be read again once the table is there
            if schema is None:
                raise SchemaMismatchError(
                    f"view {relation!r} cannot be read, because what it reads was changed. Undo "
                    "that, or drop the view; a view of messages is created again on opening."
                )
            for name, kind in fields.items():
                index = schema.get_field_index(name)
                if index < 0 or _with_large_offsets(schema.field(index).type) != arrow_type(kind):
                    actual = "no such column" if index < 0 else str(schema.field(index).type)
                    raise SchemaMismatchError(
                        f"table {relation!r} already exists with other columns: "
                        f"column {name!r} should be {shorten(sql_type(kind), 60)}, "
                        f"found {shorten(actual, 60)}. If the column was changed with SQL, undo "
                        "that; otherwise give another table name or file."
                    )
            if relation == view:
                self.has_old_view = is_of_an_older_version(schema)
            else:
                self._check_table(connection, relation, schema)

    def _check_table(self, connection: sa.Connection, name: str, schema: pa.Schema) -> None:
        if is_view(connection, name):
            raise SchemaMismatchError(
                f"{name!r} is a view, and records are saved to a table. If the table was renamed, "
                "drop the view and rename the table back. Otherwise give another table name or "
                "file."
            )
        table = next(table for table in self.all if table.name == name)
        texts = {
            folded(each.name)
            for each in schema
            if _with_large_offsets(each.type) == pa.large_string()
        }
        # The metadata has the same values, so nothing is lost with the columns.
        found = {
            key: pair
            for key, pair in table.metadata_columns.items()
            if {folded(column) for column in pair} <= texts
        }
        self.lost_columns |= found.keys() != table.metadata_columns.keys()
        table.metadata_columns = found

    def _add_metadata_fields(self, connection: sa.Connection, keys: Iterable[str]) -> None:
        """Add the columns of metadata keys, and fill them for existing rows."""
        stored = self.conversations
        missing = [key for key in keys if key not in stored.metadata_columns]
        if not missing:
            return
        taken = [*columns_of(connection, stored.name)]
        quote = connection.dialect.identifier_preparer.quote
        # Add all columns before filling any: DuckDB 1.5 cannot alter a table after the same
        # transaction has changed its rows.
        for key in missing:
            names = free_names(key, taken)
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

    def _write_metadata_columns(self, connection: sa.Connection) -> None:
        stored = self.conversations
        connection.execute(
            SCHEMA.update()
            .where(names_match(stored.name))
            .values(metadata_columns=_schema_row(stored)["metadata_columns"])
        )


def _upgrade(connection: sa.Connection, outdated: Iterable[SchemaRow]) -> None:
    for row in outdated:
        migrate(connection, row.kind, row.table_name, row.version, SCHEMA_VERSION)
        connection.execute(
            SCHEMA.update().where(names_match(row.table_name)).values(version=SCHEMA_VERSION)
        )


def _schema_row(table: StoredTable) -> dict[str, Any]:
    return {
        "table_name": table.name,
        "kind": table.kind.name,
        "version": SCHEMA_VERSION,
        "metadata_columns": json.dumps(table.metadata_columns),
    }


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
