"""The small stores of the tests of the command line."""

from __future__ import annotations

from tests.cli.conftest import folder, run, store

__all__ = ["folder", "run", "store"]
