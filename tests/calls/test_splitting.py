"""The intervals of a split cover all keys, without a gap and without an overlap."""

from __future__ import annotations

import itertools

import pytest

from afterimage.storage.calls.splitting import parts_of


@pytest.mark.parametrize(
    "split", [{"a": 1}, {"a": 0.9, "b": 0.1}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}], ids=str
)
def test_each_part_begins_after_the_end_of_the_one_before(split: dict[str, float]) -> None:
    parts = list(parts_of(split, None, 42, {}).values())
    assert parts[0].low == "0" * 32
    assert parts[-1].high is None
    for before, after in itertools.pairwise(parts):
        assert before.high is not None
        assert int(after.low, 16) == int(before.high, 16) + 1
