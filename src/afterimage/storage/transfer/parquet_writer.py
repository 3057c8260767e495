"""One Parquet file, written row group by row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from afterimage.storage.errors import StorageError, shorten

__all__ = ["ParquetFile", "plain_parts", "plain_schema"]

# What 32-bit offsets reach.
_MOST_PLAIN = 2**31 - 1


class ParquetFile:
    """One Parquet file: batches are held back until they make a row group."""

    def __init__(self, path: Path, schema: pa.Schema, compression: str, group_bytes: int) -> None:
        # 64-bit offsets are for memory; in the file they would only ask readers for large types.
        self._schema = plain_schema(schema)
        self._writer = pq.ParquetWriter(path, self._schema, compression=compression)
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
        """Write the footer; what is held back is not written."""
        self._writer.close()

    def write(self, batch: pa.RecordBatch) -> int:
        """Take a batch; how many rows it has."""
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
            raise StorageError(f"Parquet refuses the records: {shorten(error)}") from error

    def _flush(self) -> None:
        if self._held:
            self.write_group(self._held)
            self._held, self._held_bytes = [], 0


def plain_parts(
    batch: pa.RecordBatch, schema: pa.Schema, part_bytes: int
) -> Iterator[pa.RecordBatch]:
    """A batch in parts of about `part_bytes`, with the plain types of `schema`.

    Raises:
        StorageError: a value is too large for Parquet.
    """
    rows = max(1, batch.num_rows * part_bytes // max(1, batch.nbytes))
    for at in range(0, batch.num_rows, rows):
        part = batch.slice(at, rows)
        if part.get_total_buffer_size() > _MOST_PLAIN:
            # A slice keeps the offsets of the whole, which plain strings cannot hold.
            part = part.take(pa.array(range(part.num_rows), pa.int64()))
        try:
            part = part.cast(schema)  # at once, so that a group is not held twice
        except pa.ArrowException as error:
            raise StorageError(f"Parquet refuses the records: {shorten(error)}") from error
        yield part


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The same schema with 32-bit offsets, as files and the engine have them.

    >>> plain_schema(pa.schema({"tags": pa.large_list(pa.large_string())})).field("tags").type
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
