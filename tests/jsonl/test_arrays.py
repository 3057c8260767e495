"""The elements of a JSON array are read as JSON lines, in pieces of any size."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from afterimage.storage.jsonl.containers import ArrayError, is_array, lines_of_array
from tests.support.strategies import json_values


def lines(blocks: list[bytes]) -> list[Any]:
    return [*map(json.loads, b"".join(lines_of_array(iter(blocks))).split(b"\n")[:-1])]


@given(
    values=st.lists(json_values, max_size=4),
    indent=st.none() | st.integers(0, 2),
    is_ascii=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
@example(values=[3.0], indent=None, is_ascii=False, cuts=[3])
def test_any_array_cut_anywhere(
    values: list[Any], indent: int | None, is_ascii: bool, cuts: list[int]
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=is_ascii).encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    blocks = [data[low:high] for low, high in pairwise(bounds)]
    assert str(lines(blocks)) == str(values)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'[{"a":1}', "after 1 elements: it does not end"),
        (b'[{"a":1},]', "after 1 elements: ']' in place of element"),
        (b"[,]", "after 0 elements"),
        (b'[{"a":1} {"b":2}]', "after 1 elements: '{' in place of , or ]"),
        (b'[{"a":1}] x', "after 1 elements: there is more text after it"),
        (b'[{"a":1},{"a":', "after 1 elements: Expecting value"),
        (b'[{"a":"\xff"}]', "not UTF-8 after 0 elements"),
    ],
)
def test_a_damaged_array_gives_the_elements_before_the_damage(data: bytes, fault: str) -> None:
    found: list[bytes] = []
    with pytest.raises(ArrayError) as raised:
        found += [*lines_of_array(iter([data]))]
    assert fault in str(raised.value)


def test_a_number_of_any_size_keeps_its_digits() -> None:
    digits = b"[" + b"9" * 10_000 + b"]"
    assert b"".join(lines_of_array(iter([digits]))) == b"9" * 10_000 + b"\n"


def test_a_long_element_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        data = json.dumps([{"a": "x" * size}]).encode()
        blocks = [data[at : at + 2**16] for at in range(0, len(data), 2**16)]
        started = time.process_time()
        assert len(lines(blocks)) == 1
        return time.process_time() - started

    assert seconds(32_000_000) < 40 * seconds(2_000_000) + 0.5


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b'[{"a": 1}]', True),
        (b' [\n {"a": 1},\n {"a": 2}]', True),
        (b'{"a": [{"b": 1}]}', False),
        (b"[1]\n", False),
    ],
)
def test_an_array_of_objects_is_known_by_its_beginning(data: bytes, wanted: bool) -> None:
    assert is_array(data) is wanted
