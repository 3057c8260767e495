"""The fixtures of all tests, and the settings of hypothesis."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from afterimage.storage import Document
from tests.storage.factories import FACTORIES, Factory
from tests.storage.records import conversations

# An example that opens a database takes longer than hypothesis expects, and a deadline would make
# the suite fail on a busy machine.
settings.register_profile(
    "ci",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=50,
    phases=set(Phase) - {Phase.explain},  # takes minutes if an example opens databases
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _default_files_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a storage without paths must not be created in the project."""
    monkeypatch.setenv("AFTERIMAGE_JSONL_DIR", str(tmp_path / "default-files"))


@pytest.fixture(params=FACTORIES, ids=lambda factory: factory.name)
def factory(request: pytest.FixtureRequest) -> Factory:
    chosen: Factory = request.param
    return chosen


@pytest.fixture
def make_storage(factory: Factory, tmp_path: Path) -> Callable[..., Any]:
    """A function that makes a new, empty storage in its own folder."""
    folders = iter(range(1000))

    def make(mixin: type | None = None) -> Any:
        folder = tmp_path / f"storage {next(folders)}"
        folder.mkdir()
        return factory.open(folder, mixin)

    return make


@pytest.fixture
def storage(make_storage: Callable[..., Any]) -> Any:
    return make_storage()


@pytest.fixture
def filled(storage: Any) -> Any:
    """A storage with 30 conversations and 10 documents."""
    storage.save_conversations(
        conversations(*({"n": n, "domain": "ABC"[n % 3]} for n in range(30)))
    )
    storage.save_documents([Document(id=str(n), metadata={"n": n}) for n in range(10)])
    return storage


@pytest.fixture(scope="session")
def published() -> str:
    """An interpreter with the published `afterimage` package and without this one."""
    return _interpreter("AFTERIMAGE_PUBLISHED_PYTHON", "the published package")


@pytest.fixture(scope="session")
def beside() -> str:
    """An interpreter with the published `afterimage` package and this one."""
    return _interpreter("AFTERIMAGE_BESIDE_PYTHON", "both packages")


def _interpreter(variable: str, packages: str) -> str:
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no interpreter with {packages}")
    return python
