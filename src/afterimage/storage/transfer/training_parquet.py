"""Write rows for training to a Parquet file.

The columns are known only after the last row. So the rows wait as JSON lines in a temporary file,
and the memory is bounded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
from pydantic_core import from_json

from afterimage.storage.errors import StorageError, shorten
from afterimage.storage.system.atomic_files import written_file
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.transfer.parquet import check_compression
from afterimage.storage.transfer.parquet_writer import ParquetFile
from afterimage.storage.transfer.training_columns import TrainingColumns

__all__ = ["write_training_parquet"]

# Bytes of rows that are kept in memory; above this, in a file.
_BYTES_IN_MEMORY: Final = 16 * 2**20
# Bytes of rows that are converted at a time.
_BATCH_BYTES: Final = 4 * 2**20


def write_training_parquet(
    path: Path,
    batches: Iterable[list[str]],
    own: Collection[str],
    *,
    compression: str,
    row_group_bytes: int,
) -> int:
    """Write rows to `path`, in their order.

    Args:
        path: the file; it appears when it is complete.
        batches: the rows, as lines of JSON.
        own: the keys that the format of the rows names.
        compression: a Parquet codec.
        row_group_bytes: approximate size of a row group in bytes of Arrow data.

    Returns:
        The number of rows written.

    Raises:
        InvalidQueryError: an option is not valid, or the rows have too many different keys.
        StorageError: the file cannot be written.
    """
    group_bytes = check_compression(compression, row_group_bytes)
    columns = TrainingColumns(own)
    with written_file(path) as target:
        folder = str(target.parent) if isinstance(target, Path) else None
        with tempfile.SpooledTemporaryFile(max_size=_BYTES_IN_MEMORY, dir=folder) as rows:
            written = 0
            for lines in batches:
                checkpoint()
                for line in lines:
                    columns.add(from_json(line))
                    rows.write(line.encode() + b"\n")
                written += len(lines)
            rows.seek(0)
            schema = columns.schema()
            with ParquetFile(target, schema, compression, group_bytes) as file:
                for batch in _batches(rows, columns, schema):
                    file.write(batch)
    return written


def _batches(
    rows: IO[bytes], columns: TrainingColumns, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    converted = columns.converter()
    while lines := rows.readlines(_BATCH_BYTES):
        checkpoint()
        try:
            with paused_collector():
                objects = [converted(from_json(line)) for line in lines]
                batch = pa.RecordBatch.from_pylist(objects, schema=schema)
        except pa.ArrowException as error:
            raise StorageError(f"cannot be written as Parquet: {shorten(error)}") from error
        yield batch
