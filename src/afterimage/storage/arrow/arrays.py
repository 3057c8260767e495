"""Arrow arrays of Python values, for reads.

`pa.array` imports pandas where it is installed, to recognise its types. That takes longer than most
reads, so reads use these functions.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate

import pyarrow as pa

__all__ = ["binaries", "booleans", "integers"]


def integers(values: Iterable[int]) -> pa.Array:
    """Return 64-bit integers as an array.

    >>> integers(range(2)).to_pylist()
    [0, 1]
    """
    numbers = array("q", values)
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def booleans(values: Sequence[bool]) -> pa.Array:
    """Return truth values as an array.

    >>> booleans([True, False]).to_pylist()
    [True, False]
    """
    return pa.Array.from_buffers(pa.uint8(), len(values), [None, pa.py_buffer(bytes(values))]).cast(
        pa.bool_()
    )


def binaries(values: Sequence[bytes]) -> pa.Array:
    """Return byte strings as an array. A single one is not copied.

    >>> binaries([b"a", b"bc"]).to_pylist()
    [b'a', b'bc']
    """
    offsets = array("q", accumulate(map(len, values), initial=0))
    data = values[0] if len(values) == 1 else b"".join(values)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)
