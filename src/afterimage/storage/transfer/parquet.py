"""Write Parquet files or Hive folders: streaming, with row groups of a size in bytes, atomically.

Strings are written as UTF-8 and nested columns as lists and structs, so pandas, Polars, Spark, HF
datasets and pyarrow read the files without options.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json

from afterimage.storage.arrow.arrays import binaries
from afterimage.storage.arrow.declared import DeclaredTypes
from afterimage.storage.arrow.schema import projected_schema
from afterimage.storage.errors import InvalidQueryError, shorten
from afterimage.storage.query.arguments import positive
from afterimage.storage.query.query import Query
from afterimage.storage.records.fields import RecordKind
from afterimage.storage.records.paths import as_json
from afterimage.storage.system.atomic_files import replaced, written_file
from afterimage.storage.transfer.parquet_writer import ParquetFile
from afterimage.storage.transfer.partitions import NULL_PARTITION, write_partitions

__all__ = ["check_compression", "json_of_partitions", "write_parquet"]

_COMPRESSIONS = ("zstd", "snappy", "gzip", "lz4", "brotli", "none")


def write_parquet(
    path: Path,
    kind: RecordKind,
    query: Query,
    batches: Iterator[pa.RecordBatch],
    declared: DeclaredTypes | None = None,
    *,
    partition_by: Sequence[str],
    json_columns: Collection[str],
    compression: str,
    row_group_bytes: int,
) -> int:
    """Write record batches to `path`; see `RecordStorage.export_parquet`.

    Returns:
        The number of rows written.

    Raises:
        InvalidQueryError: an option is not valid, or a value cannot name a folder.
        MissingFileError: the folder of `path` does not exist.
    """
    assert query.columns is not None
    row_group_bytes = check_compression(compression, row_group_bytes)
    schema = projected_schema(query.columns)
    if declared is not None:
        schema = declared.schema(schema)
    if not partition_by:
        if path.is_dir():
            raise InvalidQueryError(f"{path} is a folder. Give a file, or partition_by.")
        with (
            written_file(path) as target,
            ParquetFile(target, schema, compression, row_group_bytes) as file,
        ):
            return sum(file.write(batch) for batch in batches)
    _check_partitions(kind, query, partition_by)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InvalidQueryError(f"{path} already exists. Give a new folder, or remove it first.")
    rest = pa.schema([field for field in schema if field.name not in partition_by])
    dropped = [
        field.path
        for field in query.columns
        if field.path in partition_by and not (field.keys and field.column in rest.names)
    ]
    with replaced(path) as folder:
        folder.mkdir()
        batches = _without_lost_values(_texts_of_json(batches, json_columns), dropped)
        return write_partitions(folder, batches, rest, partition_by, compression, row_group_bytes)


def json_of_partitions(query: Query, partition_by: Sequence[str]) -> tuple[Query, frozenset[str]]:
    """Return a query that reads values as JSON where only the names of folders have them.

    Args:
        query: the query of an export.
        partition_by: the fields whose values name the folders.

    Returns:
        The query, and the paths of the fields that it reads as JSON.
    """
    assert query.columns is not None
    whole = {field.column for field in query.columns if not field.keys}
    paths = frozenset(
        field.path
        for field in query.columns
        if field.path in partition_by
        and field.keys
        and field.column not in whole
        and not field.as_json  # a declared type reads the JSON itself
    )
    return replace(query, columns=as_json(query.columns, paths)), paths


def _texts_of_json(
    batches: Iterator[pa.RecordBatch], names: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the same batches, with the texts of the JSON values in some columns.

    Raises:
        InvalidQueryError: a string has the text of another value. They would have one folder.
    """
    strings: dict[str, dict[str, bool]] = {name: {} for name in names}
    for batch in batches:
        for name in names:
            encoded = batch.column(name).dictionary_encode()
            texts = []
            for text in encoded.dictionary.to_pylist():
                value = from_json(text)
                is_string = isinstance(value, str)
                texts.append(value if is_string else None if value is None else text)
                own = texts[-1]
                if own is not None and strings[name].setdefault(own, is_string) != is_string:
                    raise InvalidQueryError(
                        f"{shorten(name, 60)} cannot partition: {shorten(repr(own), 50)} is a "
                        "string in some records and another value in others, and both would be "
                        "in one folder. Keep the metadata in the files, or give the field a type."
                    )
            column = pa.array(texts, pa.large_string()).take(encoded.indices)
            index = batch.schema.get_field_index(name)
            batch = batch.set_column(index, name, column)  # noqa: PLW2901
        yield batch


def check_compression(compression: str, row_group_bytes: int) -> int:
    """Check the codec, and return the checked size of a row group.

    Raises:
        InvalidQueryError: one of them is not valid.
    """
    if compression not in _COMPRESSIONS:
        raise InvalidQueryError(
            f"unknown compression {shorten(repr(compression), 40)}; use {', '.join(_COMPRESSIONS)}"
        )
    return positive(row_group_bytes, "row_group_bytes")


def _check_partitions(kind: RecordKind, query: Query, partition_by: Sequence[str]) -> None:
    assert query.columns is not None
    if len(set(partition_by)) < len(partition_by):
        raise InvalidQueryError("partition_by names a field twice")
    by_path = {field.path: field for field in query.columns}
    if len(by_path) == len(partition_by):
        raise InvalidQueryError("partition_by names all columns; keep one for the files")
    for name in partition_by:
        field = by_path[name]
        nested = pa.types.is_nested(projected_schema([field]).field(0).type)
        if nested or (field.column in ("metadata", "extra") and not field.keys):
            raise InvalidQueryError(
                f"{kind.name} cannot be partitioned by {shorten(name, 60)!r}, which is not a "
                "single value; use a field inside it"
            )


def _without_lost_values(
    batches: Iterator[pa.RecordBatch], names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the same batches; raise an error for a value that a folder name cannot represent.

    Readers treat two strings in a folder name as null. This is an error for the columns `names`,
    which are not in the files. For other columns, the files contain the value.
    """
    lost = binaries([b"", NULL_PARTITION.encode()]).cast(pa.large_string())
    for batch in batches:
        for name in names:
            column = batch.column(name)
            if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                continue
            found = column.filter(pc.is_in(column.cast(lost.type), value_set=lost))
            if len(found):
                raise InvalidQueryError(
                    f"{shorten(name, 60)} cannot partition: the value {found[0].as_py()!r} would "
                    "be read back as null. Leave these records out by filters, or partition by "
                    "another field."
                )
        yield batch
