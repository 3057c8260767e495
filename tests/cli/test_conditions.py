"""The text of filters, sort keys and columns."""

from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from afterimage.storage.cli.options import parse_columns, parse_filter, parse_order
from tests.support import strategies
from tests.support.plain_python import path_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metadata.domain=Flights", ("metadata.domain", "=", "Flights")),
        ("metadata.domain==Flights", ("metadata.domain", "==", "Flights")),
        ("final_score>=0.8", ("final_score", ">=", 0.8)),
        ("final_score < 1", ("final_score", "<", 1)),
        ("persona!=null", ("persona", "!=", None)),
        ("metadata.ok=true", ("metadata.ok", "=", True)),
        ('metadata.zip="01067"', ("metadata.zip", "=", "01067")),
        ("metadata.zip=01067", ("metadata.zip", "=", "01067")),
        ("metadata.x=NaN", ("metadata.x", "=", "NaN")),
        ("metadata.x=", ("metadata.x", "=", "")),
        ("metadata.a b=c = d", ("metadata.a b", "=", "c = d")),
        ("persona=born in Rome", ("persona", "=", "born in Rome")),
        ('metadata.n in [1, "a"]', ("metadata.n", "in", [1, "a"])),
        ("metadata.n  not   in []", ("metadata.n", "not in", [])),
        ('metadata."a in b"=1', ('metadata."a in b"', "=", 1)),
        ('metadata."x""y>=z".k<=2', ('metadata."x""y>=z".k', "<=", 2)),
        ("metadata.tags=[\n1]", ("metadata.tags", "=", [1])),
        ("messages.content contains refund", ("messages.content", "contains", "refund")),
        ("messages.content  not  icontains a=b", ("messages.content", "not icontains", "a=b")),
        ("messages.content contains 42", ("messages.content", "contains", "42")),
        ('messages.content startswith " a"', ("messages.content", "startswith", " a")),
        (r"messages.content matches ^\d+ in$", ("messages.content", "matches", r"^\d+ in$")),
        ("metadata.tags has night", ("metadata.tags", "has", "night")),
        ("metadata.tags not has 42", ("metadata.tags", "not has", 42)),
        ("metadata.contains=1", ("metadata.contains", "=", 1)),
        ('metadata."a has b" = 1', ('metadata."a has b"', "=", 1)),
    ],
)
def test_filters(text: str, expected: Any) -> None:
    assert parse_filter(text) == expected


@pytest.mark.parametrize("text", ["", "final_score", "=3", "metadata.n in 3", "x not in abc"])
def test_invalid_filters(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_filter(text)


@given(
    st.lists(strategies.keys, min_size=1, max_size=3),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "="]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner, max_size=2),
        max_leaves=3,
    ),
)
def test_every_field_and_value_can_be_typed(steps: list[str], op: str, value: Any) -> None:
    field = path_of(*steps)
    assert parse_filter(f"{field} {op} {to_json(value).decode()}") == (field, op, value)


def test_sort_keys() -> None:
    assert parse_order("final_score") == ("final_score", "asc")
    assert parse_order("metadata.a:b:desc") == ("metadata.a:b", "desc")
    assert parse_order("metadata.a:b") == ("metadata.a:b", "asc")


def test_columns() -> None:
    assert parse_columns("a") == ["a"]
    assert parse_columns('a , metadata."b,c",d.e') == ["a", 'metadata."b,c"', "d.e"]
    for text in ("a,,b", "a,", ",a", " "):
        with pytest.raises(click.BadParameter):
            parse_columns(text)
