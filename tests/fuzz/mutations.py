"""Damages bytes with a seeded generator, as disks, editors, copies and people do.

The invariant: the same generator gives the same damage, so seed and number identify a file.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

__all__ = ["BINARY", "LINES", "damaged"]

Mutation = Callable[[bytes, random.Random], bytes]

_NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_HUGE = [
    b"1e309", b"-1e309", b"1e-400", b"9" * 25, b"-" + b"7" * 400, b"1" * 5000, b"0." + b"3" * 3000,
    b"1e99999999999999999999", b"00", b"-", b"1.", b".5", b"0x1f", b"NaN", b"-Infinity", b"-0",
    str(2**63).encode(), str(-(2**63) - 1).encode(), b"1E400", b"1_000",
]  # fmt: skip
_NO_UTF8 = [
    b"\xff", b"\xfe\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80",
    b"\xf8\x88\x80\x80\x80",
]  # fmt: skip
_PIECES = [
    b"\\ud800", b"\\udc00\\ud83d", b"\\u0000", b"\\u", b"\\x41", b"\\", b'"', b"{", b"}", b"[",
    b"]", b",", b":", b"null", b"true", b"{}", b"[]", b"\r", b"\r\n", b"\n", b"\n\n", b" ", b"\t",
    b"\x0b", b"\x1c", b"\xc2\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\x1a", b'"id":null,',
    b'"role":"user"',
    b'"conversations":', b'"metadata":null,', b'"final_score":"1",', b"\xf0\x9f\x98\x80",
]  # fmt: skip
_ODD_LINES = [
    b"[]", b"3", b"null", b"true", b'"text"', b"{}", b"[{}]", b"NaN", b'{"conversations":[]}',
    b'{"conversations":[{}]}', b'{"conversations":[[]]}', b'{"conversations":{}}', b'{"id":null}',
    b'{"id":"x","metadata":[]}', b'{"conversations":[],"metadata":3}', b'{"conversations":null}',
    b'{"conversations":[{"role":"user","content":"a"},3]}', b'{"id":"x","personas":[{}]}',
    b'{"conversations":[],"final_score":"0.5"}', b'{"conversations":[],"evaluation":{}}',
    b'{"conversations":[],"metadata":{"n":' + b"8" * 5000 + b"}}", b'{"id":"x","text":3}',
    b'{"conversations":[],"x":1e99999999999999999999}', b'{"conversations":[],"n":"\\ud800"}',
    b'{"id":"x","y":' + b"1" * 5000 + b"}", b'{"id":"\\udc00"}', b'{"a":1}' + b" " * 70_000,
    b'{"conversations":[],"final_score":1e999}', b'{"conversations":[],"final_score":NaN}',
    b'{"conversations":[],"final_score":' + b"9" * 400 + b"}", b'{"conversations":[],"a":1,"a":2}',
    b'{"conversations":[],"final_score":true}', b'{"conversations":[],"persona":"\\u0000"}',
]  # fmt: skip


def damaged(
    data: bytes, rng: random.Random, mutations: Mapping[str, Mutation]
) -> tuple[bytes, list[str]]:
    """`data` after one to four of `mutations`, and the names of these."""
    names = rng.choices(list(mutations), k=rng.choice([1, 1, 1, 2, 2, 3, 4]))
    for name in names:
        data = mutations[name](data, rng)
    return data, names


def _span(data: bytes, rng: random.Random, most: int = 200) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.randint(1, rng.choice([2, 16, most])))


def _put(data: bytes, rng: random.Random, piece: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + piece + data[at:]


def _flip(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        if found:
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _replace(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng, 20)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    return _put(data, rng, rng.randbytes(rng.randint(1, 12)))


def _remove(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _behead(data: bytes, rng: random.Random) -> bytes:
    return data[rng.randint(0, len(data)) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:]


def _splice(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return _put(data, rng, data[start:end])


def _zeros(data: bytes, rng: random.Random) -> bytes:
    """Zeros in place of a page, as if the file system never wrote it."""
    start, end = _span(data, rng, rng.choice([40, 4096]))
    return data[:start] + bytes(end - start) + data[end:]


def _zeros_behind(data: bytes, rng: random.Random) -> bytes:
    return data + bytes(rng.choice([1, 100, 4096]))


def _swap_pages(data: bytes, rng: random.Random) -> bytes:
    """Swap two ranges of equal length; in a large file, whole blocks."""
    size = rng.choice([4096, 65536]) if len(data) > 2**18 else rng.randint(1, 64)
    first, second = (rng.randrange(len(data) // size + 1) * size for _ in "ab")
    pages = [data[at : at + size] for at in range(0, len(data), size)]
    one, two = first // size, second // size
    if max(one, two) < len(pages):
        pages[one], pages[two] = pages[two], pages[one]
    return b"".join(pages)


def _swap_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    return b"\n".join(lines)


def _repeat_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    return b"\n".join([*lines[:at], *lines[at : at + 1] * rng.choice([2, 3, 30]), *lines[at + 1 :]])


def _odd_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    lines[rng.randrange(len(lines))] = rng.choice(_ODD_LINES)
    return b"\n".join(lines)


def _join_lines(data: bytes, rng: random.Random) -> bytes:
    feeds = [at for at, byte in enumerate(data) if byte == 10]
    at = rng.choice(feeds or [0])
    return data[:at] + data[at + 1 :]


def _split_line(data: bytes, rng: random.Random) -> bytes:
    return _put(data, rng, b"\n")


def _other_line_ends(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b" \n\t"]))


def _numbers(data: bytes, rng: random.Random) -> bytes:
    found = list(_NUMBER.finditer(data))
    if not found:
        return data
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(_HUGE) + data[match.end() :]


def _brackets(data: bytes, rng: random.Random) -> bytes:
    """Replace a number by, or insert, nested brackets, closed or not."""
    depth = rng.choice([3, 99, 190, 198, 199, 200, 201, 254, 255, 256, 1000, 100_000])
    opened, closed = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    deep = opened * depth + b"1" + closed * rng.choice([depth, depth, depth, depth - 1, 0])
    found = list(_NUMBER.finditer(data))
    if not found or rng.random() < 0.2:
        return _put(data, rng, deep)
    match = rng.choice(found)
    return data[: match.start()] + deep + data[match.end() :]


def _no_utf8(data: bytes, rng: random.Random) -> bytes:
    return _put(data, rng, rng.choice(_NO_UTF8))


def _pieces(data: bytes, rng: random.Random) -> bytes:
    return _put(data, rng, rng.choice(_PIECES))


def _long_string(data: bytes, rng: random.Random) -> bytes:
    return _put(data, rng, rng.choice([b"x", b"\\", b'"', b" ", b"\xc3\xa9"]) * 20_000)


BINARY: Mapping[str, Mutation] = {
    "flip": _flip,
    "replace": _replace,
    "insert": _insert,
    "remove": _remove,
    "cut": _cut,
    "behead": _behead,
    "repeat": _repeat,
    "splice": _splice,
    "zeros": _zeros,
    "zeros behind": _zeros_behind,
    "swap pages": _swap_pages,
}
"""Mutations for any file."""

LINES: Mapping[str, Mutation] = {
    **BINARY,
    "swap lines": _swap_lines,
    "repeat lines": _repeat_lines,
    "odd line": _odd_line,
    "join lines": _join_lines,
    "split line": _split_line,
    "other line ends": _other_line_ends,
    "numbers": _numbers,
    "brackets": _brackets,
    "no UTF-8": _no_utf8,
    "pieces": _pieces,
    "long string": _long_string,
}
"""Mutations for JSON lines."""
