"""The server answers only its own page, reads only, and never fails with more than a sentence."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import InvalidQueryError, JSONLStorage, SQLStorage
from afterimage.storage.viewer.answers import Answers
from afterimage.storage.viewer.server import Viewer
from tests.support.records import conversation
from tests.viewer.conftest import COUNT, KINDS, Client

NOBODY = [
    "/",
    "/api/records",
    "/api/calls",
    "/api/count",
    "/api/facets",
    "/api/hash",
    "/favicon.ico",
    "/no",
]


class TestWhoGetsAnAnswer:
    @pytest.fixture
    def client(self, any_client: Client) -> Client:
        return any_client

    @pytest.mark.parametrize("path", NOBODY)
    def test_nothing_is_answered_without_the_token(self, client: Client, path: str) -> None:
        wrong = client.token[:-1] + ("a" if client.token[-1] != "a" else "b")
        for headers in ({}, {"Authorization": f"Bearer {wrong}"}, {"Cookie": "afterimage_1=x"}):
            answer = client.send(path, **headers)
            assert answer.status == 403
            assert "question" not in answer.text
        assert client.send(f"{path}?token={wrong}").status == 403
        assert client.send(f"{path}?token=%ff%c3%a9").status == 403

    def test_the_link_gives_a_cookie_that_scripts_and_other_sites_do_not_get(
        self, client: Client
    ) -> None:
        answer = client.send("/" + client.link.partition("/?")[2].join(["?", ""]))
        assert (answer.status, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        page = client.send("/", Cookie=cookie.partition(";")[0])
        assert page.status == 200
        assert client.token not in page.text

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "evil.example:{}", "127.0.0.1", "127.0.0.1:1", "", "a@127.0.0.1:{}"],
    )
    def test_another_name_in_host_is_refused(self, client: Client, host: str) -> None:
        token = f"Bearer {client.token}"
        answer = client.send("/api/count", Host=host.format(client.port), Authorization=token)
        assert answer.status == 403
        for name in ("localhost", "127.0.0.1", "LOCALHOST", "[::1]"):
            host = f"{name}:{client.port}"
            assert client.send("/api/count", Host=host, Authorization=token).status == 200

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://{}", ""])
    def test_another_origin_is_refused(self, client: Client, origin: str) -> None:
        token = f"Bearer {client.token}"
        origin = origin.format(client.host)
        assert client.send("/api/count", Origin=origin, Authorization=token).status == 403
        own = f"http://{client.host}"
        assert client.send("/api/count", Origin=own, Authorization=token).status == 200

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
    def test_only_reads_are_answered(self, client: Client, method: str) -> None:
        token = f"Bearer {client.token}"
        assert client.send("/api/count", method, Authorization=token).status == 405

    def test_the_page_may_load_nothing_and_run_only_its_own_script(self, client: Client) -> None:
        page = client.send("/", Authorization=f"Bearer {client.token}")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"https?://|\bsrc=|url\(", page.text)
        for path in NOBODY:
            headers = client.send(path, Authorization=f"Bearer {client.token}").headers
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "no-referrer"
            assert "access-control-allow-origin" not in headers
            assert "server" not in headers


class TestAnswers:
    def test_pages_are_disjoint_and_complete(self, client: Client) -> None:
        pages = [client.shown(offset=at, limit=20) for at in (0, 20, 40, 60)]
        assert [len(page) for page in pages] == [20, 20, 5, 0]
        assert [each["metadata"]["n"] for page in pages for each in page] == [*range(COUNT)]
        assert client.ask("count").json == {"count": COUNT}
        assert "#21 " in client.ask("records", offset=20).json["records"][0]["html"]

    def test_a_search_has_the_query_language(self, client: Client) -> None:
        search = "metadata.n >= 40 AND metadata.domain = a OR QUESTION 7"
        assert [each["metadata"]["n"] for each in client.shown(q=search)] == [7, 40, 42, 44]
        assert client.ask("count", q=search).json == {"count": 4}
        assert client.shown(q="text 1", kind="documents")[0]["id"] == "d1"

    def test_sort_and_facets(self, client: Client) -> None:
        chosen = [json.dumps(["metadata.domain", "b"]), json.dumps(['metadata."k.l"', 0])]
        found = client.shown(facet=chosen, sort="-metadata.n", limit=3)
        assert [each["metadata"]["n"] for each in found] == [39, 33, 27]
        answer = client.ask("facets", facet=chosen, q="metadata.n < 10").json
        menus = {each["field"]: each["values"] for each in answer["menus"]}
        assert menus["metadata.domain"] == [["a", 5], ["b", 5]]
        assert menus['metadata."k.l"'] == [[0, 4], [1, 3], [2, 3]]
        assert "metadata.long" not in menus
        assert {"metadata.long", "content_hash", "messages.content"} <= {*answer["fields"]}

    def test_a_hash_leads_to_its_conversation(self, client: Client) -> None:
        answer = client.ask("hash", offset=7).json
        assert json.loads(answer["json"])["metadata"]["n"] == 7
        for wanted in (answer["hash"], answer["hash"][:12]):
            assert [each["metadata"]["n"] for each in client.shown(hash=wanted)] == [7]

    def test_the_calls_give_the_same_records(self, store: Any, serve: Any) -> None:
        with serve(store) as client:
            search = "metadata.n > 3 AND metadata.n < 30 OR it's 100%"
            asked = {"q": search, "sort": "-metadata.n", "limit": 4, "offset": 2}
            answer = client.ask("calls", **asked).json
            shown = [each["metadata"]["n"] for each in client.shown(**asked)]
        assert shown == [27, 26, 25, 24]
        loaded = eval(answer["python"], {"store": store})
        assert [each.metadata["n"] for each in loaded] == shown
        sql = store if isinstance(store, SQLStorage) else SQLStorage("duckdb:///:memory:")
        if sql is not store:
            sql.import_store(store)
        with sql.engine.connect() as connection:
            rows = connection.exec_driver_sql(answer["sql"]).mappings().all()
        assert [row["metadata"]["n"] for row in rows] == shown

    def test_text_is_escaped(self, client: Client) -> None:
        [record] = client.ask("records", limit=1).json["records"]
        assert "question 0 &lt;b&gt;&amp;" in record["html"]

    def test_records_that_are_saved_later_are_shown(self, store: Any, serve: Any) -> None:
        with serve(store) as client:
            done = threading.Event()

            def write() -> None:
                for n in range(10):
                    store.save_conversations([conversation("later", {"n": COUNT + n})])
                done.set()

            writer = threading.Thread(target=write)
            writer.start()
            while not done.is_set():
                assert len(client.shown(limit=10)) == 10
            writer.join()
            assert client.ask("count").json == {"count": COUNT + 10}
            assert len(client.shown(q="later")) == 10

    def test_another_program_can_write_between_requests(self, tmp_path: Path, serve: Any) -> None:
        store = SQLStorage(tmp_path / "talks.duckdb")
        store.save_conversations([conversation("a")])
        with serve(store) as client:
            assert len(client.shown()) == 1
            program = (
                "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('CREATE TABLE t (a INT)')"
            )
            path = str(tmp_path / "talks.duckdb")
            subprocess.run([sys.executable, "-c", program, path], check=True)
            assert len(client.shown()) == 1


class TestFaults:
    @pytest.fixture
    def client(self, any_client: Client) -> Client:
        return any_client

    @pytest.mark.parametrize(
        "values",
        [
            {"q": "nowhere = 1"},
            {"q": "a AND "},
            {"q": "messages.content matches ("},
            {"sort": "nowhere"},
            {"sort": "id; DROP TABLE conversations"},
            {"offset": "-1"},
            {"offset": "9" * 30},
            {"limit": "x"},
            {"kind": "records"},
            {"kind": "../secret"},
            {"hash": "'; DROP TABLE"},
            {"facet": "x"},
            {"facet": '["a"]'},
            {"facet": '["nowhere", 1]'},
            {"facet": '["metadata.n", [1]]'},
            {"facet": "[" * 5000},
        ],
    )
    def test_wrong_parameters_are_a_sentence(self, client: Client, values: Any) -> None:
        answer = client.ask("records", **values)
        assert answer.status == 400
        assert 10 < len(answer.json["error"]) < 600
        assert "Traceback" not in answer.text
        assert client.ask("count").json == {"count": COUNT}

    def test_a_store_that_another_process_holds(self, tmp_path: Path, serve: Any) -> None:
        path = tmp_path / "talks.duckdb"
        store = SQLStorage(path, lock_timeout=0.1)
        store.save_conversations([conversation("a")])
        program = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(); input()"
        with (
            serve(store) as client,
            subprocess.Popen(
                [sys.executable, "-c", program, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as holder,
        ):
            assert holder.stdout is not None
            holder.stdout.readline()
            answer = client.ask("records")
            assert (answer.status, "Another process" in answer.text) == (503, True)
            assert str(tmp_path) not in answer.text
            holder.communicate(b"\n")
            assert len(client.shown()) == 1

    def test_a_corrupt_record_does_not_show_a_path(self, tmp_path: Path, serve: Any) -> None:
        path = tmp_path / "talks.jsonl"
        store = JSONLStorage(path)
        store.save_conversations([conversation("a")])
        with path.open("a") as file:
            file.write('{"conversations": 3, "metadata": 4}\nnonsense\n')
        with serve(store) as client:
            answer = client.ask("records")
            assert answer.status == 500
            assert str(tmp_path) not in answer.text
            assert "corrupt" in answer.text

    def test_the_store_is_gone(self, tmp_path: Path, serve: Any) -> None:
        path = tmp_path / "talks.duckdb"
        SQLStorage(path).save_conversations([conversation("a")])
        store = SQLStorage(path, create=False)
        with serve(store) as client:
            path.unlink()
            answer = client.ask("records")
            assert answer.status in (200, 500)
            assert str(tmp_path) not in answer.text

    @pytest.mark.parametrize(
        ("host", "port"), [("nowhere.invalid.", 0), ("256.1.1.1", 0), ("\udcff", 0)]
    )
    def test_an_address_that_cannot_be_used(self, host: str, port: int) -> None:
        answers = Answers(SQLStorage("duckdb:///:memory:"), KINDS, lambda text: (text, "=", 1))
        with pytest.raises(InvalidQueryError, match="Choose another"):
            Viewer.over(answers, "talks", host, 0)

    def test_a_port_that_is_used(self) -> None:
        answers = Answers(SQLStorage("duckdb:///:memory:"), KINDS, lambda text: (text, "=", 1))
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(InvalidQueryError, match=f"port {port}"):
                Viewer.over(answers, "talks", "127.0.0.1", port)


@pytest.mark.process
def test_the_command_prints_a_link_and_ends_by_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.cli.test_process import start

    monkeypatch.chdir(tmp_path)
    SQLStorage("talks.duckdb").save_conversations([conversation("a")])
    with start("view", "talks.duckdb") as process:
        assert process.stdout is not None
        link = process.stdout.readline().decode()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=[\w-]{43}\n", link)
        assert found
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=5):
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"Ctrl-C" in said
    assert b"Traceback" not in said


@pytest.mark.process
def test_the_terminal_says_which_record_is_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.cli.test_process import start

    monkeypatch.chdir(tmp_path)
    JSONLStorage("talks.jsonl", "documents.jsonl").save_conversations([conversation("a")])
    with Path("talks.jsonl").open("a") as file:
        file.write('{"conversations":[{"role":"alien","content":"a"}]}\n')
    with start("view", "talks.jsonl") as process:
        assert process.stdout is not None
        link = process.stdout.readline().decode().strip()
        port, token = re.findall(r":(\d+)/\?token=(.*)", link)[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
        connection.request("GET", "/api/records", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert (answer.status, b"The terminal says which" in answer.read()) == (500, True)
        connection.close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert b"talks.jsonl, line 2" in said
    assert b"Traceback" not in said
