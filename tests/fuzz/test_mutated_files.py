"""The guarantees about damaged files hold for random damage.

This is a short run of `mutated_files.py`, which says how to test more files or repeat one.
"""

from __future__ import annotations

import pytest

from tests.fuzz.mutated_files import SHARES, tried

pytestmark = pytest.mark.slow

FILES = {"jsonl": 50, "jsonl.gz": 15, "jsonl.zst": 15, "duckdb": 10, "duckdb.wal": 10}


@pytest.mark.parametrize("kind", SHARES)
def test_damaged_files_give_what_is_left_or_say_what_is_wrong(kind: str) -> None:
    found = list(tried(kind, 0, range(FILES[kind])))
    assert [f"{each.kind} {each.number}: {each.failure}" for each in found if each.failure] == []
    assert len(found) == FILES[kind]
    # With only one kind of result, the damage would test too little.
    assert len({each.what for each in found}) > 1
