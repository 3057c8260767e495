"""Rows of every format and records, as hypothesis strategies, and how they are compared."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from afterimage.storage.formats.registry import shape_named
from afterimage.storage.formats.shape import WriteOptions

ROLES = ("system", "developer", "user", "assistant", "tool")
# Everything that was read, as it was read.
WHOLE = WriteOptions(columns=("metadata.*",))
WHOLE_WITH_REASONING = WriteOptions(columns=("metadata.*",), reasoning="field")

texts = st.sampled_from(["", "a", "\n", "x\ny", "\u2028", "{}", "[1]", "<think>x</think>", "é 😀"])
texts = texts | st.text(st.characters(codec="utf-8"), max_size=8)
full_texts = texts.filter(bool)
names = st.sampled_from(["f", "get_weather", "ns.f"])
_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
json_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
# Keys that no format names, and some that look like it.
_other_keys = st.sampled_from(
    ["id", "label", "images", "score", "a/b", "m~n", "", "k.l", "*", "timestamp", "extra"]
)
others = st.dictionaries(_other_keys, json_values, max_size=3)
_message_extras = st.dictionaries(
    st.sampled_from(["weight", "refusal", "loss", "a/b", "0"]), json_values, max_size=2
)
_argument_texts = json_objects.map(json.dumps) | texts
parts = st.fixed_dictionaries({"type": st.just("text"), "text": texts}) | st.fixed_dictionaries(
    {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": texts})}
)
contents = texts | texts | st.none() | st.lists(parts, min_size=1, max_size=3)


def _call(name: str, arguments: Any, known: str | None) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return call if known is None else {"id": known, **call}


record_calls = st.builds(_call, names, json_objects.map(json.dumps), st.none() | full_texts)
_odd_calls = (
    st.builds(_call, names, json_objects | _argument_texts, st.none() | texts)
    | st.fixed_dictionaries({"name": names, "arguments": json_objects | _argument_texts})
    | st.fixed_dictionaries({"type": st.just("custom"), "custom": json_objects})
)
tools = st.builds(
    lambda name, given: {"type": "function", "function": {"name": name, **given}},
    names,
    st.fixed_dictionaries({}, optional={"description": texts, "parameters": json_objects}),
)
_flat_tools = st.fixed_dictionaries({"name": names, "parameters": json_objects})
tool_lists = st.lists(tools | _flat_tools, max_size=2)
odd_tools = tool_lists | tool_lists.map(json.dumps) | st.just("")


@st.composite
def messages(draw: st.DrawFn, roles: Iterable[str] = ROLES) -> dict[str, Any]:
    """A message in our form."""
    role = draw(st.sampled_from(list(roles)))
    message: dict[str, Any] = {"role": role, "content": draw(contents)}
    if not draw(st.integers(0, 2)):
        optional: dict[str, st.SearchStrategy[Any]] = {"name": texts}
        if role == "assistant":
            optional["tool_calls"] = st.lists(record_calls, min_size=1, max_size=2)
            optional["reasoning_content"] = texts
        if role == "tool":
            optional["tool_call_id"] = texts
        message |= draw(st.fixed_dictionaries({}, optional=optional))
        message |= draw(_message_extras)
    return message


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A conversation in our form, with an answer."""
    record: dict[str, Any] = {
        "conversations": draw(st.lists(messages(), max_size=5)),
        "metadata": draw(others),
    }
    record["conversations"].append(draw(messages(["assistant"])))
    if draw(st.booleans()):
        record["tools"] = draw(st.lists(tools, min_size=1, max_size=2))
    return record


@st.composite
def odd_messages(draw: st.DrawFn) -> dict[str, Any]:
    """A message as other tools write it."""
    message = draw(messages((*ROLES, "function")))
    message |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "thinking": texts | st.none(),
                "reasoning": texts | json_objects,
                "function_call": st.fixed_dictionaries({"name": names, "arguments": texts}),
                "tool_calls": st.none()
                | st.lists(_odd_calls, max_size=2)
                | st.lists(_odd_calls, max_size=2).map(json.dumps),
            },
        )
    )
    if draw(st.integers(0, 5)) == 0 and message["content"] is None:
        del message["content"]
    return message


def same(row: Any) -> Any:
    """A value without the keys whose value is null."""
    if isinstance(row, dict):
        return {key: same(value) for key, value in row.items() if value is not None}
    return [same(value) for value in row] if isinstance(row, list) else row


def assert_round_trip(name: str, row: dict[str, Any], options: WriteOptions = WHOLE) -> None:
    """Check that a row is read and written again as itself."""
    shape = shape_named(name)
    before = json.dumps(row)
    record = shape.read(row)
    for message in record.get("conversations", ()):
        assert message["role"] in ROLES
        assert "content" in message
    (written,) = shape.write(record, options)
    assert same(written) == same(row)
    others = record["metadata"].keys() - {"source_format"}
    assert all(written.get(key, written.get("metadata", {}).get(key)) == record["metadata"][key]
               for key in others)  # fmt: skip
    assert json.dumps(row) == before
    assert json.loads(json.dumps(record)) == record
