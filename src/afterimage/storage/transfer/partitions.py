"""Write Hive folders of Parquet files in bounded memory and with few open files.

The invariant: memory and open files do not grow with the number of partitions, except for a small
entry for each. Each partition has one file, with its rows in their original order.

Rows of small partitions are kept in a temporary file on the same disk until their partition has a
full row group. If the system supports it, the temporary file has no name: nothing is left of it
after a kill.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote, unquote

import pyarrow as pa

from afterimage.storage.arrow.arrays import integers
from afterimage.storage.errors import InvalidQueryError, shorten
from afterimage.storage.system.atomic_files import write_all
from afterimage.storage.transfer.parquet_writer import ParquetFile, plain_parts, plain_schema

__all__ = ["NULL_PARTITION", "write_partitions"]

# Rows are collected up to this size and then sorted into their partitions, so that the work for
# a partition is done once for many batches.
_RUN_BYTES = 32 * 2**20

# If a run has fewer bytes than this of one partition, they go to the temporary file: many small
# batches in memory would need far more than the size of their data.
_SMALL_BYTES = _RUN_BYTES // 64

# Bytes that all partitions together may hold in memory. Above this, the largest ones go to the
# temporary file.
_HELD_BYTES = 64 * 2**20

# Maximum number of open files. A partition opens its file when it has a full row group. Further
# partitions stay in the temporary file and are written one after the other at the end.
_OPEN_FILES = 32

# A row group of more batches than this is first copied into one batch: the writer is slow for many
# small batches.
_MANY_BATCHES = 16

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""The value in a folder name that readers treat as null."""

_Key = tuple[str, ...]


def write_partitions(
    folder: Path,
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    partition_by: Sequence[str],
    compression: str,
    row_group_bytes: int,
) -> int:
    """Write batches to the Hive folders of their values, `<field>=<value>/…/part-0.parquet`.

    Args:
        folder: an empty folder.
        batches: have the columns of `schema` and of `partition_by`.
        schema: the schema of the files.
        partition_by: names of the columns whose values name the folders.
        compression: a Parquet codec.
        row_group_bytes: approximate size of a row group in bytes of Arrow data.

    Returns:
        The number of rows written.

    Raises:
        InvalidQueryError: a value cannot name a folder.
    """
    written = 0
    with _Partitions(folder, schema, partition_by, compression, row_group_bytes) as partitions:
        for batch in batches:
            partitions.add(batch)
            written += batch.num_rows
        partitions.finish()
    return written


class _Partition:
    """The pending rows of one folder: first those in the temporary file, then those in memory."""

    __slots__ = ("file", "held", "held_bytes", "key", "spilled", "spilled_bytes")

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.file: ParquetFile | None = None
        self.spilled: array[int] | None = None  # offset and length of each batch, alternating
        self.spilled_bytes = 0
        self.held: list[pa.RecordBatch] = []
        self.held_bytes = 0


class _Partitions:
    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        names: Sequence[str],
        compression: str,
        group_bytes: int,
    ) -> None:
        self._folder = folder
        self._schema = plain_schema(schema)
        self._names = names
        self._compression = compression
        self._group_bytes = group_bytes
        self._longest_name = _longest_name(folder)
        self._partitions: dict[_Key, _Partition] = {}
        self._holding: dict[_Key, _Partition] = {}
        self._held_bytes = 0
        self._files: set[ParquetFile] = set()
        self._run: list[pa.RecordBatch] = []
        self._run_bytes = 0
        self._spill = _Spill(folder, self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with ExitStack() as stack:
            stack.callback(self._spill.close)
            for file in self._files:
                stack.callback(file.close)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch. They are written when their partition has a full row group."""
        for part in plain_parts(batch, plain_schema(batch.schema), _RUN_BYTES):
            if self._run and self._run_bytes + part.nbytes > _RUN_BYTES:
                self._sort_run()
            self._run.append(part)
            self._run_bytes += part.nbytes

    def finish(self) -> None:
        """Write all pending rows."""
        self._sort_run(last=True)
        # Finish the open files first, so that the number of open files does not grow.
        for partition in sorted(self._partitions.values(), key=lambda each: each.file is None):
            self._write_groups(partition, last=True)

    def _sort_run(self, *, last: bool = False) -> None:
        """Distribute the rows of the run to their partitions."""
        if not self._run:
            return
        run = pa.Table.from_batches(self._run).combine_chunks()
        self._run, self._run_bytes = [], 0
        for batch in run.to_batches():
            small: list[tuple[_Partition, list[int]]] = []
            fewest = _SMALL_BYTES * batch.num_rows / max(1, batch.nbytes)
            data = batch.select(self._schema.names)
            for key, rows in _rows_by_key(batch, self._names).items():
                partition = self._partition(key)
                if len(rows) < fewest:
                    small.append((partition, rows))
                else:
                    self._hold(partition, data.take(integers(rows)))
            # One copy in the order of the partitions is faster than one copy per partition.
            order = [row for _, rows in small for row in rows]
            ordered = data.take(integers(order))
            at = 0
            for partition, rows in small:
                part = ordered.slice(at, len(rows))
                at += len(rows)
                if last:
                    partition.held.append(part)
                else:
                    self._spill_held(partition)
                    self._spill_batch(partition, part)
                    self._write_if_full(partition)

    def _partition(self, key: _Key) -> _Partition:
        found = self._partitions.get(key)
        if found is None:
            for name, value in zip(self._names, key, strict=True):
                size = len(_hive_name(name, value))
                if size > self._longest_name:
                    raise InvalidQueryError(
                        f"{shorten(name, 60)} cannot partition: the value "
                        f"{shorten(repr(unquote(value)), 50)} makes a folder name of {size} bytes, "
                        f"and the most is {self._longest_name}. Partition by a field with shorter "
                        "values, or leave these records out by filters."
                    )
            found = self._partitions[key] = _Partition(key)
        return found

    def _keep(self, partition: _Partition, batch: pa.RecordBatch) -> None:
        partition.held.append(batch)
        partition.held_bytes += batch.nbytes
        self._held_bytes += batch.nbytes
        self._holding[partition.key] = partition

    def _hold(self, partition: _Partition, batch: pa.RecordBatch) -> None:
        self._keep(partition, batch)
        self._write_if_full(partition)
        while self._held_bytes > _HELD_BYTES:
            self._spill_held(max(self._holding.values(), key=lambda each: each.held_bytes))

    def _take_held(self, partition: _Partition) -> list[pa.RecordBatch]:
        """Remove the batches that the partition holds in memory, and return them."""
        held, partition.held = partition.held, []
        self._held_bytes -= partition.held_bytes
        partition.held_bytes = 0
        self._holding.pop(partition.key, None)
        return held

    def _spill_held(self, partition: _Partition) -> None:
        for batch in self._take_held(partition):
            self._spill_batch(partition, batch)

    def _spill_batch(self, partition: _Partition, batch: pa.RecordBatch) -> None:
        if partition.spilled is None:
            partition.spilled = array("q")
        partition.spilled.extend(self._spill.write(batch))
        partition.spilled_bytes += batch.nbytes

    def _write_if_full(self, partition: _Partition) -> None:
        full = partition.spilled_bytes + partition.held_bytes >= self._group_bytes
        if full and (partition.file is not None or len(self._files) < _OPEN_FILES):
            self._write_groups(partition)

    def _pending(self, partition: _Partition) -> Iterator[pa.RecordBatch]:
        spilled, partition.spilled, partition.spilled_bytes = partition.spilled, None, 0
        held = self._take_held(partition)
        for at in range(0, len(spilled or ()), 2):
            assert spilled is not None
            yield self._spill.read(spilled[at], spilled[at + 1])
        yield from held

    def _write_groups(self, partition: _Partition, *, last: bool = False) -> None:
        """Write the full row groups of a partition; with `last`, also the remaining rows."""
        file = partition.file or self._open_file(partition)
        group: list[pa.RecordBatch] = []
        size = 0
        for batch in self._pending(partition):
            row_bytes = max(1, batch.nbytes // max(1, batch.num_rows))
            at = 0
            while at < batch.num_rows:
                part = batch.slice(at, max(1, (self._group_bytes - size) // row_bytes))
                at += part.num_rows
                group.append(part)
                size += part.nbytes
                if size >= self._group_bytes:
                    _write_group(file, group)
                    group, size = [], 0
        if last:
            if group:
                _write_group(file, group)
            self._files.remove(file)
            partition.file = None
            file.close()
        elif group:
            # Copy the rows: a small slice would keep the whole large batch in memory.
            rest = pa.Table.from_batches(group)
            for batch in rest.take(integers(range(len(rest)))).to_batches():
                self._keep(partition, batch)

    def _open_file(self, partition: _Partition) -> ParquetFile:
        names = [_hive_name(*each) for each in zip(self._names, partition.key, strict=True)]
        path = self._folder.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError as error:
            raise InvalidQueryError(
                f"{shorten('/'.join(names), 100)}: another value has the same folder, because this "
                "file system ignores case. Export to another file system."
            ) from error
        file = ParquetFile(
            path / "part-0.parquet", self._schema, self._compression, self._group_bytes
        )
        partition.file = file
        self._files.add(file)
        return file


class _Spill:
    """A temporary file of batches. It is created when the first batch is written."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder = folder
        self._schema = schema
        self._file: IO[bytes] | None = None
        self._end = 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, batch: pa.RecordBatch) -> tuple[int, int]:
        """Append a batch, and return its offset and length in bytes."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115  closed by `close`
                dir=self._folder, buffering=0
            )
        at = self._end
        self._file.seek(at)
        write_all(self._file, memoryview(batch.serialize()))
        self._end = self._file.tell()
        return at, self._end - at

    def read(self, offset: int, length: int) -> pa.RecordBatch:
        assert self._file is not None
        self._file.seek(offset)
        data = bytearray(length)
        left = memoryview(data)
        while left:
            count = self._file.readinto(left)  # type: ignore[attr-defined]
            if not count:
                raise OSError("the temporary file of the export was truncated")
            left = left[count:]
        return pa.ipc.read_record_batch(pa.py_buffer(data), self._schema)


def _write_group(file: ParquetFile, group: list[pa.RecordBatch]) -> None:
    if len(group) > _MANY_BATCHES:
        group = pa.Table.from_batches(group).combine_chunks().to_batches()
    file.write_group(group)


def _rows_by_key(batch: pa.RecordBatch, names: Sequence[str]) -> dict[_Key, list[int]]:
    """Return the row numbers for each combination of values, both in the order of the batch."""
    rows_of: dict[_Key, list[int]] = {}
    keys = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    for row, key in enumerate(keys):
        rows_of.setdefault(tuple(map(_hive_value, key)), []).append(row)
    return rows_of


def _hive_value(value: Any) -> str:
    # An empty string cannot be a folder name. Hive also writes it as null.
    return NULL_PARTITION if value is None or value == "" else quote(str(value), safe=" ")


def _hive_name(field: str, value: str) -> str:
    return f"{quote(field, safe=' ')}={value}"


def _longest_name(folder: Path) -> int:
    """Return the maximum length of a file name in the folder, in bytes."""
    if os.name != "posix":
        return 255
    return os.pathconf(folder, "PC_NAME_MAX")
