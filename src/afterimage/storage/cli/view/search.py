"""Read the text of the search box: conditions of the query language, or words to find."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import click

from afterimage.storage.cli.options import field_of_filter, parse_filter, parse_order
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.query.arguments import Filters

__all__ = ["FIELDS", "filters_of", "order_of"]

FIELDS: Final = {
    "conversations": (
        "messages.content",
        "messages.role",
        "messages.name",
        "messages.reasoning_content",
        "persona",
        "instruction_context",
        "response_context",
        "final_score",
        "evaluation.overall_grade",
        "message_count",
        "character_count",
        "first_role",
        "last_role",
        "content_hash",
    ),
    "documents": ("text", "id", "character_count", "content_hash"),
}
"""The fields that the search box completes, besides those of the metadata."""

_WORDS_IN: Final = {"conversations": "messages.content", "documents": "text"}
# Words between conditions. A quoted text and a list are part of a condition.
_PARTS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|\s+(?P<word>and|or)\s+|.', re.I | re.S)


def filters_of(text: str, kind: str, values: Sequence[tuple[str, Any]] = ()) -> Filters:
    """Return the filters of the text of the search box.

    Args:
        text: conditions with `and` and `or` between them, where `and` binds more tightly; or other
            text, which is searched in the contents.
        kind: "conversations" or "documents".
        values: fields with the values that menus have chosen.

    Raises:
        InvalidQueryError: a condition cannot be read.

    >>> filters_of("night train", "conversations", [("metadata.domain", "Trains")])
    [[('metadata.domain', '==', 'Trains'), ('messages.content', 'icontains', 'night train')]]
    >>> filters_of("final_score >= 0.8 or metadata.n=1 and last_role=user", "conversations")
    [[('final_score', '>=', 0.8)], [('metadata.n', '=', 1), ('last_role', '=', 'user')]]
    """
    chosen = [(field, "==", value) for field, value in values]
    text = text.strip()
    if not text:
        return [chosen] if chosen else None
    groups = _groups(text)
    if not _is_condition(groups[0][0], kind):
        return [[*chosen, (_WORDS_IN[kind], "icontains", text)]]
    try:
        return [[*chosen, *map(parse_filter, group)] for group in groups]
    except click.BadParameter as error:
        raise InvalidQueryError(error.message) from None


def order_of(text: str) -> list[tuple[str, str]]:
    """Return the sort key of a menu.

    >>> order_of("final_score:desc"), order_of("")
    ([('final_score', 'desc')], [])
    """
    return [parse_order(text)] if text else []


def _groups(text: str) -> list[list[str]]:
    groups = [[""]]
    for part in _PARTS.finditer(text):
        word = (part["word"] or "").lower()
        if word == "and":
            groups[-1].append("")
        elif word == "or":
            groups.append([""])
        else:
            groups[-1][-1] += part[0]
    return groups


def _is_condition(text: str, kind: str) -> bool:
    """Return whether a text begins with a field and has an operator."""
    field = field_of_filter(text)
    if field is None:
        return False
    known = {*FIELDS[kind], "metadata", "id", "timestamp", "evaluation", "extra"}
    return field in known or field.partition(".")[0] in {"metadata", "messages", "evaluation"}
