"""The SQL of a query as text, for people to read, change and run."""

from __future__ import annotations

from math import isfinite
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from afterimage.storage.query.predicates import filtered, sliced, sort_expressions, sort_inputs
from afterimage.storage.query.relations import Relation

__all__ = ["sql_text"]


def sql_text(relation: Relation) -> str:
    """Return the statement of the query of a relation, with its values in the text."""
    connection, table, source, query = relation
    statement = filtered(sa.select(sa.text("*")).select_from(table), source, query)
    order: list[sa.ColumnElement[object]] = []
    for key in query.order:
        parts = sort_expressions(key.field, sort_inputs(source, key))
        order += [(each.desc() if key.descending else each.asc()).nulls_last() for each in parts]
    statement = sliced(statement.order_by(*order, source.sequence), query)
    written: Any = visitors.replacement_traverse(statement, {}, _written)
    made = written.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    return str(made)


def _written(element: Any, **_: Any) -> sa.ColumnElement[Any] | None:
    """Return an infinity or NaN as SQL; None for everything else, which stays."""
    value = getattr(element, "value", None)
    if isinstance(element, sa.BindParameter) and isinstance(value, float) and not isfinite(value):
        return sa.literal_column(f"'{value}'::DOUBLE")
    return None
