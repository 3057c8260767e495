"""What every message of an error has to be."""

from __future__ import annotations


def assert_short(error: BaseException, *names: str) -> None:
    """It fits on a screen, and tells these."""
    text = str(error)
    assert len(text.splitlines()) < 10
    assert len(text) < 2000
    for name in names:
        assert name in text
