"""The fixtures and options of all tests, and the settings of hypothesis."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from afterimage.storage import Document
from tests.support.browser import chromium
from tests.support.factories import FACTORIES, Factory, parameters
from tests.support.records import conversations

# An example that opens a database takes longer than hypothesis expects, and a deadline would make
# the suite fail on a busy machine.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=20,
    phases=set(Phase) - {Phase.explain},  # takes minutes if an example opens databases
)
settings.register_profile("quick", settings.get_profile("default"), max_examples=5)
settings.register_profile("ci", settings.get_profile("default"), max_examples=50)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--storages",
        metavar="NAME,…",
        help="run the conformance suite over these storages only, of "
        + ", ".join(factory.name for factory in FACTORIES),
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with SIGINT ignored; many tests need Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    known = {factory.name for factory in FACTORIES}
    unknown = [name for name in _chosen_storages(config) or () if name not in known]
    if unknown:
        raise pytest.UsageError(
            f"--storages: unknown storage {unknown[0]!r}. Choose from {', '.join(sorted(known))}."
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests whose storage is not one of `--storages`."""
    chosen = _chosen_storages(config)
    if chosen is None:
        return
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        callspec = getattr(item, "callspec", None)  # only parametrized tests have one
        parameters = callspec.params.values() if callspec else ()
        factories = {each.name for each in parameters if isinstance(each, Factory)}
        (kept if factories <= chosen else deselected).append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable(report: Any) -> Generator[None, Any, Any]:
    """Escape lone surrogates: a worker cannot send them, and the run ends with no failure named."""
    data = yield
    return _encodable(data) if getattr(report, "failed", False) else data


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    return value


def _chosen_storages(config: pytest.Config) -> set[str] | None:
    """The names given by `--storages`; None stands for all storages."""
    given = config.getoption("--storages")
    return None if given is None else {name.strip() for name in given.split(",")}


@pytest.fixture(scope="module")
def browser() -> Generator[Any, None, None]:
    with chromium() as found:
        yield found


@pytest.fixture(autouse=True)
def _default_files_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a storage without paths must not be created in the project."""
    monkeypatch.setenv("AFTERIMAGE_JSONL_DIR", str(tmp_path / "default-files"))


@pytest.fixture(params=parameters(FACTORIES))
def factory(request: pytest.FixtureRequest) -> Factory:
    chosen: Factory = request.param
    if (missing := chosen.missing()) is not None:
        pytest.skip(missing)
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
