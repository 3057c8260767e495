"""The editing calls check their arguments before they look at a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from afterimage.storage import InvalidQueryError, JSONLStorage


def test_a_wrong_argument_is_an_error_even_if_there_is_no_file(tmp_path: Path) -> None:
    store = JSONLStorage(tmp_path / "no" / "talks.jsonl", tmp_path / "no" / "documents.jsonl")
    with pytest.raises(InvalidQueryError):
        store.delete_conversations([("metadata.n", "~", 3)])
    with pytest.raises(InvalidQueryError):
        store.update_documents([], "text")  # type: ignore[arg-type]
    with pytest.raises(InvalidQueryError):
        store.deduplicate(keep="none")  # type: ignore[arg-type]
