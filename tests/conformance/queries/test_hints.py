"""Errors about unknown fields suggest the field that was meant, in both storages."""

from __future__ import annotations

from typing import Any

import pytest

from afterimage.storage import UnknownFieldError


@pytest.mark.parametrize(
    ("field", "suggested"),
    [
        ("domain", "metadata.domain"),
        ("final_scor", "final_score"),
        ("score", "final_score or metadata.score"),
        ("metdata.domain", "metadata.domain"),
        ("context_id", "metadata.context_id"),
        ("evaluation.coherenc.score", "evaluation.coherence.score"),
    ],
)
def test_an_unknown_field_suggests_what_was_meant(storage: Any, field: str, suggested: str) -> None:
    for arguments in ({"filters": {field: 1}}, {"order_by": field}):
        with pytest.raises(UnknownFieldError) as caught:
            storage.load_conversations(**arguments)
        message = str(caught.value)
        assert message.startswith(f"unknown field '{field}'. Did you mean ")
        assert suggested in message
    with pytest.raises(UnknownFieldError, match=r"Did you mean metadata\.topic\?"):
        storage.load_documents(filters={"topic": 1})
