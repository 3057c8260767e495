"""The tables of the database: their DDL, their version, and the columns of metadata fields.

The tables use no keys, sequences, enums or generated columns, because not every catalog supports
them. The table `afterimage_schema` has one row per table, with the version of its layout and the
metadata keys that have their own columns. Every writer reads these keys and fills the columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.arrow.schema import arrow_type, sql_type
from afterimage.storage.engine.statements import (
    columns_of,
    existing,
    is_view,
    readable_schema,
    tables_of,
)
from afterimage.storage.errors import InvalidQueryError, SchemaMismatchError, shorten
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    OTHERS,
    RecordKind,
)
from afterimage.storage.records.paths import is_text
from afterimage.storage.system.package import log
from afterimage.storage.tables.schema.messages import (
    MESSAGES,
    create_messages,
    is_of_an_older_version,
)
from afterimage.storage.tables.schema.migrations import migrate, must_migrate
from afterimage.storage.tables.schema.names import (
    folded,
    free_names,
    messages_view,
    records_table,
    rows_table,
)
from afterimage.storage.tables.schema.schema_rows import (
    SCHEMA,
    SchemaRow,
    add_next_number,
    names_match,
    read_rows,
)
from afterimage.storage.tables.schema.stored import SHORT_TEXT_COMPRESSION, StoredTable

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

# Metadata keys whose columns one statement fills: its size grows with the square of their number.
_KEYS_AT_A_TIME: Final = 50


class Layout:
    """The tables of one storage.

    Args:
        conversations: name of the table of conversations.
        documents: name of the table of documents.
        compress: whether columns can be declared with a compression method.
        numbered: whether the engine numbers the rows.

    Attributes:
        lost_columns: whether `afterimage_schema` names metadata columns that the last check did not
            find. They are not used.
        has_old_view: whether the last check found a view of messages of an older version.

    Raises:
        InvalidQueryError: a name is not a string.
        SchemaMismatchError: a name is empty, or two names are equal.
    """

    def __init__(
        self, conversations: str, documents: str, *, compress: bool, numbered: bool = False
    ) -> None:
        for name in (conversations, documents):
            if not isinstance(name, str) or not is_text(name):
                raise InvalidQueryError(f"a table name must be a string, not {name!a}")
        self.lost_columns = self.has_old_view = False
        self.conversations = StoredTable(conversations, CONVERSATIONS, compress, numbered)
        self.documents = StoredTable(documents, DOCUMENTS, compress, numbered)
        self.records = StoredTable(records_table(conversations), OTHERS, compress, numbered)
        views = [table.name.casefold() for table in self.all] if numbered else []
        names = (
            [table.rows_name.casefold() for table in self.all]
            + views
            + [
                messages_view(conversations).casefold(),
                SCHEMA.name,
            ]
        )
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
        tables = (table.rows_name for table in self.all)
        views = (table.name for table in self.all if table.numbered)
        return (*tables, *views, messages_view(self.conversations.name), SCHEMA.name)

    @property
    def stored_names(self) -> list[str]:
        """The names of all tables that have rows."""
        return [SCHEMA.name, *(table.rows_name for table in self.all)]

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
    ) -> bool:
        """Create missing tables, upgrade old ones, and add the columns of `metadata_fields`.

        A table that was dropped is created with the metadata columns that it had. A metadata column
        that was dropped is forgotten.

        Args:
            connection: a connection for writing.
            metadata_fields: metadata keys of conversations.
            is_new: whether the database is known to be empty.

        Returns:
            Whether a table was created.

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
        if self.conversations.rows_name not in present:
            self.name_columns(metadata_fields)
        for table in self.all:
            if table.rows_name not in present:
                connection.execute(sa.schema.CreateTable(table.rows, if_not_exists=True))
            if table.name not in {*present, table.rows_name}:
                connection.execute(sa.text(_numbered_ddl(connection, table)))
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
        return not present.issuperset(self.stored_names)

    def name_columns(self, metadata_fields: Iterable[str]) -> None:
        """Choose the names of the columns of metadata keys, for a table that is not created yet.

        Raises:
            SchemaMismatchError: a metadata key cannot get a column.
        """
        columns = self.conversations.metadata_columns
        taken = [*self._taken, *self.conversations.fields, *chain.from_iterable(columns.values())]
        for key in metadata_fields:
            if key not in columns:
                columns[key] = free_names(key, taken)
                taken += columns[key]

    @property
    def _taken(self) -> list[str]:
        """Names that a column cannot have, because views use them."""
        return ["rowid"] if self.conversations.numbered else []

    def prepare(self, connection: sa.Connection) -> None:
        """Read what may have changed, before rows are inserted."""
        self.refresh(connection, to_write=True)

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
        known = {folded(table.rows_name) for table in self.all if table.numbered}
        known |= {folded(rows_table(name)) for name in rows} if known else rows.keys()
        for table in self.all:
            if table.rows_name in present or folded(table.name) not in rows:
                continue
            declared = [name for name in table.fields if name in table.rows.c]
            for name, columns in tables_of(connection).items():
                if columns.issuperset(declared) and folded(name) not in known:
                    raise SchemaMismatchError(
                        f"table {table.rows_name!r} is missing, and table {name!r} has its "
                        "columns. If it was renamed, rename it back: ALTER TABLE "
                        f"{name!r} RENAME TO {table.rows_name!r}, with names in double quotes. "
                        "Nothing was changed."
                    )

    def _check_columns(self, connection: sa.Connection, present: set[str]) -> None:
        view = messages_view(self.conversations.name)
        declared = {**{table.name: table.fields for table in self.all}, view: MESSAGES}
        for relation, fields in declared.items():
            if relation not in present:
                continue
            schema = readable_schema(connection, relation)
            if schema is None and not {*self._conversations_names} <= present:
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

    @property
    def _conversations_names(self) -> tuple[str, str]:
        return self.conversations.name, self.conversations.rows_name

    def _check_table(self, connection: sa.Connection, name: str, schema: pa.Schema) -> None:
        table = next(table for table in self.all if table.name == name)
        if is_view(connection, table.rows_name):
            raise SchemaMismatchError(
                f"{table.rows_name!r} is a view, and records are saved to a table. If the table "
                "was renamed, drop the view and rename the table back. Otherwise give another "
                "table name or file."
            )
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
        taken = [*self._taken, *columns_of(connection, stored.name)]
        quote = connection.dialect.identifier_preparer.quote
        # Add all columns before filling any: DuckDB 1.5 cannot alter a table after the same
        # transaction has changed its rows.
        for key in missing:
            names = free_names(key, taken)
            stored.metadata_columns[key] = names
            taken += names
            for name in names:
                added = f"ADD COLUMN {quote(name)} VARCHAR"
                statement = f"ALTER TABLE {quote(stored.rows_name)} {added}"
                if stored.compress:
                    statement += f" USING COMPRESSION {SHORT_TEXT_COMPRESSION}"
                connection.execute(sa.text(_escaped(statement)))
        table = stored.rows
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
        log.info(
            "upgrading table %r from layout %d to %d", row.table_name, row.version, SCHEMA_VERSION
        )
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


def _numbered_ddl(connection: sa.Connection, table: StoredTable) -> str:
    """Return the statement for the view of a table that adds the numbers of the engine."""
    quote = connection.dialect.identifier_preparer.quote
    view, rows, sequence = map(quote, (table.name, table.rows_name, table.kind.sequence))
    return _escaped(f"CREATE VIEW {view} AS SELECT rowid + 1 AS {sequence}, * FROM {rows}")


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
