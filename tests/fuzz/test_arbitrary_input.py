"""Arbitrary records and arbitrary queries: both storages say the same, or both refuse.

Beside `test_round_trips.py` and `test_parity.py` in `tests/conformance/`, whose input is such as
people mean: here it may also be nested too deep, no text, no field, no number, no list.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterimage.storage import (
    EvaluatedConversationWithContext,
    InvalidRecordError,
    JSONLStorage,
    SQLStorage,
    StorageError,
)
from tests.support import strategies
from tests.support.factories import Storage
from tests.support.plain_python import same
from tests.support.records import conversation

pytestmark = pytest.mark.slow

MEMORY = "duckdb:///:memory:"

any_text = st.text(max_size=6) | st.text(st.characters(), max_size=3) | strategies.texts
"""Lone surrogates included, which are no text."""

any_number = strategies.numbers | st.sampled_from([10**400, -(10**4298), 2**1024])

# Readers of JSON give up at 200 levels. A line has a few more around a value than a column has, so
# that right below the limit one storage may take what the other refuses.
_DEPTHS = [0, 1, 2, 50, 97, 98, 99, 150, 180, 202, 400]


@st.composite
def nested(draw: st.DrawFn) -> Any:
    value: Any = draw(st.none() | any_number | any_text)
    for _ in range(draw(st.sampled_from(_DEPTHS))):
        value = {"k": value} if draw(st.booleans()) else [value]
    return value


any_json = (
    st.recursive(
        st.none() | st.booleans() | any_number | any_text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
        max_leaves=8,
    )
    | nested()
)
any_metadata = st.dictionaries(any_text | strategies.keys, any_json, max_size=3)

known_fields = st.sampled_from(
    ["persona", "final_score", "metadata.n", 'metadata.""', 'metadata."k.l"', "metadata.n.deeper",
     "evaluation.overall_grade", "evaluation", "metadata", "instruction_context"]
)  # fmt: skip
field_names = st.one_of(
    known_fields,
    known_fields,
    known_fields,
    st.sampled_from(
        [
            "conversations", "metadata", "final_score", "evaluation", "persona", "extra", "id",
            "_id", "timestamp", "domain", "domain_type", "evaluation.coherence.score", "metadata.n",
            'metadata.""', 'metadata."', "metadata.", ".", "", '"metadata".n', 'metadata."a""b"',
            "metadata.$.n", "metadata.*", "metadata.'; DROP TABLE conversations; --", "a; b",
            "evaluation.nothing", "conversations.role", "conversations[0].role", "metadata..n",
            "metadata.\x00", "metadata.\ud800", "rowid", "sequence", "count(*)", "1", "*",
        ]
    ),
    any_text,
    any_text.map(lambda text: f"metadata.{text}"),
    any_text.map(lambda text: 'metadata."' + text.replace('"', '""') + '"'),
)  # fmt: skip
any_value = (
    any_json | st.builds(object) | st.binary(max_size=3) | st.sets(st.integers(), max_size=2)
)
operators = st.sampled_from(["==", "=", "!=", "<", "<=", ">", ">="])
any_condition = st.one_of(
    st.tuples(known_fields, operators, any_json),
    st.tuples(known_fields, operators, any_json),
    st.tuples(known_fields, st.sampled_from(["in", "not in"]), st.lists(any_json, max_size=2)),
    st.tuples(field_names, operators | any_text, any_value),
)
any_filters = st.one_of(
    st.none(),
    st.dictionaries(field_names, any_value, max_size=2),
    st.lists(any_condition, max_size=2),
    st.lists(st.lists(any_condition, max_size=2), max_size=2),
    any_value,
)
any_order = st.one_of(
    st.none(),
    st.lists(st.tuples(known_fields, st.sampled_from([1, -1, "asc", "desc"])), max_size=2),
    st.lists(st.tuples(field_names, st.sampled_from([1, "desc"]) | any_value), max_size=2),
    any_value,
)
any_slice = (
    st.none()
    | st.integers(0, 4)
    | st.integers(-2, 4)
    | st.sampled_from([2**31, 2**63, 10**30])
    | any_value
)
any_columns = (
    st.none()
    | st.lists(known_fields, min_size=1, max_size=3)
    | st.lists(field_names, max_size=3)
    | any_value
)

_OWN_COLUMNS = {"id", "timestamp"}
"""What a database has of each conversation, and a file of lines has not."""

RECORDS: list[Any] = [
    conversation("a", {"n": 1, "domain": "x"}, final_score=0.5),
    conversation("b", {"n": "é", "": None}, final_score=None),
    conversation("c", {"n": 2**70, "k.l": [1]}, persona="p"),
]


@contextmanager
def both(records: list[Any]) -> Iterator[list[Storage]]:
    with tempfile.TemporaryDirectory() as folder:
        storages: list[Storage] = [
            JSONLStorage(f"{folder}/c.jsonl", f"{folder}/d.jsonl"),
            SQLStorage(MEMORY),
        ]
        for storage in storages:
            storage.save_conversations(records)
        yield storages


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> list[Storage]:
    folder = tmp_path_factory.mktemp("arbitrary")
    storages: list[Storage] = [
        JSONLStorage(folder / "c.jsonl", folder / "d.jsonl"),
        SQLStorage(MEMORY),
        SQLStorage(MEMORY, metadata_fields=["n", "domain"]),
    ]
    for storage in storages:
        storage.save_conversations(RECORDS)
    return storages


def outcome(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """What a call gives or, where it refuses, the class of its error; anything else is raised."""
    try:
        return call(*arguments, **keywords)
    except StorageError as error:
        refusal = error
    assert len(str(refusal)) < 1200
    assert len(str(refusal).splitlines()) <= 3
    return type(refusal)


@settings(max_examples=settings().max_examples // 2)
@given(metadata=st.lists(any_metadata, min_size=1, max_size=3), text=any_text)
def test_any_metadata_is_kept_exactly_or_refused_before_anything_is_stored(
    metadata: list[dict[str, Any]], text: str
) -> None:
    records = [
        EvaluatedConversationWithContext(conversations=[], metadata=each, persona=text)
        for each in metadata
    ]
    with both([]) as storages:
        found = []
        for storage in storages:
            refused = outcome(storage.save_conversations, records)
            assert refused in (None, InvalidRecordError)
            loaded = storage.load_conversations()
            assert same(loaded, [] if refused else records)
            assert storage.count_conversations() == len(loaded)
            assert storage.verify().ok
            found.append((refused, storage.stats().as_dict()))
        assert found[0] == found[1]


@settings(max_examples=settings().max_examples // 2)
@given(filters=any_filters, order_by=any_order, limit=any_slice, offset=any_slice)
def test_any_query_is_answered_alike_by_all_or_refused_by_all(
    filled: list[Storage], filters: Any, order_by: Any, limit: Any, offset: Any
) -> None:
    own = _OWN_COLUMNS | {"domain", "domain_type", "n", "n_type"}
    query = {"filters": filters, "order_by": order_by, "limit": limit, "offset": offset}
    if any(name in own for name in names_in(filters) | names_in(order_by)):
        for storage in filled:  # columns that only some have
            outcome(storage.load_conversations, **query)
        return
    answers = [
        (
            outcome(storage.load_conversations, **query),
            outcome(storage.load_conversations, **query, on_error="skip"),
            outcome(storage.count_conversations, filters),
            outcome(lambda: storage.stats(filters).conversations),  # noqa: B023  called at once
        )
        for storage in filled
    ]
    assert all(same(list(answers[0]), list(other)) for other in answers[1:])


@given(columns=any_columns, filters=st.none() | st.lists(any_condition, max_size=1) | any_filters)
def test_any_columns_are_given_alike_or_refused_by_all(
    filled: list[Storage], columns: Any, filters: Any
) -> None:
    def rows(storage: Storage, on_error: Any) -> Any:
        return storage.scan_conversations(columns, filters, on_error=on_error).read_all()

    own = _OWN_COLUMNS & (names_in(columns) | names_in(filters))
    for on_error in ("raise", "skip"):
        first, second = (outcome(rows, storage, on_error) for storage in filled[:2])
        if isinstance(first, type) or isinstance(second, type):
            assert own or first is second
        else:
            assert own or same(first.to_pylist(), second.to_pylist())
            assert own or first.schema == second.schema


@settings(max_examples=settings().max_examples // 5)
@given(
    records=st.lists(strategies.conversations | strategies.others, max_size=5),
    documents=st.lists(strategies.documents, max_size=3),
)
def test_statistics_and_verification_of_any_records_are_equal(
    records: list[Any], documents: list[Any]
) -> None:
    with both(records) as storages:
        for storage in storages:
            storage.save_documents(documents)
        first, second = (storage.stats().as_dict() for storage in storages)
        assert same(json.loads(json.dumps(first)), json.loads(json.dumps(second)))
        reports = [storage.verify() for storage in storages]
        told = [
            (each.conversations, each.documents, each.records, each.corrupt.count)
            for each in reports
        ]
        assert told[0] == told[1]
        assert reports[0].duplicate_ids.count == reports[1].duplicate_ids.count
        for storage in storages:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # nothing is skipped
                assert len(storage.load_conversations(on_error="skip")) == told[0][0]


def names_in(query: Any) -> set[Any]:
    """Every string in a query, fields among them."""
    if isinstance(query, str):
        return {query, query.split(".")[0], query.strip('"')}
    if isinstance(query, dict):
        return set().union(*map(names_in, query))
    if isinstance(query, list | tuple):
        return set().union(*map(names_in, query))
    return set()
