"""Conversations go out in each format and come in again, as JSON lines and as Parquet.

A record is compared with what it becomes: equal where the format can hold all of it. Where the
format has one way to say what records say in several (ids of calls, turns of one role that follow
each other, text parts), the record changes once and never again.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterimage.storage import ChatConversation, PreferencePair, SQLStorage, StorageError
from afterimage.storage.formats.registry import PAIRS, WRITABLE, shape_named
from afterimage.storage.formats.shape import WriteOptions
from tests.conformance.records.test_round_trips import fresh_storage
from tests.formats.examples import full_texts, messages, others, records, same, texts, tools

FORMATS = sorted({*WRITABLE} - {"native", "raw"})
EXACT = ("messages", "oumi", "prompt-completion", "preference")
"""Formats that hold every message as it is."""
NARROW = ("alpaca", "llama_factory", "dpo")
"""Formats that hold few other records than plain ones."""
STORAGES = ["jsonl", "sql-memory"]


@st.composite
def plain_records(draw: st.DrawFn) -> dict[str, Any]:
    """A conversation that every format holds: questions and answers, perhaps after a system."""
    pair = st.tuples(full_texts, full_texts)
    said = [("system", draw(full_texts))] if draw(st.booleans()) else []
    for user, assistant in draw(st.lists(pair, min_size=1, max_size=3)):
        said += [("user", user), ("assistant", assistant)]
    return {
        "conversations": [{"role": role, "content": content} for role, content in said],
        "metadata": draw(others),
    }


@st.composite
def pairs(draw: st.DrawFn) -> dict[str, Any]:
    asked = draw(st.lists(messages(["system", "user"]), max_size=2))
    sides = st.lists(messages(["assistant"]), min_size=1, max_size=2)
    pair = {"prompt": asked, "chosen": draw(sides), "rejected": draw(sides)}
    if draw(st.booleans()):
        pair["tools"] = draw(st.lists(tools, min_size=1, max_size=2))
    return {**pair, "metadata": draw(others)}


@st.composite
def plain_pairs(draw: st.DrawFn) -> dict[str, Any]:
    sides = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    said = {side: [{"role": role, "content": draw(texts)}] for side, role in sides.items()}
    return {**said, "metadata": draw(others)}


def options_of(name: str) -> dict[str, Any]:
    """The options with which an export has everything that the format can hold."""
    conversion: Any = shape_named(name)
    thinks = conversion.conversion.has_reasoning
    return {"columns": ["metadata.*"], "reasoning": "field" if thinks else "think"}


def held(name: str, record: dict[str, Any]) -> bool:
    """Tell whether the format has a row for a record, and a place for all that it says."""
    try:
        given = options_of(name)
        shape_named(name).write(record, WriteOptions(None, given["reasoning"]))
    except StorageError:
        return False
    return True


def model_of(name: str) -> Any:
    return PreferencePair if name in PAIRS else ChatConversation


def exported(storage: Any, name: str) -> bytes:
    file = io.BytesIO()
    count = storage.export_jsonl(file, format=name, **options_of(name))
    assert not count.omitted
    return file.getvalue()


def imported(storage: Any, name: str, lines: bytes) -> None:
    count = storage.import_jsonl(io.BytesIO(lines), format=name)
    assert count == lines.count(b"\n")


def loaded(storage: Any, name: str) -> list[Any]:
    """The records, without nulls and what is needed to write them as they were read."""
    found = []
    for record in storage.load_records(model_of(name)):
        data = record.model_dump(mode="json")
        data["metadata"].pop("source_format", None)
        found.append(same(data))
    return found


def check_lines(
    name: str, records: list[dict[str, Any]], storage_name: str, *, exact: bool
) -> None:
    with fresh_storage(storage_name) as first, fresh_storage(storage_name) as second:
        first.save_conversations([model_of(name).model_validate(each) for each in records])
        lines = exported(first, name)
        imported(second, name, lines)
        before, after = loaded(first, name), loaded(second, name)
        if exact:
            assert after == before
        assert exported(second, name) == lines
        with fresh_storage(storage_name) as third:
            imported(third, name, exported(second, name))
            assert loaded(third, name) == after


def check_parquet(name: str, records: list[dict[str, Any]]) -> None:
    first, second = SQLStorage("duckdb:///:memory:"), SQLStorage("duckdb:///:memory:")
    first.save_conversations([model_of(name).model_validate(each) for each in records])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.parquet")
        first.export_parquet(path, format=name, **options_of(name))
        second.import_parquet(path, format=name)
    by_lines = SQLStorage("duckdb:///:memory:")
    imported(by_lines, name, exported(first, name))
    assert loaded(second, name) == loaded(by_lines, name)


def some(name: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    if name in NARROW:
        return plain(name)
    each = pairs() if name in PAIRS else records()
    return st.lists(each.filter(lambda record: held(name, record)), min_size=1, max_size=3)


def plain(name: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    each = plain_pairs() if name in PAIRS else plain_records()
    return st.lists(each.filter(lambda record: held(name, record)), min_size=1, max_size=3)


class TestEachFormat:
    @pytest.mark.parametrize("name", FORMATS)
    @given(st.data())
    @settings(max_examples=1)
    def test_a_few_records_come_back(self, name: str, data: Any) -> None:
        check_lines(name, data.draw(some(name)), "jsonl", exact=name in EXACT)

    @pytest.mark.slow
    @pytest.mark.parametrize("storage_name", STORAGES)
    @pytest.mark.parametrize("name", FORMATS)
    @given(st.data())
    def test_any_records_come_back(self, name: str, storage_name: str, data: Any) -> None:
        check_lines(name, data.draw(some(name)), storage_name, exact=name in EXACT)

    @pytest.mark.slow
    @pytest.mark.parametrize("storage_name", STORAGES)
    @pytest.mark.parametrize("name", FORMATS)
    @given(st.data())
    def test_questions_and_answers_come_back_equal(
        self, name: str, storage_name: str, data: Any
    ) -> None:
        # A line of alpaca is one question and its answer.
        check_lines(name, data.draw(plain(name)), storage_name, exact=name != "alpaca")

    @pytest.mark.slow
    @pytest.mark.parametrize("name", FORMATS)
    @given(st.data())
    def test_parquet_has_the_records_of_the_lines(self, name: str, data: Any) -> None:
        check_parquet(name, data.draw(some(name)))
