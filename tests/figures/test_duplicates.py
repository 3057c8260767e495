"""Ids that several lines have are found, with the place of the first line of each."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage.query.figures.duplicates import repeated_ids

PATH = Path("documents.jsonl")


@given(ids=st.lists(st.sampled_from(["a", "b", "", "é", "c"]), max_size=12), size=st.integers(1, 5))
def test_each_repeated_id_is_found_once(ids: list[str], size: int) -> None:
    lines = [(id_, PATH, number, 10 * number) for number, id_ in enumerate(ids, 1)]
    chunks = [lines[start : start + size] for start in range(0, len(lines), size)]
    found = repeated_ids(chunks)
    repeated = [id_ for id_ in dict.fromkeys(ids) if ids.count(id_) > 1]
    assert found.count == len(repeated)
    firsts = [ids.index(id_) + 1 for id_ in repeated]
    assert sorted(place.line or 0 for place in found.first) == sorted(firsts)
    assert all(place.offset == 10 * (place.line or 0) for place in found.first)
