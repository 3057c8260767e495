"""Both storages: whatever a key or value is called, it is found or refused and never executed."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest

from tests.support.factories import EVALUATORS
from tests.support.plain_python import path_of
from tests.support.records import conversations, firsts


def matching(storage: Any, filters: Any) -> list[str]:
    return firsts(storage.load_conversations(filters=filters))


HOSTILE = [
    "k.l", "", "*", "$", "$.n", "/", "/n", "~", "~0", "a/b", "\\", '"', '""', 'q"x', "'", "''",
    "a b", "0", "[0]", "-", "n;", "'; DROP TABLE conversations; --", '"; DROP TABLE x; --', "é",
    "😀", "\u2028", "x\x00y", "\n", "select", "metadata", "%", "?", ":n", "{n}", "%(n)s", "N", "n",
]  # fmt: skip


class TestHostileNames:
    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_each_key_is_found_and_no_other(self, storage: Any) -> None:
        # Every record has every key but one with another value, so a slip shows both ways.
        records = conversations(*({key: key == own for key in HOSTILE} for own in HOSTILE))
        storage.save_conversations(records)
        wrong = []
        for number, key in enumerate(HOSTILE):
            if matching(storage, {path_of("metadata", key): True}) != [str(number)]:
                wrong.append(key)
        assert wrong == []

    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_keys_below_keys(self, storage: Any) -> None:
        storage.save_conversations(conversations(*({key: {key: 1}} for key in HOSTILE)))
        wrong = []
        for number, key in enumerate(HOSTILE):
            if matching(storage, {path_of("metadata", key, key): 1}) != [str(number)]:
                wrong.append(key)
        assert wrong == []

    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_values_are_never_executed(self, storage: Any) -> None:
        storage.save_conversations(conversations(*({"n": text} for text in HOSTILE)))
        wrong = []
        for number, text in enumerate(HOSTILE):
            if matching(storage, {"metadata.n": text}) != [str(number)]:
                wrong.append(text)
        assert wrong == []

    def test_only_a_dot_or_a_quote_needs_quoting(self, storage: Any) -> None:
        keys = ["a b", "it's; --", "k-l", "$", "*", "é", "a/b", "n:m"]
        storage.save_conversations(conversations(*({key: 1} for key in keys)))
        for number, key in enumerate(keys):
            assert matching(storage, {f"metadata.{key}": 1}) == [str(number)]
            assert matching(storage, {f'metadata."{key}"': 1}) == [str(number)]

    def test_a_quoted_key_with_a_dot_is_one_key(self, storage: Any) -> None:
        storage.save_conversations(conversations({"k.l": 1}, {"k": {"l": 1}}))
        assert matching(storage, {'metadata."k.l"': 1}) == ["0"]
        assert matching(storage, {"metadata.k.l": 1}) == ["1"]
        assert matching(storage, {'"metadata"."k"."l"': 1}) == ["1"]
