"""Scans of JSON lines: narrow columns straight from DuckDB, wide ones built from whole lines.

Nested fields, metadata as a whole and `extra` are built by the code that every save goes through,
so that a scan of a file and one of a database give the same. What is a single value comes from the
engine, which then parses nothing else of a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

import pyarrow as pa

from afterimage.storage.jsonl.lines import Chunk, objects_of
from afterimage.storage.jsonl.select import select_lines
from afterimage.storage.query.query import FieldRef, Query
from afterimage.storage.records.arrow import rows_of_objects, to_batch
from afterimage.storage.records.fields import Json, List, RecordTable, Struct
from afterimage.storage.records.schema import projected_schema

__all__ = ["scan_lines"]


def scan_lines(
    table: RecordTable, chunks: Iterable[Chunk], query: Query
) -> Iterator[pa.RecordBatch]:
    """The query's columns of the matching lines, with the declared schema."""
    assert query.columns is not None
    schema = projected_schema(query.columns)
    narrow = [field for field in query.columns if not _is_wide(field)]
    whole = len(narrow) < len(query.columns)
    # Closed here where a line is refused: the error would keep the engine's connection open.
    with closing(select_lines(table.kind, chunks, query, whole=whole, columns=narrow)) as found:
        for batch in found:
            values = batch.columns[whole:]
            if whole:  # copied: kept, they would keep the memory between the lines in pieces
                every = pa.array(range(len(batch)), pa.int64())
                values = [column.take(every) for column in values]
            arrays = dict(zip((field.path for field in narrow), values, strict=True))
            if whole:
                objects = objects_of(batch.column(0).to_pylist())
                built = to_batch(table, rows_of_objects(table, objects))
                arrays |= {
                    field.path: _inner(built.column(field.column), field)
                    for field in query.columns
                    if _is_wide(field)
                }
            yield pa.RecordBatch.from_arrays(
                [arrays[field.name].cast(field.type) for field in schema], schema=schema
            )


def _is_wide(field: FieldRef) -> bool:
    return isinstance(field.type, Struct | List) or (
        isinstance(field.type, Json) and not field.keys
    )


def _inner(array: pa.Array, field: FieldRef) -> pa.Array:
    for step in field.inner:
        # Flattened, a child is null where its parent is.
        array = array.flatten()[array.type.get_field_index(step)]
    return array
