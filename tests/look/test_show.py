"""`tail` shows the last records, and `show` one of them in full."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from afterimage.storage import ChatConversation, SQLStorage
from tests.cli.conftest import attempt, objects
from tests.support.records import conversation

Run = Callable[..., str]
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}


class TestTail:
    def test_the_last_ones_are_in_order(self, run: Run, store: str) -> None:
        every = objects(run("head", store, "--json"))
        assert objects(run("tail", store, "--limit", 2, "--json")) == every[-2:]
        assert objects(run("tail", store, "--limit", 99, "--json")) == every
        assert run("tail", store, "--limit", 0, "--json") == ""

    def test_filters_and_order(self, run: Run, store: str) -> None:
        where = ("--filter", "metadata.domain=Trains", "--order-by", "final_score")
        [last] = objects(run("tail", store, *where, "--limit", 1, "--json"))
        assert last["final_score"] is None
        assert "Bicycles" in run("tail", store, *where, "--limit", 1)
        assert "night train" not in run("tail", store, *where, "--limit", 1, "--view", "full")

    def test_it_says_why_there_is_none(self, store: str) -> None:
        result = attempt("tail", store, "--filter", "metadata.domain=x")
        assert (result.exit_code, "None of the 4" in result.stderr) == (0, True)


class TestShow:
    def test_a_place_and_a_hash_give_the_same(self, run: Run, store: str) -> None:
        every = objects(run("head", store, "--json"))
        hashes = objects(run("head", store, "--json", "--columns", "content_hash"))
        for number, (record, row) in enumerate(zip(every, hashes, strict=True), 1):
            prefix = row["content_hash"][:8]
            for which in (f"#{number}", prefix, prefix.upper(), row["content_hash"]):
                assert json.loads(run("show", store, which, "--json")) == record

    def test_control_sequences_are_escaped(self, run: Run, store: str) -> None:
        shown = run("show", store, "#3")
        assert "\\x1b[31mBicycles" in shown
        assert "\x1b" not in shown

    def test_tool_calls_and_parts_are_shown(self, run: Run, folder: Path) -> None:
        parts = [{"type": "text", "text": "Look:"}, {"type": "image", "url": "a.png"}]
        chat = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": parts, "name": "Ann"},
            {"role": "assistant", "tool_calls": [CALL], "reasoning_content": "Hm."},
        ]
        SQLStorage("chats.duckdb").save_conversations([ChatConversation(conversations=chat)])
        shown = run("show", "chats.duckdb", "#1")
        for text in ("system", "user Ann", "Look:", '"url":"a.png"', "Hm.", '"name":"find"'):
            assert text in shown

    @pytest.mark.parametrize(
        ("which", "said"),
        [
            ("#99", "4 conversations"),
            ("#0", "neither"),
            ("#", "neither"),
            ("night", "neither"),
            ("\x1b[31m", "neither"),
            ("0" * 32, "no conversation"),
            ("0" * 33, "neither"),
        ],
    )
    def test_what_is_not_there(self, store: str, which: str, said: str) -> None:
        result = attempt("show", store, which)
        assert (result.exit_code, result.stdout, said in result.stderr) == (2, "", True)
        assert "\x1b" not in result.stderr

    def test_a_prefix_of_several_is_an_error_that_names_them(self, folder: Path) -> None:
        many = SQLStorage("many.duckdb")
        many.save_conversations([conversation(f"question {n}") for n in range(40)])
        rows = many.scan_conversations(["content_hash"]).read_all().to_pylist()
        hashes = sorted(row["content_hash"] for row in rows)
        first = next(a[0] for a, b in pairwise(hashes) if a[0] == b[0])
        result = attempt("show", "many.duckdb", first)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Give more digits" in result.stderr
        assert next(each for each in hashes if each[0] == first) in result.stderr

    def test_equal_conversations_are_one_content(self, run: Run, folder: Path) -> None:
        equal = SQLStorage("equal.duckdb")
        equal.save_conversations([conversation("same", {"n": n}) for n in (1, 2)])
        rows = equal.scan_conversations(["content_hash"], limit=1).read_all().to_pylist()
        shown = json.loads(run("show", "equal.duckdb", rows[0]["content_hash"][:6], "--json"))
        assert shown["metadata"] == {"n": 1}
