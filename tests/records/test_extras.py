"""The keys that the declared fields do not cover: split off, and put back unchanged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage.records.extras import overlay, restore
from afterimage.storage.records.fields import List, Struct, Text

STRUCT = Struct(
    {"name": Text(), "inner": Struct({"a": Text()}), "items": List(Struct({"b": Text()}))}
)

OVERLAYS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"name": "n", "inner": {"a": "x"}, "items": []}, {}),
    ({"name": "n", "inner": None, "items": []}, {}),
    ({"inner": {"a": "x"}, "items": []}, {"absent": ["name"]}),
    ({"name": "n", "inner": None, "items": [], "x": 1}, {"fields": {"x": 1}}),
    (
        {"name": "n", "inner": {"a": "x", "y": [2]}, "items": []},
        {"children": {"inner": {"fields": {"y": [2]}}}},
    ),
    (
        {"name": "n", "inner": None, "items": [{"b": "1"}, {"b": "2", "c": None}]},
        {"children": {"items": {"children": {"1": {"fields": {"c": None}}}}}},
    ),
]


@pytest.mark.parametrize(("record", "expected"), OVERLAYS)
def test_the_overlay_holds_what_is_not_declared(
    record: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert overlay(STRUCT, record) == expected


_texts = st.text(max_size=3)
_extra = st.dictionaries(st.sampled_from(["x", "y", ""]), st.integers() | st.none(), max_size=2)


def _object(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(st.fixed_dictionaries(fields), _extra).map(
        lambda parts: {**parts[1], **parts[0]}
    )


_records = _object(
    name=_texts,
    inner=st.none() | _object(a=_texts),
    items=st.lists(_object(b=_texts), max_size=3),
)


def _declared(record: dict[str, Any]) -> dict[str, Any]:
    inner = record["inner"]
    return {
        "name": record["name"],
        "inner": None if inner is None else {"a": inner["a"]},
        "items": [{"b": item["b"]} for item in record["items"]],
    }


@given(_records)
def test_the_declared_fields_and_the_overlay_give_the_record_again(record: dict[str, Any]) -> None:
    assert restore(_declared(record), overlay(STRUCT, record)) == record
