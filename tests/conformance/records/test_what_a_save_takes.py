"""A save stores what every read returns equal, or rejects the batch; both storages decide alike."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from afterimage.storage import (
    Conversation,
    ConversationEntry,
    Document,
    EvaluatedConversationWithContext,
    InvalidRecordError,
    JSONLStorage,
    PersonaEntry,
    SQLStorage,
)
from tests.support import strategies
from tests.support.plain_python import same
from tests.support.records import Note, RatedConversation, conversation, evaluation

ODD: list[Any] = [
    None, True, 0, 3, 2**53 + 1, 2**63, 10**400, 0.5, float("nan"), "", "x", "0.5", "user",
    "good", "\ud800", b"x", b"\xff", [], ["x"], [None], (), ("x",), {"x"}, {}, {"k": 1},
    {1: "a"}, {1: "a", "1": "b"}, {None: 1, "None": 2}, {True: 1, "true": 2},
    {"k": [{1: "a", "1": "b"}]}, {"k": (1, 2)}, {"k": b"x"}, {"k": {1, 2}}, {"k": object()},
    {"k": dt.datetime(2024, 2, 29, tzinfo=dt.UTC)}, dt.date(2024, 2, 29), object(), Note(title="x"),
    ConversationEntry(role="user", content="x"),
]  # fmt: skip
"""Values that are wrong in most fields; some are right or can be written in others."""
KINDS: dict[str, type[BaseModel]] = {"conversations": Conversation, "documents": Document}


def fields_in(model: BaseModel) -> list[tuple[BaseModel, str]]:
    """Every field of a model and of the models inside it."""
    found = []
    for name, value in model.__dict__.items():
        found.append((model, name))
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, BaseModel):
                found += fields_in(inner)
    return found


def _set(model: BaseModel, name: str, value: Any) -> None:
    model.__dict__[name] = value


def _remove(model: BaseModel, name: str, value: Any) -> None:
    model.__dict__.pop(name, None)


def _add(model: BaseModel, name: str, value: Any) -> None:
    model.__dict__["unknown"] = value


@st.composite
def changed(draw: st.DrawFn, records: st.SearchStrategy[Any]) -> Any:
    """A record with a value, or a missing or an unknown attribute, that validation never saw."""
    record = draw(records).model_copy(deep=True)
    for _ in range(draw(st.integers(0, 2))):
        model, name = draw(st.sampled_from(fields_in(record)))
        change = draw(st.sampled_from([_set, _set, _set, _remove, _add]))
        change(model, name, deepcopy(draw(st.sampled_from(ODD))))  # a copy: it may be changed next
    return record


def attempt(storage: Any, kind: str, batch: list[Any]) -> str | None:
    """Save a batch; return the error of a rejected one."""
    try:
        getattr(storage, f"save_{kind}")(batch)
    except InvalidRecordError as error:
        return str(error)
    return None


def check_batch(kind: Any, batch: list[Any]) -> list[str | None]:
    """Save a batch in both storages; check the promise, and return the errors."""
    errors, found = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for storage in (
            JSONLStorage(path / "c.jsonl", path / "d.jsonl"),
            SQLStorage("duckdb:///:memory:"),
        ):
            error = attempt(storage, kind, batch)
            loaded = getattr(storage, f"load_{kind}")()
            count = getattr(storage, f"count_{kind}")()
            scanned = getattr(storage, f"scan_{kind}")().read_all()
            lines = path / "out.jsonl"
            storage.export_jsonl(lines, kind=kind)
            others = storage.count_records()
            report = storage.verify()
            assert report.corrupt.count == 0
            assert len(loaded) == count == scanned.num_rows == len(lines.read_bytes().splitlines())
            assert count + others == (0 if error else len(batch))
            if error is None:
                own = [record for record in batch if isinstance(record, KINDS[kind])]
                assert len(loaded) == len(own)
                for record, read in zip(own, loaded, strict=True):
                    for name in read.__dict__.keys() & record.__dict__.keys() - {"metadata"}:
                        assert equal(record.__dict__[name], read.__dict__[name]), name
            else:
                assert "record " in error
            errors.append(error)
            found.append((loaded, scanned.to_pylist(), lines.read_bytes()))
    assert (errors[0] is None) == (errors[1] is None), errors
    assert same(found[0][0], found[1][0])
    assert str(found[0][1]) == str(found[1][1])
    return errors


def equal(saved: Any, read: Any) -> bool:
    """Whether both are equal; a model of a subclass may have more fields; NaN equals itself."""
    if isinstance(read, BaseModel):
        return isinstance(saved, type(read)) and all(
            name == "metadata" or equal(saved.__dict__[name], value)
            for name, value in read.__dict__.items()
        )
    if isinstance(read, list):
        return isinstance(saved, list) and len(saved) == len(read) and all(map(equal, saved, read))
    return bool(saved == read) or (saved != saved and read != read)


def _document(**fields: Any) -> Document:
    return Document(id="d", text="x").model_copy(update=fields)


def _said(**fields: Any) -> Conversation:
    entry = ConversationEntry(role="user", content="x").model_copy(update=fields)
    return Conversation.model_construct(conversations=[entry], metadata={})


def _swapped(name: str) -> Conversation:
    """A conversation whose message has an unknown attribute instead of a field."""
    record = _said(unknown="x")
    del record.conversations[0].__dict__[name]
    return record


_LETTERS = PersonaEntry(descriptions=[]).model_copy(update={"descriptions": "abc"})


def _scored(score: Any) -> EvaluatedConversationWithContext:
    judged = evaluation()
    judged.coherence.score = score
    return conversation(evaluation=judged)


@given(batch=st.lists(changed(strategies.conversations | strategies.others), max_size=3))
@example(batch=[_said(content=None)])
@example(batch=[_said(role="narrator")])
@example(batch=[_said(role="user")])
@example(batch=[_said(content=b"x")])
@example(batch=[_said(name="tool")])
@example(batch=[_swapped("role")])
@example(batch=[_swapped("content")])
@example(batch=[_swapped("reasoning_content")])
@example(batch=[_scored(None)])
@example(batch=[_scored("0.5")])
@example(batch=[conversation(), conversation().model_copy(update={"conversations": None})])
@example(batch=[conversation().model_copy(update={"final_score": 2**53 + 1})])
@example(batch=[Conversation.model_construct(metadata={})])  # type: ignore[call-arg]
def test_conversations_and_other_records(batch: list[Any]) -> None:
    check_batch("conversations", batch)


@given(batch=st.lists(changed(strategies.documents), max_size=3))
@example(batch=[_document(id=None)])
@example(batch=[_document(id=5)])
@example(batch=[_document(text=5)])
@example(batch=[_document(metadata=[])])
@example(batch=[_document(personas=None)])
@example(batch=[_document(personas=[_LETTERS])])
def test_documents(batch: list[Any]) -> None:
    check_batch("documents", batch)


REJECTED: dict[str, tuple[Callable[[], Any], str]] = {
    "content": (lambda: _said(content=None), "conversations.0.content"),
    "bytes": (lambda: _said(content=b"x"), "conversations.0.content"),
    "unknown attribute": (lambda: _said(name="tool"), "conversations.0.name"),
    "unknown attribute instead of a field": (
        lambda: _swapped("reasoning_content"),
        "conversations.0.",
    ),
    "score": (lambda: _scored(None), "evaluation.coherence.score"),
    "messages": (
        lambda: conversation().model_copy(update={"conversations": None}),
        "conversations",
    ),
    "surrogate": (lambda: _said(content="\ud800"), "conversations.0.content"),
    "metadata": (lambda: conversation(metadata={"k": [object()]}), "metadata.k.0"),
    "own field": (
        lambda: RatedConversation(conversations=[], mood="x").model_copy(update={"mood": None}),
        "mood",
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_an_error_names_the_record_and_the_field(storage: Any, name: str) -> None:
    make, path = REJECTED[name]
    with pytest.raises(InvalidRecordError, match="record 1 of the batch") as caught:
        storage.save_conversations([Note(title="good"), make(), conversation()])
    assert path in str(caught.value)
    assert len(str(caught.value)) < 600
    assert storage.count_conversations() == storage.count_records() == 0


@pytest.mark.parametrize(
    "metadata",
    [{1: "a", "1": "b"}, {"k": {None: 1, "None": 2}}, {"k": [{1.5: 1, "1.5": 2}]}],
    ids=["top", "inner", "in a list"],
)
def test_keys_that_become_one_key_in_json_are_rejected(storage: Any, metadata: Any) -> None:
    update = {"metadata": metadata}
    for bad in (conversation().model_copy(update=update), Note(title="x", body=metadata)):
        with pytest.raises(InvalidRecordError, match="several keys"):
            storage.save_conversations([conversation(), bad])
    with pytest.raises(InvalidRecordError, match="several keys"):
        storage.save_documents([Document().model_copy(update=update)])
    assert storage.count_conversations() == storage.count_documents() == 0


def test_documents_and_conversations_are_not_filed_with_each_other(storage: Any) -> None:
    class Tagged(Document):
        tag: str = ""

    for document in (Document(id="d"), Tagged(id="d")):
        with pytest.raises(InvalidRecordError, match=r"record 1 of the batch.*save_documents"):
            storage.save_conversations([conversation(), document])
    with pytest.raises(InvalidRecordError, match=r"record 0 of the batch.*save_conversations"):
        storage.save_documents([conversation()])
    assert storage.count_conversations() == storage.count_records() == 0
    assert storage.count_documents() == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: (n for n in range(3)),
        lambda: {"a": [map(str, [1])]},
        lambda: [{"b": iter([1])}],
    ],
)
def test_iterators_are_rejected_and_not_used_up(storage: Any, make: Callable[[], Any]) -> None:
    values = make()
    with pytest.raises(InvalidRecordError, match=r"record 1 .*metadata\.k.*iterator"):
        storage.save_conversations([conversation("a"), conversation("b", {"k": values})])
    document = Document(personas=[PersonaEntry(descriptions=[], metadata={"k": values})])
    with pytest.raises(InvalidRecordError, match=r"personas\.0\.metadata\.k.*iterator"):
        storage.save_documents([document])
    with pytest.raises(InvalidRecordError, match="iterator"):
        storage.save_conversations([Loose(k=values)])
    assert storage.load_conversations() == storage.load_documents() == []


class Loose(BaseModel):
    k: Any
