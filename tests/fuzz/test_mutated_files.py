"""Whatever is done to the bytes of a file, what is promised of damaged files holds.

The short run of `mutated_files.py`, which says how to try more files, and one again.
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
    # Else all were refused for one reason, and little was tried.
    assert len({each.what for each in found}) > 1
