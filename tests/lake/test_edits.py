"""Records of a lake are not edited in place, and nothing is left half-edited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from afterimage.storage import DatabaseError, SQLStorage
from tests.lake.test_lost_connections import batch


@pytest.mark.parametrize(
    "edit",
    [
        lambda storage: storage.delete_conversations([]),
        lambda storage: storage.delete_documents([]),
        lambda storage: storage.update_conversations([], metadata={"n": 1}),
        lambda storage: storage.deduplicate(),
    ],
)
def test_edits_are_refused_before_anything_changes(
    file_url: str, edit: Callable[[Any], object]
) -> None:
    storage = SQLStorage(file_url)
    storage.save_conversations(batch("a"))
    before = storage.load_conversations()
    with pytest.raises(DatabaseError, match="is a lake, whose records cannot be edited"):
        edit(storage)
    assert storage.load_conversations() == before
