"""Checks that every error message must pass."""

from __future__ import annotations


def assert_short(error: BaseException, *names: str) -> None:
    """Check that the message of an error is short and contains the given words."""
    text = str(error)
    assert len(text.splitlines()) < 10
    assert len(text) < 2000
    for name in names:
        assert name in text
