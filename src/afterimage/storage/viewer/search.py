"""What is typed into the search box, as filters of a read.

The text has conditions `FIELD OP VALUE`, joined by `AND` and `OR`; `AND` binds more tightly. A part
that is no condition is searched in the messages, or in the text of documents. So is a part in
double quotes, whatever is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.records.fields import DOCUMENTS, RecordKind

__all__ = ["Condition", "filters_of"]

Condition = tuple[str, str, Any]

_LONGEST: Final = 10_000
# Text in quotes, a list, a word that joins conditions, or one other character.
_PART: Final = re.compile(r'"(?:[^"\\]|\\.|"")*"|\[[^\]]*\]|(?<=\s)(AND|OR)(?=\s)|.', re.DOTALL)
_QUOTED: Final = re.compile(r'"((?:[^"]|"")*)"', re.DOTALL)


def filters_of(
    text: str, kind: RecordKind, parse: Callable[[str], Condition]
) -> list[list[Condition]]:
    """Return the groups of conditions of a search; a record must match one of the groups.

    Args:
        text: what was typed.
        kind: the kind of the records.
        parse: returns the condition of a text `FIELD OP VALUE`.

    Raises:
        InvalidQueryError: a part between `AND` and `OR` is empty, or the text is too long.

    >>> def parse(text):
    ...     field, sign, value = text.partition(" = ")
    ...     if not sign:
    ...         raise InvalidQueryError("no condition")
    ...     return field, "=", value
    >>> for group in filters_of('id = d1 AND night train OR "a = b"', DOCUMENTS, parse):
    ...     print(group)
    [('id', '=', 'd1'), ('text', 'icontains', 'night train')]
    [('text', 'icontains', 'a = b')]
    """
    if len(text) > _LONGEST:
        raise InvalidQueryError(f"the search has more than {_LONGEST:,} characters")
    if not text.strip():
        return []
    groups: list[list[Condition]] = [[]]
    for part, joint in _parts(text):
        if not part.strip():
            raise InvalidQueryError("a condition is missing before or after AND or OR")
        groups[-1].append(_condition(part.strip(), kind, parse))
        if joint == "OR":
            groups.append([])
    return groups


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the parts between `AND` and `OR`, each with the word after it."""
    part = ""
    for found in _PART.finditer(text):
        if found[1]:
            yield part, found[1]
            part = ""
        else:
            part += found[0]
    yield part, None


def _condition(text: str, kind: RecordKind, parse: Callable[[str], Condition]) -> Condition:
    field = "text" if kind is DOCUMENTS else "messages.content"
    quoted = _QUOTED.fullmatch(text)
    if quoted is not None:
        return field, "icontains", quoted[1].replace('""', '"')
    try:
        condition = parse(text)
    except InvalidQueryError:
        return field, "icontains", text
    name = condition[0].split('"')[0].strip()
    # A sentence with a sign in it, such as "is a < b", names no field.
    return (field, "icontains", text) if any(map(str.isspace, name)) else condition
