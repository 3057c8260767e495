"""A real browser, where one is installed."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from typing import Any

import pytest

__all__ = ["browser"]

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def browser() -> Generator[Any, None, None]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_api.sync_playwright() as running:
        found = running.chromium.launch(
            executable_path=CHROMIUM, args=[*quiet, "--disable-component-update", "--disable-sync"]
        )
        yield found
        found.close()
