"""`StoredTable`: one table of a database, its columns, and the values of metadata columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from afterimage.storage.arrow.schema import sql_type
from afterimage.storage.engine.dialect import SqlType
from afterimage.storage.query.json_values import json_path, kind_of_type
from afterimage.storage.query.relations import RecordSource, Source, TableSource
from afterimage.storage.records.fields import OTHERS, FieldType, RecordKind
from afterimage.storage.tables.schema.names import rows_table

__all__ = ["SHORT_TEXT_COMPRESSION", "StoredTable"]

# Metadata keys in filters typically have few distinct or short values. Zstandard, the compression
# of all other text, would need four bytes per row for the lengths alone.
SHORT_TEXT_COMPRESSION: Final = "dict_fsst"
"""The compression of the columns of metadata keys."""


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
        numbered: whether the engine numbers the rows. `name` is then a view that adds the number to
            the table `rows_name`.
        metadata_columns: names of the text and type columns of each metadata key that has its own
            columns.
        next_number: the lowest number that no row of the table has ever had, as last read; 0 if
            the file does not say.
    """

    name: str
    kind: RecordKind
    compress: bool
    numbered: bool = False
    metadata_columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    next_number: int = field(default=0, init=False)
    _table: sa.Table | None = field(default=None, init=False, repr=False)
    _rows: sa.Table | None = field(default=None, init=False, repr=False)
    _known: dict[str, tuple[str, str]] = field(default_factory=dict, init=False, repr=False)

    @property
    def rows_name(self) -> str:
        """The name of the table that rows are written to."""
        return rows_table(self.name) if self.numbered else self.name

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The declared columns, in order."""
        return {**self.kind.system, **self.kind.stored}

    @property
    def table(self) -> sa.Table:
        """The SQLAlchemy table for reads."""
        own = [name for pair in self.metadata_columns.values() for name in pair]
        if self._table is None or self._known != self.metadata_columns:
            self._known = {**self.metadata_columns}
            self._table = self._made(self.name, self.fields, own)
            self._rows = self._table
            if self.numbered:
                stored = {**self.fields}
                del stored[self.kind.sequence]
                self._rows = self._made(self.rows_name, stored, own)
        return self._table

    @property
    def row(self) -> sa.ColumnElement[int]:
        """The engine's own number of a row of `rows`, as an expression over `table`."""
        if self.numbered:
            return self.sequence - 1
        return sa.literal_column("rowid", sa.BigInteger)

    def _made(self, name: str, fields: Mapping[str, FieldType], own: Iterable[str]) -> sa.Table:
        info = {"compression": SHORT_TEXT_COMPRESSION} if self.compress else {}
        return sa.Table(
            name,
            sa.MetaData(),
            *(
                sa.Column(name, SqlType(sql_type(type_)), nullable=name != self.kind.sequence)
                for name, type_ in fields.items()
            ),
            *(sa.Column(name, sa.String, info=info) for name in own),
        )

    @property
    def rows(self) -> sa.Table:
        """The SQLAlchemy table for writes. If the engine numbers the rows, it has no sequence."""
        _ = self.table
        assert self._rows is not None
        return self._rows

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
