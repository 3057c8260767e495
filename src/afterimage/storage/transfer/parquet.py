"""Parquet files: streamed, row groups by bytes, one file or Hive folders, whole or not at all.

Strings are written as plain UTF-8 and nested columns as plain lists and structs, so that pandas,
Polars, Spark, HF datasets and pyarrow read the files with no option given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from afterimage.storage.errors import InvalidQueryError, StorageError, shorten
from afterimage.storage.query.arguments import positive
from afterimage.storage.query.query import Query
from afterimage.storage.records.fields import RecordKind
from afterimage.storage.records.schema import projected_schema
from afterimage.storage.system.atomic_files import replaced

__all__ = ["write_parquet"]

_COMPRESSIONS = ("zstd", "snappy", "gzip", "lz4", "brotli", "none")

# Files that a partitioned export keeps open at a time; what more there are is refused, as each
# holds a row group in memory.
_MOST_PARTITIONS = 1024

# What 32-bit offsets reach.
_MOST_PLAIN = 2**31 - 1

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def write_parquet(
    path: Path,
    kind: RecordKind,
    query: Query,
    batches: Iterator[pa.RecordBatch],
    *,
    partition_by: Sequence[str],
    compression: str,
    row_group_bytes: int,
) -> int:
    """Write record batches to `path`; see `RecordStorage.export_parquet`.

    Returns:
        How many rows were written.

    Raises:
        InvalidQueryError: an option has no meaning.
        MissingFileError: the folder of `path` does not exist.
    """
    assert query.columns is not None
    if compression not in _COMPRESSIONS:
        raise InvalidQueryError(
            f"unknown compression {shorten(repr(compression), 40)}; use {', '.join(_COMPRESSIONS)}"
        )
    positive(row_group_bytes, "row_group_bytes")
    schema = projected_schema(query.columns)
    if not partition_by:
        if path.is_dir():
            raise InvalidQueryError(f"{path} is a folder. Give a file, or partition_by.")
        with replaced(path) as fresh, _Writer(fresh, schema, compression, row_group_bytes) as file:
            return sum(file.write(batch) for batch in batches)
    _check_partitions(kind, query, partition_by)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InvalidQueryError(f"{path} is there already. Give a new folder, or remove it first.")
    rest = pa.schema([field for field in schema if field.name not in partition_by])
    with replaced(path) as folder:
        folder.mkdir()
        return _write_partitions(folder, batches, rest, partition_by, compression, row_group_bytes)


def _check_partitions(kind: RecordKind, query: Query, partition_by: Sequence[str]) -> None:
    assert query.columns is not None
    if len(set(partition_by)) < len(partition_by):
        raise InvalidQueryError("partition_by names a field twice")
    by_path = {field.path: field for field in query.columns}
    if len(by_path) == len(partition_by):
        raise InvalidQueryError("partition_by takes all columns; leave one for the files")
    for name in partition_by:
        field = by_path[name]
        nested = pa.types.is_nested(projected_schema([field]).field(0).type)
        if nested or (field.column in ("metadata", "extra") and not field.keys):
            raise InvalidQueryError(
                f"{kind.name} cannot be partitioned by {shorten(name, 60)!r}, which is no single "
                "value; use a field inside it"
            )


def _write_partitions(
    folder: Path,
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    partition_by: Sequence[str],
    compression: str,
    row_group_bytes: int,
) -> int:
    files: dict[tuple[Any, ...], _Writer] = {}
    written = 0
    with ExitStack() as open_files:
        for batch in batches:
            for key, rows in _split(batch, partition_by):
                if key not in files:
                    if len(files) == _MOST_PARTITIONS:
                        raise InvalidQueryError(
                            f"partition_by {', '.join(partition_by)} gives over "
                            f"{_MOST_PARTITIONS} folders; choose fields with fewer values"
                        )
                    part = folder / _hive_path(partition_by, key)
                    part.mkdir(parents=True, exist_ok=True)
                    files[key] = open_files.enter_context(
                        _Writer(part / "part-0.parquet", schema, compression, row_group_bytes)
                    )
                written += files[key].write(rows.select(schema.names))
    return written


def _split(
    batch: pa.RecordBatch, partition_by: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], pa.RecordBatch]]:
    """The rows of each combination of values, rows and combinations in the order they come."""
    rows_of: dict[tuple[Any, ...], list[int]] = {}
    keys = zip(*(batch.column(name).to_pylist() for name in partition_by), strict=True)
    for row, key in enumerate(keys):
        rows_of.setdefault(tuple(map(_hive_value, key)), []).append(row)
    for key, rows in rows_of.items():
        yield key, batch.take(pa.array(rows, pa.int64()))


def _hive_value(value: Any) -> str:
    # An empty string has no folder name of its own; Hive, too, reads it back as null.
    return _NULL_PARTITION if value is None or value == "" else quote(str(value), safe=" ")


def _hive_path(names: Sequence[str], key: tuple[Any, ...]) -> Path:
    return Path(
        *(f"{quote(name, safe=' ')}={value}" for name, value in zip(names, key, strict=True))
    )


class _Writer:
    """One Parquet file: batches are held back until they make a row group."""

    def __init__(self, path: Path, schema: pa.Schema, compression: str, group_bytes: int) -> None:
        # 64-bit offsets are for memory; in the file they would only ask readers for large types.
        self._schema = _plain_schema(schema)
        self._writer = pq.ParquetWriter(path, self._schema, compression=compression)
        self._group_bytes = group_bytes
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def write(self, batch: pa.RecordBatch) -> int:
        """Take a batch; how many rows it has."""
        rows = max(1, batch.num_rows * self._group_bytes // max(1, batch.nbytes))
        for at in range(0, batch.num_rows, rows):
            part = batch.slice(at, rows)
            if part.get_total_buffer_size() > _MOST_PLAIN:
                # A slice keeps the offsets of the whole, which plain strings cannot hold.
                part = part.take(pa.array(range(part.num_rows), pa.int64()))
            try:
                part = part.cast(self._schema)  # at once, so that a group is not held twice
            except pa.ArrowException as error:
                raise StorageError(f"Parquet refuses the records: {shorten(error)}") from error
            self._held.append(part)
            self._held_bytes += part.nbytes
            if self._held_bytes >= self._group_bytes:
                self._flush()
        return int(batch.num_rows)

    def _flush(self) -> None:
        if not self._held:
            return
        group = pa.Table.from_batches(self._held)
        try:
            self._writer.write_table(group, row_group_size=max(1, len(group)))
        except pa.ArrowException as error:
            raise StorageError(f"Parquet refuses the records: {shorten(error)}") from error
        self._held, self._held_bytes = [], 0


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    """The same schema with 32-bit offsets, as files and the engine have them.

    >>> _plain_schema(pa.schema({"tags": pa.large_list(pa.large_string())})).field("tags").type
    ListType(list<item: string>)
    """
    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(of.name, _plain(of.type)) for of in kind])
    return kind
