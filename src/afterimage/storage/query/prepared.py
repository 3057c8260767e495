"""Keep the SQL text of queries, so that the same query is not built and compiled again.

Building and compiling takes a third of the time of a small page. A text is kept as long as the
table that it reads, so a table with other columns gets new texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from afterimage.storage.engine.statements import Prepared, compiled
from afterimage.storage.query.query import Query
from afterimage.storage.records.paths import FieldRef

__all__ = ["prepared"]

# Texts that are kept for a table, and the length of the longest key.
_MOST_TEXTS: Final = 64
_LONGEST_KEY: Final = 4000

_kept: WeakKeyDictionary[sa.FromClause, dict[str, Prepared]] = WeakKeyDictionary()


def prepared(
    connection: sa.Connection,
    table: sa.FromClause,
    use: str,
    query: Query,
    build: Callable[[Query], sa.Select[Any]],
) -> Prepared:
    """Return the SQL text of a query with its values.

    Args:
        connection: has the dialect of the text.
        table: the table that the statement reads.
        use: tells the statements apart that are built from the same query.
        query: the query.
        build: returns the statement of a query without its slice, which is added here.
    """
    whole = replace(query, limit=None, offset=0)
    key = _key(use, whole)
    texts = _kept.setdefault(table, {})
    found = texts.get(key) if key else None
    if found is None:
        found = compiled(connection, build(whole))
        if key:
            if len(texts) >= _MOST_TEXTS:
                texts.clear()
            texts[key] = found
    # Both are checked integers.
    limit = "" if query.limit is None else f" LIMIT {query.limit:d}"
    offset = f" OFFSET {query.offset:d}" if query.offset else ""
    return found._replace(text=f"{found.text}{limit}{offset}")


def _key(use: str, query: Query) -> str | None:
    """Return what the statement of a query depends on; None if that is long.

    The text tells 1, 1.0 and True apart, for which the statements differ.
    """
    if query.only is not None or query.without:
        return None
    where = [[(_field(each.field), each.op, each.value) for each in group] for group in query.where]
    order = [(_field(key.field), key.descending, key.seed) for key in query.order]
    key = repr((use, where, order, query.shares, query.numbered))
    return key if len(key) <= _LONGEST_KEY else None


def _field(field: FieldRef) -> tuple[Any, ...]:
    kind = type(field.type).__name__
    return field.column, field.inner, field.keys, kind, field.of_message
