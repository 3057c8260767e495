"""Write one Parquet file, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from afterimage.storage.arrow.arrays import integers
from afterimage.storage.errors import StorageError, shorten
from afterimage.storage.system.targets import is_utf8

__all__ = ["ParquetFile", "plain_parts", "plain_schema"]

# The largest 32-bit offset.
_MOST_PLAIN = 2**31 - 1


class ParquetFile:
    """One Parquet file. Batches are collected until they fill a row group.

    Args:
        target: the path of the file, or a binary stream, which is not closed.
        schema: the schema of the batches.
        compression: a Parquet codec.
        group_bytes: approximate size of a row group in bytes of Arrow data.
    """

    def __init__(
        self, target: Path | IO[bytes], schema: pa.Schema, compression: str, group_bytes: int
    ) -> None:
        # Without 64-bit offsets in the schema of the file, readers use their usual types.
        self._schema = plain_schema(schema)
        self._file: IO[bytes] | None = None
        if isinstance(target, Path) and not is_utf8(target):  # Arrow cannot open it
            target = self._file = target.open("wb")
        self._writer = pq.ParquetWriter(target, self._schema, compression=compression)
        self._group_bytes = group_bytes
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._flush()
        self.close()

    def close(self) -> None:
        """Write the footer. Batches of an incomplete row group are not written."""
        self._writer.close()
        if self._file is not None:
            self._file.close()

    def write(self, batch: pa.RecordBatch) -> int:
        """Add a batch, and return its number of rows."""
        for part in plain_parts(batch, self._schema, self._group_bytes):
            self._held.append(part)
            self._held_bytes += part.nbytes
            if self._held_bytes >= self._group_bytes:
                self._flush()
        return int(batch.num_rows)

    def write_group(self, parts: Sequence[pa.RecordBatch]) -> None:
        """Write one row group of batches that have the schema of `plain_schema`."""
        group = pa.Table.from_batches(parts)
        try:
            self._writer.write_table(group, row_group_size=max(1, len(group)))
        except pa.ArrowException as error:
            raise StorageError(f"cannot be written as Parquet: {shorten(error)}") from error

    def _flush(self) -> None:
        if self._held:
            self.write_group(self._held)
            self._held, self._held_bytes = [], 0


def plain_parts(
    batch: pa.RecordBatch, schema: pa.Schema, part_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Yield a batch in parts of about `part_bytes`, with the types of `schema`.

    Raises:
        StorageError: a value is too large for Parquet.
    """
    rows = max(1, batch.num_rows * part_bytes // max(1, batch.nbytes))
    for start in range(0, batch.num_rows, rows):
        part = batch.slice(start, rows)
        if part.get_total_buffer_size() > _MOST_PLAIN:
            # A slice keeps the offsets of the whole batch, which may exceed 32 bits.
            part = part.take(integers(range(part.num_rows)))
        try:
            part = part.cast(schema)  # part by part: a row group is not in memory twice
        except pa.ArrowException as error:
            raise StorageError(f"cannot be written as Parquet: {shorten(error)}") from error
        yield part


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the same schema with 32-bit offsets, as in files and in the engine.

    >>> plain_schema(pa.schema({"tags": pa.large_list(pa.large_string())})).field("tags").type
    ListType(list<item: string>)
    """
    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([child.with_type(_plain(child.type)) for child in kind])
    return kind
