"""The search box reads conditions of the query language, and takes everything else as words."""

from __future__ import annotations

from typing import Any

import pytest

from afterimage.storage import InvalidQueryError
from afterimage.storage.cli.view.search import filters_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("  ", None),
        ("refund", [[("messages.content", "icontains", "refund")]]),
        ("salt and pepper", [[("messages.content", "icontains", "salt and pepper")]]),
        ("a = b", [[("messages.content", "icontains", "a = b")]]),
        ("who has it", [[("messages.content", "icontains", "who has it")]]),
        ("metadata.n>=2", [[("metadata.n", ">=", 2)]]),
        ("metadata.n = 2 AND persona = x", [[("metadata.n", "=", 2), ("persona", "=", "x")]]),
        (
            'metadata.a = "x and y" or last_role=user',
            [[("metadata.a", "=", "x and y")], [("last_role", "=", "user")]],
        ),
        ('metadata.a in ["x or y", 2]', [[("metadata.a", "in", ["x or y", 2])]]),
        (
            "messages.content contains night train and messages.role = user",
            [[("messages.content", "contains", "night train"), ("messages.role", "=", "user")]],
        ),
    ],
)
def test_what_a_text_means(text: str, expected: Any) -> None:
    assert filters_of(text, "conversations") == expected


def test_words_are_searched_in_the_text_of_documents() -> None:
    assert filters_of("night", "documents") == [[("text", "icontains", "night")]]


def test_menus_hold_for_every_group() -> None:
    found = filters_of("metadata.n=1 or metadata.n=2", "conversations", [("metadata.a", "x")])
    assert found == [
        [("metadata.a", "==", "x"), ("metadata.n", "=", 1)],
        [("metadata.a", "==", "x"), ("metadata.n", "=", 2)],
    ]


def test_a_condition_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(InvalidQueryError, match="FIELD OP VALUE"):
        filters_of("metadata.n = 1 and what", "conversations")
    with pytest.raises(InvalidQueryError, match="requires a JSON list"):
        filters_of("metadata.n in 3", "conversations")
