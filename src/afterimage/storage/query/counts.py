"""How many records match a query, by one statement, wherever they are."""

from __future__ import annotations

import sqlalchemy as sa

from afterimage.storage.engine.database import fetch_all
from afterimage.storage.query.predicates import Source, filtered
from afterimage.storage.query.query import Query

__all__ = ["counted"]


def counted(
    connection: sa.Connection, relation: sa.FromClause, source: Source, query: Query
) -> int:
    """How many rows of a relation match; `source` is where the fields are in it."""
    statement = filtered(sa.select(sa.func.count()).select_from(relation), source, query)
    return int(fetch_all(connection, statement)[0][0])
