"""A test that fails is named, whatever its message holds, where several processes run the tests."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_a_message_with_lone_surrogates_reaches_the_process_that_prints_it(
    request: pytest.FixtureRequest,
) -> None:
    found: Any = pytest.TestReport(
        nodeid="tests/a.py::test",
        location=("tests/a.py", 0, "test"),
        keywords={},
        outcome="failed",
        longrepr="assert 'a \ud800' == 'b'",
        when="call",
        sections=[("Captured \udfff", "é")],
    )
    config = request.config
    data = config.hook.pytest_report_to_serializable(config=config, report=found)
    text = json.dumps(data, ensure_ascii=False).encode().decode()
    assert r"assert 'a \\ud800' == 'b'" in text
    assert r"Captured \\udfff" in text
    assert "é" in text
