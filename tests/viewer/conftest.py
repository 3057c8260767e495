"""A server over a small store of each sort, and requests to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from afterimage.storage import Document, JSONLStorage, SQLStorage
from afterimage.storage.cli.look.view import _condition
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.reports.faults import OnError
from afterimage.storage.viewer.answers import Answers
from afterimage.storage.viewer.server import Viewer
from tests.support.records import conversation

COUNT = 45
KINDS = ("conversations", "documents")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """Requests to a server as its page makes them."""

    def __init__(self, viewer: Viewer) -> None:
        self.link = viewer.link
        self.token = viewer.token
        self.port = viewer.listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"

    def send(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": self.host, **headers}.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read().decode())
        finally:
            connection.close()

    def ask(self, what: str, **values: object) -> Answer:
        query = urlencode(values, doseq=True, quote_via=quote)
        return self.send(f"/api/{what}?{query}", Authorization=f"Bearer {self.token}")

    def shown(self, **values: object) -> list[Any]:
        """The records of an answer."""
        answer = self.ask("records", **values)
        assert answer.status == 200, answer.text
        return [json.loads(each["json"]) for each in answer.json["records"]]


@contextmanager
def served(
    store: RecordStorage, kinds: tuple[str, ...] = KINDS, on_error: OnError = "raise"
) -> Generator[Client, None, None]:
    viewer = Viewer.over(Answers(store, kinds, _condition, on_error), "talks", "127.0.0.1", 0)
    thread = threading.Thread(target=viewer.run)
    thread.start()
    try:
        yield Client(viewer)
    finally:
        viewer.server.should_exit = True
        thread.join(10)
        viewer.close()
    assert not thread.is_alive()


def fill(store: RecordStorage) -> None:
    store.save_conversations(
        [
            conversation(
                f"question {n} <b>&",
                {"domain": "ab"[n % 2], "n": n, "k.l": n % 3, "long": "x" * 300},
                final_score=n / COUNT,
            )
            for n in range(COUNT)
        ]
    )
    store.save_documents([Document(id=f"d{n}", text=f"text {n}") for n in range(3)])


def opened(folder: Path, sort: str) -> RecordStorage:
    if sort == "sql":
        return SQLStorage(folder / "talks.duckdb")
    return JSONLStorage(folder / "talks.jsonl", folder / "texts.jsonl")


@pytest.fixture(scope="module", params=["sql", "jsonl"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Client, None, None]:
    """Of stores that no test changes."""
    store = opened(tmp_path_factory.mktemp("talks"), request.param)
    fill(store)
    with served(store) as found:
        yield found


@pytest.fixture(scope="module")
def any_client(tmp_path_factory: pytest.TempPathFactory) -> Generator[Client, None, None]:
    """Of one store, for what does not depend on its sort."""
    store = SQLStorage("duckdb:///:memory:")
    fill(store)
    with served(store) as found:
        yield found


@pytest.fixture(params=["sql", "jsonl"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> RecordStorage:
    found = opened(tmp_path, request.param)
    fill(found)
    return found


@pytest.fixture
def serve() -> Callable[..., Any]:
    return served
