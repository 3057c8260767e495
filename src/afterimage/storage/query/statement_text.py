"""A query as the text of an SQL statement, for users who go on in SQL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from afterimage.storage.engine.users.literals import literal_text
from afterimage.storage.query.predicates import filtered, sliced, sort_keys
from afterimage.storage.query.query import Query
from afterimage.storage.query.relations import Source

__all__ = ["statement_text"]


def statement_text(table: sa.FromClause, source: Source, query: Query) -> str:
    """Return the statement that selects the records of a query, with its values in it.

    Args:
        table: the table of the records.
        source: its fields.
        query: the query; `distinct` and `sample` are not in the statement.
    """
    statement: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(table)
    statement = filtered(statement, source, query)
    statement = statement.order_by(*sort_keys(source, query), source.sequence.asc())
    return literal_text(sliced(statement, query))
