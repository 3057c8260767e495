"""A `Query` as SQLAlchemy expressions for DuckDB: values travel as bound parameters only.

The invariants, the same over every storage, as both compile through this module:

- a condition is true or not true; `!=` and `not in` are exactly the negation of `==` and `in`;
- a value of another type is unequal to, and neither less nor greater than, any other;
- numbers compare exactly, also where a double would round (2**53 + 1 is not 2.0**53);
- a sort is total: by type (booleans, numbers, strings, arrays, objects), then by value, null and
  absent last in either direction, then by insertion order.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from afterimage.storage.engine.dialect import SqlType
from afterimage.storage.engine.statements import fetch_all
from afterimage.storage.query.json_values import JsonPath, JsonValue, TypedText
from afterimage.storage.query.query import Condition, Query
from afterimage.storage.query.relations import Relation, Source
from afterimage.storage.records.fields import Double, Integer, Text, Timestamp
from afterimage.storage.records.paths import FieldRef

__all__ = ["count_rows", "filtered", "in_order", "order_of_values", "select_list", "sliced"]

# Below this, every integer is a double of its own, so that comparing doubles is exact.
_EXACT = 2**53
_BIGNUM = SqlType("BIGNUM")

Predicate = sa.ColumnElement[bool]


def filtered(statement: sa.Select[Any], source: Source, query: Query) -> sa.Select[Any]:
    """Add the query's filters to `statement`."""
    groups = [
        sa.and_(*(_condition(source, condition) for condition in group)) for group in query.where
    ]
    if query.without:
        # DuckDB hashes a subquery; a list would be searched again for each row.
        left_out = sa.func.unnest(_bound_list(list(query.without), "BIGINT[]"))
        statement = statement.where(source.sequence.not_in(sa.select(left_out)))
    return statement.where(sa.or_(*groups)) if groups else statement


def sliced(statement: sa.Select[Any], query: Query) -> sa.Select[Any]:
    """Add the query's limit and offset to `statement`."""
    return statement.limit(query.limit).offset(query.offset or None)


def in_order(
    source: Source, query: Query, columns: Iterable[sa.ColumnElement[Any]], table: sa.FromClause
) -> sa.Select[Any]:
    """Columns of the matching records of a table, in the query's order; sequence settles ties.

    What a key is made of is taken out of JSON once, in a subquery; its type, number and text are
    then found in that, not each in the whole record again.
    """
    chosen = [column.label(f"column_{at}") for at, column in enumerate(columns)]
    inputs = [
        part.label(f"key_{at}_{of}")
        for at, key in enumerate(query.order)
        for of, part in enumerate(_sort_inputs(source, key.field))
    ]
    matching = sa.select(source.sequence.label("sequence"), *chosen, *inputs).select_from(table)
    found = filtered(matching, source, query).subquery()
    ordered: list[sa.ColumnElement[Any]] = []
    for at, key in enumerate(query.order):
        parts = [found.c[f"key_{at}_{of}"] for of in range(len(_sort_inputs(source, key.field)))]
        for expression in _sort_expressions(key.field, parts):
            directed = expression.desc() if key.descending else expression.asc()
            ordered.append(directed.nulls_last())
    statement = sa.select(*(found.c[column.name] for column in chosen))
    return statement.order_by(*ordered, found.c.sequence.asc())


def count_rows(relation: Relation) -> int:
    """The number of records that match the relation's query."""
    connection, table, source, query = relation
    statement = filtered(sa.select(sa.func.count()).select_from(table), source, query)
    return int(fetch_all(connection, statement)[0][0])


def select_list(source: Source, columns: Iterable[FieldRef]) -> list[sa.ColumnElement[Any]]:
    """The projection, each column under the path it was asked for by."""
    return [
        (source.json(field).text if field.keys else source.value(field)).label(field.path)
        for field in columns
    ]


def _condition(source: Source, condition: Condition) -> Predicate:
    field, op, value = condition.field, condition.op, condition.value
    if op in ("==", "!="):
        found = _equals(source, field, value)
    elif op in ("in", "not in"):
        found = _is_in(source, field, value)
    else:
        found = _is_ordered(source, field, op, value)
    # NULL counts as "not true", so that a filter and its negation split the records in two.
    return sa.not_(sa.func.coalesce(found, sa.false())) if op in ("!=", "not in") else found


def _equals(source: Source, field: FieldRef, value: Any) -> Predicate:
    match field.type:
        case Text():
            if value is None:
                return source.value(field).is_(None)
            return source.value(field) == value if isinstance(value, str) else sa.false()
        case Timestamp():
            column = source.value(field)
            if value is None:
                return column.is_(None)
            return column == value if isinstance(value, dt.datetime) else sa.false()
        case Double() | Integer():
            if value is None:
                return source.value(field).is_(None)
            return _compare_double(source.value(field), "==", value)
        case _:
            return _json_equals(source.json(field), value)


def _is_in(source: Source, field: FieldRef, values: tuple[Any, ...]) -> Predicate:
    """Equal to any of the values; those of a kind that a column holds go as one list."""
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if _is_number(value) and abs(value) < _EXACT]
    listed: list[Predicate] = []
    match field.type:
        case Text():
            listed = [_in_list(source.value(field), texts, "VARCHAR[]")]
        case Double() | Integer():
            listed = [_in_list(source.value(field), numbers, "DOUBLE[]")]
        case Timestamp():
            texts, numbers = [], []
        case _:
            found = source.json(field)
            listed = [
                sa.and_(_in_list(found.text, texts, "VARCHAR[]"), found.is_a("string")),
                _in_list(found.number, numbers, "DOUBLE[]"),
            ]
    single = [
        value
        for value in values
        if not isinstance(value, str) and not (_is_number(value) and abs(value) < _EXACT)
    ]
    if isinstance(field.type, Timestamp):
        single = list(values)
    return sa.or_(sa.false(), *listed, *(_equals(source, field, value) for value in single))


def _in_list(found: sa.ColumnElement[Any], values: list[Any], sql_type: str) -> Predicate:
    return sa.func.list_contains(_bound_list(values, sql_type), found)


def _bound_list(values: list[Any], sql_type: str) -> sa.ColumnElement[Any]:
    bound: sa.ColumnElement[Any] = sa.bindparam(None, values, type_=SqlType(sql_type))
    return sa.cast(bound, SqlType(sql_type))


def _is_ordered(source: Source, field: FieldRef, op: str, value: Any) -> Predicate:
    match field.type:
        case Text():
            same_type = isinstance(value, str)
            return _ORDERINGS[op](source.value(field), value) if same_type else sa.false()
        case Timestamp():
            is_time = isinstance(value, dt.datetime)
            return _ORDERINGS[op](source.value(field), value) if is_time else sa.false()
        case Double() | Integer():
            return _compare_double(source.value(field), op, value)
        case _:
            return _json_is_ordered(source.json(field), op, value)


_ORDERINGS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nearest(value: float) -> float:
    """The double nearest to a number, infinite where none is near."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _double(value: float) -> sa.ColumnElement[float]:
    return sa.cast(sa.literal(_nearest(value), sa.Double), sa.Double)


def _compare_double(column: sa.ColumnElement[Any], op: str, value: Any) -> Predicate:
    """Compare a column of doubles, each exact, with any number."""
    if not _is_number(value):
        return sa.false()
    nearest = _nearest(value)
    if not (math.isnan(nearest) or nearest == value):
        # An integer between two doubles: what is at most the lower one is below it.
        if op == "==":
            return sa.false()
        below = nearest < value
        op = {"<": "<=" if below else "<", "<=": "<=" if below else "<"}.get(op) or (
            ">" if below else ">="
        )
    compared = _ORDERINGS[op](column, _double(value))
    return compared  # type: ignore[no-any-return]


def _json_equals(found: JsonValue, value: Any) -> Predicate:
    match value:
        case None:
            return found.kind.is_(None)
        case bool():
            return sa.and_(found.is_a("boolean"), found.text == ("true" if value else "false"))
        case str():
            return sa.and_(found.text == value, found.is_a("string"))
        case int() | float():
            return _json_compare_number(found, "==", value)
        case list():
            items = (_json_equals(found.child(at), item) for at, item in enumerate(value))
            return sa.and_(found.is_a("array"), found.length == len(value), *items)
        case dict():
            return sa.and_(
                found.is_a("object"),
                found.key_count == len(value),
                *(_has_entry(found.child(key), item) for key, item in value.items()),
            )
    raise AssertionError(f"not a JSON value: {value!r}")


def _has_entry(found: JsonPath, value: Any) -> Predicate:
    """The key is there and holds the value; null under a key is not the same as no key."""
    equal = _json_equals(found, value)
    return sa.and_(found.json.is_not(None), equal) if value is None else equal


def _json_is_ordered(found: JsonValue, op: str, value: Any) -> Predicate:
    if isinstance(value, bool):
        flag = sa.case((found.text == "true", 1), else_=0)
        return sa.and_(found.is_a("boolean"), _ORDERINGS[op](flag, int(value)))
    if isinstance(value, str):
        return sa.and_(found.is_a("string"), _ORDERINGS[op](found.text, value))
    if _is_number(value):
        return _json_compare_number(found, op, value)
    return sa.false()


def _json_compare_number(found: JsonValue, op: str, value: float) -> Predicate:
    """Compare exactly: by the nearest double, and where that is the same, by the integer."""
    number, nearest = found.number, _nearest(value)
    if not abs(value) >= _EXACT:  # NaN takes this way too
        return _ORDERINGS[op](number, _double(nearest))  # type: ignore[no-any-return]
    near = number == _double(nearest)
    if isinstance(value, float) and math.isinf(value):
        # Among integers too large for a double, an infinity is beyond them all.
        equal = sa.and_(near, _is_float(found))
        less = sa.and_(near, sa.not_(_is_float(found))) if value > 0 else sa.false()
        more = sa.and_(near, sa.not_(_is_float(found))) if value < 0 else sa.false()
    else:
        integer = sa.cast(sa.literal(str(int(value)), sa.VARCHAR), _BIGNUM)
        equal = sa.and_(near, _integer(found) == integer)
        less = sa.and_(near, _integer(found) < integer)
        more = sa.and_(near, _integer(found) > integer)
        if math.isinf(nearest):
            beyond = sa.and_(near, _is_float(found))
            less, more = (less, sa.or_(more, beyond)) if value > 0 else (sa.or_(less, beyond), more)
    strictly = {
        "<": lambda: sa.or_(number < _double(nearest), less),
        ">": lambda: sa.or_(number > _double(nearest), more),
    }
    if op == "==":
        return equal
    return sa.or_(strictly[op[0]](), equal) if op.endswith("=") else strictly[op]()


def _is_float(found: JsonValue) -> Predicate:
    """Whether a number is written as a float, whose shortest text is not all of its digits."""
    return sa.func.regexp_matches(found.text, "[^0-9-]")


def _integer(found: JsonValue) -> sa.ColumnElement[Any]:
    """The exact integer of a number of at least 2**53; NULL for an infinity and for NaN."""
    # Only digits are cast: on an empty text, DuckDB 1.5.4 fails even in TRY_CAST.
    return sa.case(
        (_is_float(found), sa.try_cast(found.number, _BIGNUM)),
        (sa.func.regexp_matches(found.text, "^-?[0-9]+$"), sa.try_cast(found.text, _BIGNUM)),
    )


def _sort_inputs(source: Source, field: FieldRef) -> list[sa.ColumnElement[Any]]:
    """What the sort by a field needs of a record."""
    if isinstance(field.type, Text | Double | Integer | Timestamp):
        return [source.value(field)]
    found = source.json(field)
    return [found.json] if isinstance(found, JsonPath) else [found.text, found.kind]


def _sort_expressions(
    field: FieldRef, parts: Sequence[sa.ColumnElement[Any]]
) -> Sequence[sa.ColumnElement[Any]]:
    """The sort keys of a field, made of its `_sort_inputs`."""
    if isinstance(field.type, Text | Double | Integer | Timestamp):
        return parts
    return order_of_values(TypedText(parts[0], parts[1]) if len(parts) == 2 else JsonPath(parts[0]))


def order_of_values(found: JsonValue) -> list[sa.ColumnElement[Any]]:
    """Expressions that sort values one after the other, and are alike only for equal values.

    Lists and objects are told apart by their JSON text.
    """
    kind, number = found.kind, found.number
    rank = sa.case(
        *((kind == name, rank) for rank, name in enumerate(_RANKS)),
        else_=sa.null(),
    )
    flag = sa.case((kind == "boolean", sa.case((found.text == "true", 1.0), else_=0.0)))
    size = sa.func.abs(number)
    infinite = sa.case((size == math.inf, sa.case((_is_float(found), number), else_=0.0)))
    exact = sa.case((size >= float(_EXACT), _integer(found)))
    text = sa.case((kind.in_(["string", "array", "object"]), found.text))
    return [rank, sa.func.coalesce(flag, number), infinite, exact, text]


_RANKS = ("boolean", "number", "string", "array", "object")
