"""Hypothesis strategies: JSON values, records of every class, and queries that match something."""

from __future__ import annotations

from typing import Any, TypedDict

from hypothesis import strategies as st
from pydantic import BaseModel

from afterimage.storage import (
    ChatConversation,
    ChatEntry,
    ChatRole,
    Conversation,
    ConversationEntry,
    ConversationWithContext,
    Document,
    EvaluatedConversationWithContext,
    EvaluationEntrySchema,
    EvaluationSchema,
    GradeSchema,
    PersonaEntry,
    Role,
)
from tests.support import plain_python as plain
from tests.support.records import (
    CRITERIA,
    Note,
    OpenConversation,
    RatedConversation,
    StructuredRow,
    TaggedDocument,
    TracedConversation,
    TracedEntry,
)

NUMBERS = [
    0, 1, -1, 3, 3.0, 0.0, -0.0, 0.1, 1.5, -2.5, 1e16, 1e-7, 1e29, 5e-324, 1.7976931348623157e308,
    2**53, 2**53 + 1, float(2**53), 2**63 - 1, 2**63, float(2**63), -(2**63) - 1, 2**64 + 1,
    10**29 + 7, -(10**30) + 1, 10**45 + 1, float("nan"), float("inf"), float("-inf"),
]  # fmt: skip
STRINGS = [
    "", "a", "b", "B", "é", "e\u0301", "\u2028", "x\u2029y", "\u0085", "\x00", "x\x00y", "😀",
    "\ufeff", "\uffff", "\U0010ffff", '"', "'", "\\", "/", "~", "*", "$", "%", "_", "\n", "\r\n",
    "\t", "\x7f", "\x1f", "null", "true", "3", "3.0", "NaN", " ", "[]", "{}",
    "'; DROP TABLE conversations; --",
]  # fmt: skip
KEYS = [
    "domain", "n", "k.l", "", "*", "$", "/", "~", "a/b", "t~t", "\\", 'q"x', '"', "é", "x\x00y",
    "0", "[0]", "$.n", "'", "a b", "N", "domain_type", "conversations", "extra", "\u2028", "😀",
]  # fmt: skip
QUERIED_KEYS = ["domain", "n", "k.l", 'q"x', ""]
"""Metadata keys that most records have, so that filters and sorts on them find values."""

# Surrogates are not valid text and are rejected; see conformance/records/test_saving.py.
texts = st.sampled_from(STRINGS) | st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.sampled_from(NUMBERS) | st.integers(-3, 3) | st.integers() | st.floats()
scalars = st.none() | st.booleans() | numbers | texts
keys = st.sampled_from(KEYS) | st.text(st.characters(codec="utf-8"), max_size=4)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)

# Lists and objects sort by their JSON text. JSON has several spellings of one float or one control
# character, so sorted lists and objects contain neither.
_visible = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=4)
_spelled_once = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | _visible
# A few values, so that several records have equal or almost equal values.
_common: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, 1.0, 2, 2**53, 2**53 + 1, float("nan"), "1", "a", "b", "B", True, False, None, [1], {}]
)
sortable = (
    _common
    | _common
    | scalars
    | st.lists(_spelled_once, max_size=2)
    | st.dictionaries(_visible, _spelled_once, max_size=2)
)


@st.composite
def metadatas(draw: st.DrawFn) -> dict[str, Any]:
    queried = draw(st.dictionaries(st.sampled_from(QUERIED_KEYS), sortable, min_size=1))
    others = draw(st.dictionaries(keys, json_values, max_size=2))
    return {**queried, **{k: v for k, v in others.items() if k not in QUERIED_KEYS}}


_roles = st.sampled_from(Role)
_optional_texts = st.none() | st.sampled_from("abB") | texts
_plain_entries = st.builds(
    ConversationEntry, role=_roles, content=texts, reasoning_content=_optional_texts
)
_traced_entries = st.builds(
    TracedEntry,
    role=_roles,
    content=texts,
    reasoning_content=_optional_texts,
    tokens=st.integers(0, 2**70),
    tool=st.none() | st.dictionaries(keys, json_values, max_size=2),
)
_scores = st.sampled_from([0.0, 0.5, 1.0, 1.5]) | st.floats()
_criteria = st.builds(EvaluationEntrySchema, feedback=texts, score=_scores)
evaluations = st.builds(
    EvaluationSchema,
    **dict.fromkeys(CRITERIA, _criteria),
    overall_grade=st.sampled_from(GradeSchema),
)
_entries = st.lists(_plain_entries, max_size=3)
_context: dict[str, st.SearchStrategy[Any]] = {
    "instruction_context": _optional_texts,
    "response_context": _optional_texts,
    "persona": _optional_texts,
}
_evaluated = {
    **_context,
    "evaluation": st.none() | evaluations,
    "final_score": st.none() | _scores,
}
# Names of table columns, to check that they are not confused with those.
_extra_keys = st.sampled_from(["extra", "id", "_id", "timestamp", "mood", "absent", "fields"])


evaluated_conversations = st.builds(
    EvaluatedConversationWithContext, conversations=_entries, metadata=metadatas(), **_evaluated
)

_objects = st.dictionaries(keys, json_values, max_size=3)
_parts = st.lists(_objects | st.fixed_dictionaries({"text": texts}), max_size=3)


@st.composite
def _chat_entries(draw: st.DrawFn, *roles: ChatRole) -> ChatEntry:
    values = {
        "name": texts | st.none(),
        "tool_calls": st.lists(_objects, max_size=2) | st.none(),
        "tool_call_id": texts | st.none(),
        "weight": json_values,
        "absent": json_values,
    }
    return ChatEntry(
        role=draw(st.sampled_from(roles or tuple(ChatRole))),
        content=draw(texts | st.none() | _parts),
        reasoning_content=draw(_optional_texts),
        **draw(st.fixed_dictionaries({}, optional=values)),
    )


@st.composite
def _chats(draw: st.DrawFn) -> ChatConversation:
    """A chat that only `ChatConversation` can hold, as it begins with a system message."""
    first = draw(_chat_entries(ChatRole.SYSTEM, ChatRole.DEVELOPER))
    tools = draw(st.fixed_dictionaries({}, optional={"tools": st.none() | st.lists(_objects)}))
    return ChatConversation(
        conversations=[first, *draw(st.lists(_chat_entries(), max_size=3))],
        metadata=draw(metadatas()),
        **{name: draw(values) for name, values in _evaluated.items()},
        **tools,
    )


chats: st.SearchStrategy[ChatConversation] = _chats()


@st.composite
def _open_conversations(draw: st.DrawFn) -> OpenConversation:
    extras = draw(st.dictionaries(_extra_keys, json_values, max_size=3))
    return OpenConversation(
        conversations=draw(_entries), metadata=draw(metadatas()), persona=draw(texts), **extras
    )


conversations: st.SearchStrategy[Conversation] = st.one_of(
    st.builds(Conversation, conversations=_entries, metadata=metadatas()),
    st.builds(ConversationWithContext, conversations=_entries, metadata=metadatas(), **_context),
    st.builds(
        EvaluatedConversationWithContext,
        conversations=_entries,
        metadata=metadatas(),
        **_evaluated,
    ),
    st.builds(
        RatedConversation,
        conversations=_entries,
        metadata=metadatas(),
        mood=texts,
        weights=st.lists(_scores, max_size=2),
        **_evaluated,
    ),
    st.builds(
        TracedConversation,
        conversations=st.lists(_traced_entries, max_size=2),
        metadata=metadatas(),
    ),
    _open_conversations(),
)
others: st.SearchStrategy[BaseModel] = st.one_of(
    st.builds(Note, title=texts, body=json_values, conversations=st.none() | st.integers()),
    st.builds(
        StructuredRow[dict[str, Any]],
        instruction=texts,
        context=_optional_texts,
        persona=_optional_texts,
        output=st.dictionaries(keys, json_values, max_size=2),
        metadata=metadatas(),
    ),
)
_personas = st.lists(
    st.builds(PersonaEntry, descriptions=st.lists(texts, max_size=2), metadata=metadatas()),
    max_size=2,
)
_document: dict[str, st.SearchStrategy[Any]] = {
    "id": texts,
    "text": _optional_texts,
    "personas": _personas,
    "metadata": metadatas(),
}
documents: st.SearchStrategy[Document] = st.builds(Document, **_document) | st.builds(
    TaggedDocument, tags=st.lists(texts, max_size=2), **_document
)

_CONVERSATION_SCALARS = [
    "final_score", "instruction_context", "response_context", "persona",
    "evaluation.overall_grade", "evaluation.coherence.score", "evaluation.relevance.feedback",
    "message_count", "first_role", "last_role", "character_count",
]  # fmt: skip
_DOCUMENT_SCALARS = ["id", "text", "content_hash", "character_count"]
_QUERIED_PATHS = [plain.path_of("metadata", key) for key in QUERIED_KEYS]
_OPERATORS = ["==", "=", "!=", "<", "<=", ">", ">="]


class QueryArguments(TypedDict, total=False):
    filters: Any
    order_by: list[tuple[str, int | str]]
    limit: int | None
    offset: int | None


def conditions(records: list[Any]) -> st.SearchStrategy[tuple[str, str, Any]]:
    """One `(field, op, value)` about `records`, which are loaded records."""
    rows = [plain.plain(record) for record in records]
    return _filtered_paths(rows).flatmap(lambda path: _conditions_on(path, rows))


@st.composite
def queries(draw: st.DrawFn, records: list[Any]) -> QueryArguments:
    """Arguments of a load over `records`, which are loaded records."""
    rows = [plain.plain(record) for record in records]
    paths = _filtered_paths(rows)
    condition = paths.flatmap(lambda path: _conditions_on(path, rows))
    group = st.lists(condition, min_size=1, max_size=2)
    mapping = st.lists(paths, min_size=1, max_size=2, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({path: _values_at(path, rows) for path in chosen})
    )
    sorted_by = st.sampled_from(_scalar_paths(rows)) | st.sampled_from(_QUERIED_PATHS)
    direction = st.sampled_from([1, -1, "asc", "desc"])
    slices = st.none() | st.integers(0, len(records) + 1)
    return {
        "filters": draw(mapping | group | group | st.lists(group, max_size=3)),
        "order_by": draw(st.lists(st.tuples(sorted_by, direction), max_size=3)),
        "limit": draw(slices),
        "offset": draw(slices),
    }


def _scalar_paths(rows: list[dict[str, Any]]) -> list[str]:
    return _DOCUMENT_SCALARS if rows and "personas" in rows[0] else _CONVERSATION_SCALARS


def _filtered_paths(rows: list[dict[str, Any]]) -> st.SearchStrategy[str]:
    """Mostly paths where some record has a value; other filters rarely distinguish records."""
    scalar_paths = _scalar_paths(rows)
    whole = ["metadata", "personas", "evaluation", "evaluation.grounding"]
    whole = [path for path in whole if any(path.split(".")[0] in row for row in rows)]
    deep = sorted({path for row in rows for path in _paths_into(row["metadata"], ("metadata",))})
    nowhere = ["metadata.nowhere", "metadata.domain.deeper", "metadata.n.0"]
    every = [*scalar_paths, *_QUERIED_PATHS, *whole, *deep]
    filled = [path for path in every if any(_found_at(path, rows))]
    anything = st.sampled_from([*every, *nowhere])
    return st.sampled_from(filled) | st.sampled_from(filled) | anything if filled else anything


def _found_at(path: str, rows: list[dict[str, Any]]) -> list[Any]:
    found = [plain.value_at(row, path) for row in rows]
    return [value for value in found if value is not None]


def _values_at(path: str, rows: list[dict[str, Any]]) -> st.SearchStrategy[Any]:
    """Mostly values that occur, and values close to them."""
    found = _found_at(path, rows)
    near = [item for value in [*found, None] for item in _neighbours(value)]
    other = st.sampled_from(near) | scalars
    return st.sampled_from(found) | st.sampled_from(found) | other if found else other


def _conditions_on(
    path: str, rows: list[dict[str, Any]]
) -> st.SearchStrategy[tuple[str, str, Any]]:
    values = _values_at(path, rows)
    one = st.tuples(st.just(path), st.sampled_from(_OPERATORS), values)
    membership = st.sampled_from(["in", "not in"])
    return one | one | st.tuples(st.just(path), membership, st.lists(values, max_size=3))


def _paths_into(value: Any, steps: tuple[str, ...]) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [
        path
        for key, inner in value.items()
        for path in [plain.path_of(*steps, key), *_paths_into(inner, (*steps, key))]
    ]


def _neighbours(value: Any) -> list[Any]:
    """Values that a wrong comparison would confuse with `value`, or that are next to it."""
    if isinstance(value, bool):
        return [int(value), str(value).lower(), not value]
    if isinstance(value, int):
        return [value + 1, str(value), bool(value), *([float(value)] if value < 2**1000 else [])]
    if isinstance(value, float):
        return [str(value), value + 1, *([int(value)] if value == value // 1 else [])]
    if isinstance(value, str):
        return [value + "\x00", value[:-1], value.upper()]
    if isinstance(value, list):
        return [[*value, None], value[:-1], str(value)]
    if isinstance(value, dict):
        return [{**value, "domain": 0}, {}, dict(reversed(value.items()))]
    return ["null", False, 0, ""]
