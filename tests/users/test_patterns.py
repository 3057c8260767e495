"""Regular expressions of users are checked before any data is read."""

from __future__ import annotations

import pytest

from afterimage.storage.engine.users.patterns import pattern_fault


@pytest.mark.parametrize(
    "pattern", ["", "a|b", "^.*$", r"\d+", "(?i)ß", "[日本]", "a{1,1000}", "(a*)*b"]
)
def test_valid_patterns(pattern: str) -> None:
    assert pattern_fault(pattern) is None


@pytest.mark.parametrize("pattern", ["(", "[a", "a**", r"\1", "(?=a)", "a{2,1}", "(?P<n", "\\"])
def test_what_re2_does_not_have_is_a_short_fault(pattern: str) -> None:
    fault = pattern_fault(pattern)
    assert fault
    assert len(fault) <= 120
    assert "\n" not in fault
