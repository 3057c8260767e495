"""Fixtures of all tests, and how much hypothesis tries."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.storage.factories import FACTORIES, Factory

# Opening a database in an example takes longer than hypothesis expects of one, and a deadline
# would make the suite fail on a busy machine for no fault of the code.
settings.register_profile(
    "ci",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=50,
    phases=set(Phase) - {Phase.explain},  # minutes, where an example opens databases
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _default_files_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage constructed without paths must not litter the project."""
    monkeypatch.setenv("AFTERIMAGE_JSONL_DIR", str(tmp_path / "default-files"))


@pytest.fixture(params=FACTORIES, ids=lambda factory: factory.name)
def factory(request: pytest.FixtureRequest) -> Factory:
    chosen: Factory = request.param
    return chosen


@pytest.fixture
def make_storage(factory: Factory, tmp_path: Path) -> Callable[..., Any]:
    """Call it for a new, empty storage, each in a folder of its own."""
    folders = iter(range(1000))

    def make(mixin: type | None = None) -> Any:
        folder = tmp_path / f"storage {next(folders)}"
        folder.mkdir()
        return factory.open(folder, mixin)

    return make


@pytest.fixture
def storage(make_storage: Callable[..., Any]) -> Any:
    return make_storage()


@pytest.fixture(scope="session")
def published() -> str:
    """An interpreter that has the published `afterimage` package, and not this one."""
    python = os.environ.get("AFTERIMAGE_PUBLISHED_PYTHON")
    if not python:
        pytest.skip("AFTERIMAGE_PUBLISHED_PYTHON names no interpreter with the published package")
    return python


@pytest.fixture(scope="session")
def beside() -> str:
    """An interpreter that has the published `afterimage` package and, beside it, this one."""
    python = os.environ.get("AFTERIMAGE_BESIDE_PYTHON")
    if not python:
        pytest.skip("AFTERIMAGE_BESIDE_PYTHON names no interpreter with both packages")
    return python
