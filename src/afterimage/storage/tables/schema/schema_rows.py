"""The table `afterimage_schema`: what is known of each table of this package.

A row names a table, its layout, the columns of its metadata fields, and the number of the next row.
DuckDB compares the names of tables without regard to the case of ASCII letters, so this module does
too. Rows can be edited with SQL, so each value is checked.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from afterimage.storage.errors import SchemaMismatchError, shown
from afterimage.storage.tables.schema.names import folded

__all__ = ["SCHEMA", "SchemaRow", "add_next_number", "names_match", "read_rows"]

SCHEMA: Final = sa.Table(
    "afterimage_schema",
    sa.MetaData(),
    sa.Column("table_name", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("metadata_columns", sa.String, nullable=False),
    # Null until the first save. Files of earlier versions have no such column until then.
    sa.Column("next_number", sa.BigInteger),
)

_NEXT_NUMBER: Final = "next_number"


@dataclass
class SchemaRow:
    """What is known of one table. Earlier versions wrote a row for each spelling of its name."""

    version: int
    metadata_columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    next_number: int = 0
    kind: str = ""
    table_name: str = ""


def names_match(name: str) -> sa.ColumnElement[bool]:
    """Return the condition that a row is about the table of this name."""
    upper, lower = string.ascii_uppercase, string.ascii_lowercase
    return sa.func.translate(SCHEMA.c.table_name, upper, lower) == folded(name)


def read_rows(connection: sa.Connection) -> tuple[dict[str, SchemaRow], bool]:
    """Return the rows by the folded name of their table, and whether they have next numbers.

    Raises:
        SchemaMismatchError: the table lacks a column, or a value is damaged.
    """
    statement = sa.select(sa.text("*")).select_from(sa.table(SCHEMA.name))
    result = connection.execute(statement)
    names = set(result.keys())
    rows = result.mappings().all()
    _check_columns(names)
    found: dict[str, SchemaRow] = {}
    for row in rows:
        new = _checked(row)
        old = found.setdefault(folded(new.table_name), new)
        old.metadata_columns = {**new.metadata_columns, **old.metadata_columns}
        old.next_number = max(old.next_number, new.next_number)
    return found, _NEXT_NUMBER in names


def add_next_number(connection: sa.Connection) -> None:
    """Add the column of the next numbers to a file of an earlier version."""
    connection.execute(sa.text(f"ALTER TABLE {SCHEMA.name} ADD COLUMN {_NEXT_NUMBER} BIGINT"))


def _check_columns(names: Iterable[str]) -> None:
    missing = {column.name for column in SCHEMA.columns} - {_NEXT_NUMBER} - set(names)
    if missing:
        raise SchemaMismatchError(
            f"table {SCHEMA.name!r} has no column {', '.join(sorted(missing))}. If it was changed "
            f"with SQL, undo that. Otherwise drop it: DROP TABLE {SCHEMA.name}. It is created "
            "again when the storage is opened, and no record is lost."
        )


def _checked(values: Mapping[Any, Any]) -> SchemaRow:
    name, version, pairs = (values[key] for key in ("table_name", "version", "metadata_columns"))
    if not isinstance(version, int):
        raise _damaged(name, "version", version, "1")
    number = values.get(_NEXT_NUMBER) or 0
    if not isinstance(number, int):
        raise _damaged(name, _NEXT_NUMBER, number, "NULL")
    try:
        columns = {
            key: (text, kind)
            for key, (text, kind) in json.loads(pairs).items()
            if isinstance(text, str) and isinstance(kind, str)
        }
    except (ValueError, TypeError, AttributeError):
        raise _damaged(name, "metadata_columns", pairs, "'{}'") from None
    return SchemaRow(version, columns, number, str(values["kind"]), str(name))


def _damaged(name: Any, column: str, value: Any, default: str) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"table {SCHEMA.name!r}: {column} of {name!r} is damaged: {shown(value, 60)}. Set it: "
        f"UPDATE {SCHEMA.name} SET {column} = {default} WHERE table_name = {name!r}. No record is "
        "lost; metadata_fields then adds columns again."
    )
