"""The search box takes the query language, and plain words."""

from __future__ import annotations

import pytest

from afterimage.storage import InvalidQueryError
from afterimage.storage.cli.look.view import _condition
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS
from afterimage.storage.viewer.search import filters_of

WORDS = "messages.content"


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("", []),
        ("  ", []),
        ("night train", [[(WORDS, "icontains", "night train")]]),
        ("final_score>=0.8", [[("final_score", ">=", 0.8)]]),
        (
            "metadata.domain = a AND refund OR persona=null",
            [
                [("metadata.domain", "=", "a"), (WORDS, "icontains", "refund")],
                [("persona", "=", None)],
            ],
        ),
        ('metadata.n in ["a AND b", 1]', [[("metadata.n", "in", ["a AND b", 1])]]),
        ('metadata."a OR b"=1', [[('metadata."a OR b"', "=", 1)]]),
        ('metadata."a b"=1', [[('metadata."a b"', "=", 1)]]),
        ('"a = b AND ""c"""', [[(WORDS, "icontains", 'a = b AND "c"')]]),
        ("is it < 3", [[(WORDS, "icontains", "is it < 3")]]),
        ("ANDES and ORION", [[(WORDS, "icontains", "ANDES and ORION")]]),
        ('say "', [[(WORDS, "icontains", 'say "')]]),
        (
            "messages.content contains a OR b",
            [[(WORDS, "contains", "a")], [(WORDS, "icontains", "b")]],
        ),
    ],
)
def test_conditions_and_words(text: str, filters: object) -> None:
    assert filters_of(text, CONVERSATIONS, _condition) == filters


def test_words_are_searched_in_the_text_of_documents() -> None:
    assert filters_of("night", DOCUMENTS, _condition) == [[("text", "icontains", "night")]]


@pytest.mark.parametrize("text", ["a AND  AND b", " AND b", "a OR ", "x" * 20_000])
def test_a_search_that_is_not_whole_is_an_error(text: str) -> None:
    with pytest.raises(InvalidQueryError):
        filters_of(text, CONVERSATIONS, _condition)
