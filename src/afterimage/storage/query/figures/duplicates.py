"""Find duplicate values with DuckDB, which spills to disk if the data does not fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.arrow.arrays import binaries, integers
from afterimage.storage.engine.database import scratch_connection
from afterimage.storage.engine.statements import fetch_all, streamed
from afterimage.storage.errors import shorten
from afterimage.storage.query.predicates import order_of_values
from afterimage.storage.query.relations import Source
from afterimage.storage.records.fields import Double, Integer, Text, Timestamp
from afterimage.storage.records.paths import FieldRef
from afterimage.storage.reports.faults import FEW, Found, Place

__all__ = ["repeated", "repeated_ids", "repeated_numbers"]

_IDS = pa.schema(
    [
        pa.field("id", pa.large_string()),
        pa.field("line", pa.int64()),
        pa.field("offset", pa.int64()),
    ]
)


def repeated_ids(found: Iterable[list[tuple[str, Path, int, int]]]) -> Found[Place]:
    """Return the duplicate ids among the `(id, path, line, offset)` tuples of one file."""
    paths: list[Path] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for chunk in found:
            paths.extend(path for _, path, _, _ in chunk[:1])
            ids = [id_.encode() for id_, _, _, _ in chunk]
            arrays = [
                binaries(ids).cast(pa.large_string()),
                integers(line for _, _, line, _ in chunk),
                integers(offset for _, _, _, offset in chunk),
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=_IDS)

    with scratch_connection() as connection, streamed(connection, _IDS, batches()) as ids:
        places = [sa.func.min(ids.c.line), sa.func.min(ids.c.offset)]
        rows, count = _repeated(connection, ids, ids.c.id, places)
    return Found(
        count,
        tuple(
            Place(paths[0], None, line, offset, _fault("id", value, times))
            for value, times, line, offset in rows
        ),
    )


def repeated_numbers(
    statement: sa.Select[Any], source: Source, field: FieldRef, *, last: bool
) -> sa.Select[Any]:
    """Select the `number` of the rows of a statement whose field has the value of another row.

    The first row of each value is left out; with `last`, the last one. Rows without a value are
    left out, too: they are not known to be equal.
    """
    declared = isinstance(field.type, Text | Double | Integer | Timestamp)
    keys = [source.value(field)] if declared else order_of_values(source.json(field))
    names = [f"key_{index}" for index in range(len(keys))]
    labelled = [key.label(name) for name, key in zip(names, keys, strict=True)]
    # Materialized: the engine would compute the keys for the condition, and again for the windows.
    keyed = statement.add_columns(*labelled).cte("keyed").prefix_with("MATERIALIZED")
    number = keyed.c["number"]
    rank = sa.func.row_number().over(
        partition_by=[keyed.c[name] for name in names],
        order_by=number.desc() if last else number.asc(),
    )
    ranked = (
        sa.select(*keyed.c, rank.label("place")).where(keyed.c[names[0]].is_not(None)).subquery()
    )
    kept = [ranked.c[str(column.key)] for column in statement.selected_columns]
    return sa.select(*kept).where(ranked.c.place > 1)


def repeated(
    connection: sa.Connection,
    path: Path,
    table: sa.Table,
    column: sa.Column[Any],
    sequence: sa.ColumnElement[int],
) -> Found[Place]:
    """Return the duplicate values of a table column, each with its first row."""
    rows, count = _repeated(connection, table, column, [sa.func.min(sequence)])
    return Found(
        count,
        tuple(
            Place(path, table.name, row, None, _fault(column.name, value, times))
            for value, times, row in rows
        ),
    )


def _fault(name: str, value: Any, times: int) -> str:
    return f"{name} {shorten(repr(value), 80)}, {times:,} times"


def _repeated(
    connection: sa.Connection,
    relation: sa.FromClause,
    column: sa.ColumnElement[Any],
    places: Sequence[sa.ColumnElement[Any]],
) -> tuple[list[tuple[Any, ...]], int]:
    """Return the first few duplicates and the number of all duplicate values.

    A duplicate is a tuple of the value, its number of occurrences and its places.
    """
    times = sa.func.count()
    statement = (
        sa.select(times.over(), column, times, *places)
        .select_from(relation)
        .where(column.is_not(None))
        .group_by(column)
        .having(times > 1)
        .order_by(*places)
        .limit(FEW)
    )
    rows = fetch_all(connection, statement)
    return [tuple(row)[1:] for row in rows], rows[0][0] if rows else 0
