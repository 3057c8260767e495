"""The lakes of these tests: each in a schema of its own on a server of the tests' own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.postgres import Server, missing_for_lakes, shared_server


@pytest.fixture
def server() -> Server:
    if (missing := missing_for_lakes(server=True)) is not None:
        pytest.skip(missing)
    return shared_server()


@pytest.fixture
def own_server() -> Generator[Server, None, None]:
    """A server that a test may stop."""
    if (missing := missing_for_lakes(server=True)) is not None:
        pytest.skip(missing)
    server = Server()
    yield server
    server.remove()


@pytest.fixture
def url(server: Server, tmp_path: Path) -> str:
    """The URL of a lake that does not exist yet."""
    return server.url(tmp_path / "data")


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """The URL of a lake with its catalog in a file, which does not exist yet."""
    if (missing := missing_for_lakes(server=False)) is not None:
        pytest.skip(missing)
    return f"ducklake:///{tmp_path / 'talks.ducklake'}?data_path={tmp_path / 'data'}"
