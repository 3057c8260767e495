"""All saved records are loaded equal, including types, signs of zero, NaN and key order."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from afterimage.storage import (
    Conversation,
    Document,
    EvaluatedConversationWithContext,
    JSONLStorage,
    SQLStorage,
)
from tests.support import strategies
from tests.support.plain_python import same
from tests.support.records import Note, RatedConversation, StructuredRow, TracedConversation


@contextmanager
def fresh_storage(name: str) -> Iterator[Any]:
    """A new storage for each example; hypothesis runs many examples in one test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        if name == "jsonl":
            yield JSONLStorage(path / "c.jsonl", path / "d.jsonl")
        elif name == "sql-file":
            yield SQLStorage(f"duckdb:///{path / 'store.duckdb'}", metadata_fields=["domain"])
        else:
            yield SQLStorage("duckdb:///:memory:")


def as_loaded(record: Conversation) -> EvaluatedConversationWithContext:
    """The expected result of `load_conversations` for `record`, by pydantic alone."""
    return EvaluatedConversationWithContext.model_validate(record.model_dump())


def of_class(records: list[Any], model: type[BaseModel]) -> list[Any]:
    return [record for record in records if type(record) is model]


@pytest.mark.parametrize("name", ["jsonl", "sql-memory"])
@given(batches=st.lists(st.lists(strategies.conversations | strategies.others, max_size=4)))
def test_records_of_every_class(name: str, batches: list[list[BaseModel]]) -> None:
    records = [record for batch in batches for record in batch]
    saved = [record for record in records if isinstance(record, Conversation)]
    with fresh_storage(name) as storage:
        for batch in batches:
            storage.save_conversations(batch)
        assert same(storage.load_conversations(), [as_loaded(record) for record in saved])
        assert storage.count_conversations() == len(saved)
        assert same(storage.load_records(Note), of_class(records, Note))
        row = StructuredRow[dict[str, Any]]
        assert same(storage.load_records(row), of_class(records, row))


@pytest.mark.parametrize("name", ["jsonl", "sql-memory"])
@given(records=st.lists(strategies.conversations, max_size=4))
def test_own_fields_of_subclasses(name: str, records: list[Conversation]) -> None:
    with fresh_storage(name) as storage:
        storage.save_conversations(records)
        rated = storage.load_records(RatedConversation)
        # Extra fields can form a rated conversation by chance, so only records saved as one count.
        own = [record for record in rated if "weights" in record.model_fields_set]
        assert same(own, of_class(records, RatedConversation))
        traced = [each for each in storage.load_records(TracedConversation) if each.conversations]
        expected = [each for each in of_class(records, TracedConversation) if each.conversations]
        assert same(traced, expected)


@pytest.mark.parametrize("name", ["jsonl", "sql-memory"])
@given(records=st.lists(strategies.documents, max_size=5))
def test_documents(name: str, records: list[Document]) -> None:
    with fresh_storage(name) as storage:
        storage.save_documents(records)
        expected = [Document.model_validate(record.model_dump()) for record in records]
        assert same(storage.load_documents(), expected)


@settings(max_examples=max(1, settings().max_examples // 3))
@given(
    records=st.lists(strategies.conversations | strategies.others, max_size=4),
    documents=st.lists(strategies.documents, max_size=3),
)
def test_from_lines_through_a_database_and_back(
    records: list[BaseModel], documents: list[Document]
) -> None:
    """JSONL -> DuckDB -> JSONL: every line is exported as the same JSON, for every model."""
    with fresh_storage("jsonl") as lines, fresh_storage("sql-file") as database:
        lines.save_conversations(records)
        lines.save_documents(documents)
        written = [_parsed(lines.conversations_path), _parsed(lines.documents_path)]
        if lines.conversations_path.exists():
            database.import_jsonl(lines.conversations_path)
        if lines.documents_path.exists():
            database.import_jsonl(lines.documents_path, kind="documents")
        out = lines.conversations_path.with_name("out.jsonl")
        database.export_jsonl(out)
        conversations = _parsed(out)
        database.export_jsonl(out, kind="records")
        others = _parsed(out)
        database.export_jsonl(out, kind="documents")
        assert _same_lines(conversations + others, written[0])
        assert _same_lines(_parsed(out), written[1])


def _parsed(path: Path) -> list[Any]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def _same_lines(left: list[Any], right: list[Any]) -> bool:
    """Lines as sets, since other models are exported separately; NaN is compared as text."""

    def texts(lines: list[Any]) -> list[str]:
        return sorted(json.dumps(line, sort_keys=True) for line in lines)

    return texts(left) == texts(right)
