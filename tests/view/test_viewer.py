"""The viewer answers its own page only, from the whole store, and never writes."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from click.testing import CliRunner

from afterimage.storage import JSONLStorage, SQLStorage, open_storage
from afterimage.storage.cli.app import app
from tests.support.records import conversation

pytestmark = pytest.mark.process


class Client:
    """What a browser sends, with changes."""

    def __init__(self, link: str) -> None:
        parts = urlsplit(link)
        assert parts.hostname is not None
        self.host, self.port = parts.hostname, parts.port
        self.token = parts.query.partition("=")[2]
        status, headers, _ = self.request(f"/?{parts.query}")
        assert (status, headers["location"]) == (303, "/")
        self.set_cookie = headers["set-cookie"]
        self.cookie = self.set_cookie.partition(";")[0]

    def request(
        self, target: str, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, headers=names)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body

    def get(self, name: str, **parameters: Any) -> tuple[int, Any]:
        target = f"/{name}?{urlencode(parameters, doseq=True)}"
        status, _, body = self.request(target, cookie=self.cookie)
        return status, json.loads(body)

    def answer(self, name: str, **parameters: Any) -> Any:
        status, found = self.get(name, **parameters)
        assert status == 200, found
        return found


def numbers(found: Any) -> list[int]:
    return [int(each.partition("question ")[2].split()[0]) for each in found["articles"]]


class TestAnswers:
    def test_pages_counts_and_menus(self, link: str, kept: Path) -> None:
        client = Client(link)
        assert numbers(client.answer("records")) == [*range(20)]
        assert numbers(client.answer("records", offset=40)) == [*range(40, 50)]
        assert numbers(client.answer("records", order="metadata.n:desc", limit=2)) == [49, 48]
        assert client.answer("count") == {"count": 50}
        domains = [["a", 25], ["b", 25]]
        facets = client.answer("facets")["facets"]
        assert facets["metadata.domain"] == domains
        assert facets["metadata.long"] == [[False, 33], [True, 17]]
        asked = {"q": "metadata.n < 10", "value": [json.dumps(["metadata.long", True])]}
        assert numbers(client.answer("records", **asked)) == [0, 3, 6, 9]
        assert client.answer("count", **asked) == {"count": 4}
        assert client.answer("facets", **asked)["facets"]["metadata.domain"] == [["a", 2], ["b", 2]]
        assert client.answer("count", q="QUESTION 7 ") == {"count": 1}

    def test_a_record_its_hash_and_the_code(self, link: str, kept: Path) -> None:
        client = Client(link)
        asked = {"q": "metadata.n >= 40", "order": "metadata.n:desc", "offset": 3}
        record = client.answer("json", **asked)["record"]
        assert record["metadata"]["n"] == 46
        found = client.answer("hash", **asked)["hash"]
        assert client.answer("count", q=f'content_hash = "{found}"') == {"count": 1}
        code = client.answer("code", limit=4, **asked)
        store = open_storage(kept)
        called = eval(code["python"], {"store": store})
        assert [each.metadata["n"] for each in called] == [46, 45, 44, 43]
        assert (code["sql"] is None) == isinstance(store, JSONLStorage)
        if isinstance(store, SQLStorage):
            with store.connect() as connection:
                rows = connection.execute(code["sql"]).fetchall()
            assert [json.loads(row[3])["n"] for row in rows] == [46, 45, 44, 43]

    def test_documents(self, documents_link: str) -> None:
        client = Client(documents_link)
        assert client.answer("count", kind="documents", q="NIGHT") == {"count": 1}
        assert "Night trains" in client.answer("records", kind="documents")["articles"][0]

    def test_fields_are_completed(self, link: str, kept: Path) -> None:
        fields = Client(link).answer("fields")["fields"]
        assert {"messages.content", "final_score", "metadata.domain", "metadata.n"} <= {*fields}

    def test_new_records_are_there_on_reload(self, own_link: str, path: Path) -> None:
        client = Client(own_link)
        assert client.answer("count") == {"count": 50}
        writer = open_storage(path)
        for n in range(3):
            writer.save_conversations([conversation(f"question {50 + n} ", {"n": 50 + n})])
            assert client.answer("count") == {"count": 51 + n}
        assert numbers(client.answer("records", offset=50)) == [50, 51, 52]


class TestSafety:
    @pytest.fixture
    def client(self, link: str) -> Client:
        return Client(link)

    def test_nobody_is_answered_without_the_token(self, client: Client) -> None:
        for target in ("/", "/records", "/count", "/none", "/?token=wrong", "/records?token=x"):
            assert client.request(target)[0] == 401
        assert client.request("/records", cookie=client.cookie[:-1] + "_")[0] == 401
        assert client.request(f"/records?token={client.token}")[0] == 401
        assert client.request("/", cookie=client.cookie)[0] == 200
        assert "httponly" in client.set_cookie.lower()
        assert "samesite=strict" in client.set_cookie.lower()
        assert len(client.token) >= 32

    def test_other_hosts_and_origins_are_refused(self, client: Client) -> None:
        for host in ("evil.example", f"evil.example:{client.port}", "127.0.0.1", ""):
            assert client.request("/", host=host, cookie=client.cookie)[0] in (400, 421)
        own = f"http://{client.host}:{client.port}"
        for origin, status in ((own, 200), ("http://evil.example", 403), ("null", 403)):
            assert client.request("/count", origin=origin, cookie=client.cookie)[0] == status
        cross = client.request("/count", sec_fetch_site="cross-site", cookie=client.cookie)
        assert cross[0] == 403

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
    def test_it_only_reads(self, client: Client, method: str) -> None:
        assert client.request("/count", method, cookie=client.cookie)[0] == 405

    def test_headers(self, client: Client) -> None:
        for target in ("/", "/records", "/none"):
            _, headers, _ = client.request(target, cookie=client.cookie)
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "no-referrer"
            assert "server" not in headers

    def test_content_is_escaped(self, client: Client) -> None:
        for article in client.answer("records")["articles"]:
            assert "<img" not in article
            assert "<script" not in article

    @pytest.mark.parametrize(
        ("name", "parameters", "said"),
        [
            ("records", {"q": "metadata.n in 3"}, "JSON list"),
            ("records", {"order": "nothing"}, "unknown field"),
            ("records", {"offset": "-1"}, "a number from 0"),
            ("records", {"offset": "9" * 5000}, "a number from 0"),
            ("records", {"limit": "1000000"}, "a number from 0"),
            ("records", {"kind": "tables"}, "kind is"),
            ("records", {"value": "{"}, "JSON list"),
            ("count", {"q": "messages.content matches ("}, "pattern"),
            ("json", {"offset": "5000"}, "not there any more"),
            ("hash", {"offset": "5000"}, "not there any more"),
        ],
    )
    def test_a_wrong_request_is_a_short_error(
        self, client: Client, name: str, parameters: dict[str, str], said: str
    ) -> None:
        status, found = client.get(name, **parameters)
        assert status == 400
        assert said in found["error"]
        assert len(found["error"]) < 400

    def test_errors_show_no_paths(self, own_link: str, path: Path) -> None:
        client = Client(own_link)
        path.write_bytes(b"{\n" * 100)
        status, found = client.get("count", q="metadata.n = 1")
        assert status == 500
        assert "a folder" not in found["error"]
        assert "Traceback" not in found["error"]


def test_a_port_that_is_taken_is_an_error(link: str, kept: Path) -> None:
    port = urlsplit(link).port
    found = CliRunner().invoke(app, ["view", str(kept), "--port", str(port)])
    assert found.exit_code == 2
    assert "cannot listen" in found.stderr
    missing = CliRunner().invoke(app, ["view", str(kept.with_name("missing.jsonl"))])
    assert missing.exit_code == 2
