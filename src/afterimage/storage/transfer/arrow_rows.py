"""Arrow and Parquet as the source of an import: each row becomes a JSON object.

The invariants: batches are read one at a time, so memory is bounded. Rows of this package's own
scans and exports become the records that they were read from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import PydanticSerializationError, from_json, to_json

from afterimage.storage.arrow.objects import to_objects
from afterimage.storage.arrow.rows import has_json_values, rows_of
from afterimage.storage.arrow.schema import arrow_schema, arrow_type
from afterimage.storage.errors import (
    CorruptRecordError,
    InvalidQueryError,
    MissingFileError,
    StorageError,
    UnsupportedFileError,
    shorten,
)
from afterimage.storage.jsonl.lines import Chunk, Line
from afterimage.storage.records.fields import RecordKind
from afterimage.storage.records.validation import readable
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.interrupts import checkpoint

__all__ = ["chunks_of_arrow", "chunks_of_parquet"]

# Rows that are converted at a time: their objects stay in the cache of a processor core.
_ROWS: Final = 512
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
_NAME: Final = Path("<arrow>")


def chunks_of_arrow(
    source: Any,
    kind: RecordKind,
    handle: Callable[[CorruptRecordError], object],
    *,
    native: bool | None,
) -> Iterator[Chunk]:
    """Yield the rows of an Arrow stream as chunks of JSON objects.

    Args:
        source: has the method `__arrow_c_stream__`, or is a `Dataset` of Hugging Face.
        kind: the kind of the records.
        handle: called with the error of a row that cannot be written as JSON, which is left out.
        native: whether rows have the columns of this package's scans; None if the columns decide.

    Raises:
        InvalidQueryError: the source is no Arrow stream.
        UnsupportedFileError: with `native`, it has other columns.
    """
    yield from _chunks(_batches_of(source), _NAME, kind, handle, {}, native=native)


def chunks_of_parquet(
    path: Path,
    kind: RecordKind,
    handle: Callable[[CorruptRecordError], object],
    *,
    native: bool | None,
) -> Iterator[Chunk]:
    """Yield the rows of a Parquet file, or of all Parquet files in a folder, as JSON objects.

    The files of a folder are read in the order of their paths. The names of Hive folders,
    `key=value`, are columns.

    Args:
        path: the file or the folder.
        kind: see `chunks_of_arrow`.
        handle: see `chunks_of_arrow`.
        native: see `chunks_of_arrow`.

    Raises:
        MissingFileError: there is no such file, or no Parquet file in the folder.
        UnsupportedFileError: a file is no Parquet file, or, with `native`, has other columns.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.parquet") if file.is_file())
    else:
        files = [path]
    if not files:
        raise MissingFileError(f"{path} has no files that end in .parquet. Check the path.")
    for file in files:
        values = _partition_values(file.parent.relative_to(path) if file != path else Path())
        try:
            with pq.ParquetFile(file) as opened:
                # Without row groups, older versions of pyarrow raise an error.
                batches = opened.iter_batches(_ROWS) if opened.num_row_groups else iter(())
                yield from _chunks(batches, file, kind, handle, values, native=native)
        except FileNotFoundError:
            raise MissingFileError(f"{file} does not exist. Check the path.") from None
        except pa.ArrowInvalid as error:
            raise UnsupportedFileError(
                f"{file} is not a Parquet file, or is damaged: {shorten(error, 200)}"
            ) from None
        except OSError as error:
            raise StorageError(f"{file} cannot be read: {shorten(error, 200)}") from error


def _batches_of(source: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(source, pa.RecordBatch | pa.Table | pa.RecordBatchReader) or hasattr(
        source, "__arrow_c_stream__"
    ):
        with pa.RecordBatchReader.from_stream(source) as reader:
            for batch in reader:
                yield from _parts(batch)
        return
    if hasattr(source, "with_format") and hasattr(source, "iter"):  # a Dataset of Hugging Face
        for table in source.with_format("arrow").iter(_ROWS):
            yield from table.to_batches()
        return
    raise InvalidQueryError(
        f"an Arrow stream is required, with the method __arrow_c_stream__, not "
        f"{type(source).__name__}. DataFrames of pandas (from 2.2) and Polars have it"
    )


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, _ROWS):
        yield batch.slice(start, _ROWS)


def _partition_values(folder: Path) -> dict[str, str | None]:
    """Return the columns that the names of Hive folders give."""
    values: dict[str, str | None] = {}
    for part in folder.parts:
        key, sign, value = part.partition("=")
        if sign:
            values[unquote(key)] = None if value == _NO_VALUE else unquote(value)
    return values


def _chunks(
    batches: Iterable[pa.RecordBatch],
    path: Path,
    kind: RecordKind,
    handle: Callable[[CorruptRecordError], object],
    values: Mapping[str, Any],
    *,
    native: bool | None,
) -> Iterator[Chunk]:
    number = 1
    for batch in batches:
        is_plain = has_json_values(batch.schema)
        checkpoint()
        if _is_own(batch.schema) if native is None else native:
            rows, is_plain = _own_rows(kind, _with_values(kind, batch, values), path), True
        else:
            known = {name: value for name, value in values.items() if value is not None}
            rows = [{**known, **row} for row in rows_of(batch)] if known else rows_of(batch)
        empty = Chunk(path, number, 0, [b""] * len(rows), "utf-8")
        objects: list[dict[str, Any] | None] = []
        texts: list[bytes] = []
        with paused_collector():
            for at, row in enumerate(rows, number):
                try:  # a date, for example, becomes a text
                    text = readable(to_json(row, inf_nan_mode="constants"))
                except (PydanticSerializationError, ValueError) as error:
                    reason = f"the row cannot be written as JSON: {shorten(error, 200)}"
                    handle(empty.corrupt(Line(at, 0, b""), reason))
                    text = b""
                texts.append(text)
                objects.append((row if is_plain else from_json(text)) if text else None)
        yield empty._replace(lines=texts, objects=objects)
        number += len(batch)


def _is_own(schema: pa.Schema) -> bool:
    """Return whether a schema is that of conversations in this package's scans and exports."""
    if not {"conversations", "metadata"} <= {*schema.names}:
        return False
    messages, metadata = schema.field("conversations").type, schema.field("metadata").type
    is_list = pa.types.is_list(messages) or pa.types.is_large_list(messages)
    if not (is_list and pa.types.is_struct(messages.value_type)):
        return False
    is_text = pa.types.is_string(metadata) or pa.types.is_large_string(metadata)
    return bool(is_text and messages.value_type.get_field_index("role") >= 0)


def _with_values(
    kind: RecordKind, batch: pa.RecordBatch, values: Mapping[str, Any]
) -> pa.RecordBatch:
    """Return the batch with the declared columns that only the names of its folders have."""
    for name in values.keys() & kind.record.fields.keys() - {*batch.schema.names}:
        column = pa.array([values[name]] * batch.num_rows, pa.string())
        batch = batch.append_column(name, column)
    return batch


def _own_rows(kind: RecordKind, batch: pa.RecordBatch, path: Path) -> list[dict[str, Any]]:
    """Return the records of a batch with columns of a scan; absent columns have their defaults."""
    required = kind.record.fields.keys() - kind.record.defaults.keys() - {"id"}
    names = batch.schema.names
    if missing := required - {*names}:
        raise UnsupportedFileError(
            f"{path} has no column {', '.join(sorted(missing))}, so it is no export or scan of "
            f"{kind.name}. Its columns are {shorten(', '.join(names), 200)}. If it has another "
            "format, name it with format."
        )
    arrays = {}
    for name, field_type in kind.stored.items():
        if name in names:
            try:
                arrays[name] = batch.column(name).cast(arrow_type(field_type))
            except pa.ArrowException as error:
                raise UnsupportedFileError(
                    f"{path}: the column {name} has another type than exports of {kind.name}: "
                    f"{shorten(error, 200)} If it has another format, name it with format."
                ) from None
        else:
            arrays[name] = _default_column(kind, name, batch.num_rows)
    schema = arrow_schema(kind.stored)
    rows = to_objects(kind, pa.RecordBatch.from_pydict(arrays, schema=schema))
    absent = [name for name in kind.record.fields if name not in names]
    for row in rows:
        for name in absent:
            row.pop(name, None)
    return rows


def _default_column(kind: RecordKind, name: str, rows: int) -> pa.Array:
    default = kind.record.defaults.get(name)
    kind_of_values = arrow_type(kind.stored[name])
    if default is None:
        return pa.nulls(rows, kind_of_values)
    value = json.dumps(default) if isinstance(default, dict) else default
    return pa.array([value] * rows, kind_of_values)
