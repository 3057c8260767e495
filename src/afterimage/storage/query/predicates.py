"""Compile a `Query` to SQLAlchemy expressions for DuckDB. All values are bound parameters.

Every storage uses this module. The invariants:

- A condition is true or not true. `!=` and every `not …` are exact negations.
- The conditions of a group on fields of messages hold for one and the same message. A negated one
  is about all messages, as the negation of the same condition alone.
- Values of different types are unequal, and none is less or greater than the other.
- Numbers are compared exactly, even if a double would round them (2**53 + 1 is not 2.0**53).
- A sort is total. It orders by type (booleans, numbers, strings, arrays, objects), then by value,
  then by insertion order. Null and absent values are last in both directions.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from afterimage.storage.engine.dialect import SqlType, any_item
from afterimage.storage.engine.statements import fetch_all
from afterimage.storage.query.choosing import group_of, is_in_share, key_of
from afterimage.storage.query.json_values import JsonPath, JsonValue, TypedText
from afterimage.storage.query.prepared import prepared
from afterimage.storage.query.query import Condition, Query, SortKey
from afterimage.storage.query.relations import Relation, Source, Values
from afterimage.storage.records.fields import Double, Integer, List, Text, Timestamp
from afterimage.storage.records.paths import FieldRef

__all__ = [
    "chosen_numbers",
    "count_rows",
    "filtered",
    "in_order",
    "order_of_values",
    "select_list",
    "sliced",
    "sort_keys",
]

# A double represents every integer below this exactly, so comparing doubles is exact.
_EXACT = 2**53
_BIGNUM = SqlType("BIGNUM")

Predicate = sa.ColumnElement[bool]


def filtered(statement: sa.Select[Any], source: Source, query: Query) -> sa.Select[Any]:
    """Add the query's filters to `statement`."""
    groups = [_group(source, group) for group in query.where]
    if query.numbered:
        statement = statement.where(source.sequence.is_not(None))
    if query.without:
        # DuckDB builds a hash table for a subquery. It would search a list again for each row.
        excluded = sa.func.unnest(_bound_list(list(query.without), "BIGINT[]"))
        statement = statement.where(source.sequence.not_in(sa.select(excluded)))
    if query.only is not None:
        chosen = sa.func.unnest(_bound_list(list(query.only), "BIGINT[]"))
        statement = statement.where(source.sequence.in_(sa.select(chosen)))
    for share in query.shares:
        statement = statement.where(is_in_share(source, share))
    return statement.where(sa.or_(*groups)) if groups else statement


def sliced(statement: sa.Select[Any], query: Query) -> sa.Select[Any]:
    """Add the query's limit and offset to `statement`."""
    return statement.limit(query.limit).offset(query.offset or None)


def in_order(
    source: Source,
    query: Query,
    columns: Iterable[sa.ColumnElement[Any]],
    table: sa.FromClause,
    *last_keys: sa.ColumnElement[Any],
) -> sa.Select[Any]:
    """Select columns of the matching records, in the query's order; ties by sequence number.

    Ties of sequence numbers are in the order of `last_keys`.

    A subquery extracts the value of each sort key from the record once. Its type, number and text
    are then computed from that value instead of the whole record.
    """
    chosen = [column.label(f"column_{index}") for index, column in enumerate(columns)]
    inputs = [
        part.label(f"key_{index}_{part_index}")
        for index, key in enumerate(query.order)
        for part_index, part in enumerate(_sort_inputs(source, key))
    ]
    last = [key.label(f"last_{index}") for index, key in enumerate(last_keys)]
    records = sa.select(source.sequence.label("sequence"), *chosen, *inputs, *last)
    records = records.select_from(table)
    matching = filtered(records, source, query).subquery()
    ordered: list[sa.ColumnElement[Any]] = []
    for index, key in enumerate(query.order):
        count = len(_sort_inputs(source, key))
        parts = [matching.c[f"key_{index}_{part_index}"] for part_index in range(count)]
        for expression in _sort_expressions(key.field, parts):
            directed = expression.desc() if key.descending else expression.asc()
            ordered.append(directed.nulls_last())
    statement = sa.select(*(matching.c[column.name] for column in chosen))
    ties = [matching.c.sequence, *(matching.c[key.name] for key in last)]
    return statement.order_by(*ordered, *(tie.asc() for tie in ties))


def sort_keys(source: Source, query: Query) -> list[sa.ColumnElement[Any]]:
    """Return the expressions of the query's order, without the sequence number."""
    return [
        (expression.desc() if key.descending else expression.asc()).nulls_last()
        for key in query.order
        for expression in _sort_expressions(key.field, _sort_inputs(source, key))
    ]


def count_rows(relation: Relation) -> int:
    """Return the number of records that match the relation's query."""
    connection, table, source, query = relation
    count = sa.select(sa.func.count()).select_from(table)
    statement = prepared(
        connection,
        table,
        "count",
        query.without_slice(),
        lambda whole: filtered(count, source, whole),
    )
    return int(fetch_all(connection, statement)[0][0])


def chosen_numbers(relation: Relation, query: Query) -> tuple[int, ...]:
    """Return the sequence numbers of the records that `distinct` and `sample` leave, ascending.

    Records with equal keys are taken in insertion order.

    Args:
        relation: the records that match the filters of the query.
        query: says what to choose.
    """
    connection, table, source, matching = relation
    columns: list[sa.ColumnElement[Any]] = [source.sequence.label("sequence")]
    if query.distinct is not None:
        columns.append(group_of(source, query.distinct).label("value"))
    if query.sample is not None:
        columns.append(key_of("sample", query.sample.seed, source.identity).label("key"))
    records = filtered(sa.select(*columns).select_from(table), source, matching).subquery()
    if query.distinct is not None:
        value, sequence = records.c.value, records.c.sequence
        place = sa.func.row_number().over(partition_by=value, order_by=sequence).label("place")
        placed = sa.select(records, place).subquery()
        # A record without a value has no equal.
        first = sa.or_(placed.c.value.is_(None), placed.c.place == 1)
        records = sa.select(placed).where(first).subquery()
    chosen = sa.select(records.c.sequence)
    if query.sample is not None:
        chosen = chosen.order_by(records.c.key, records.c.sequence).limit(query.sample.count)
    return tuple(sorted(number for (number,) in fetch_all(connection, chosen)))


def select_list(source: Source, columns: Iterable[FieldRef]) -> list[sa.ColumnElement[Any]]:
    """Return the expressions of a projection, each labelled with its path."""
    return [_projected(source, field).label(field.path) for field in columns]


def _projected(source: Source, field: FieldRef) -> sa.ColumnElement[Any]:
    if not field.keys:
        return source.value(field)
    value = source.json(field)
    return sa.cast(value.json, sa.VARCHAR) if field.as_json else value.text


def _group(source: Source, group: Iterable[Condition]) -> Predicate:
    """Return whether all conditions of a group hold."""
    shared = [each for each in group if each.field.of_message and not each.is_negated]
    predicates = [_condition(source, each) for each in group if each not in shared]
    if shared:
        predicates.append(_some_message(source, shared))
    return sa.and_(*predicates)


def _some_message(source: Source, conditions: Sequence[Condition]) -> Predicate:
    """Return whether some message meets all the conditions, each without its negation."""
    return source.any_message(
        [condition.field for condition in conditions],
        lambda message: sa.and_(*(_positive(message, condition) for condition in conditions)),
    )


def _condition(source: Source, condition: Condition) -> Predicate:
    if condition.field.of_message:
        predicate = _some_message(source, [condition])
    else:
        predicate = _positive(source, condition)
    # NULL is "not true": every record matches exactly one of a filter and its negation.
    return sa.not_(sa.func.coalesce(predicate, sa.false())) if condition.is_negated else predicate


def _positive(values: Values, condition: Condition) -> Predicate:
    """Return whether a condition holds, without its negation; may be NULL if it does not."""
    field, value = condition.field, condition.value
    match condition.positive:
        case "==":
            return _equals(values, field, value)
        case "in":
            return _is_in(values, field, value)
        case "has":
            items, item = values.json(field).items, JsonPath(sa.literal_column("item"))
            is_list = (
                sa.true() if isinstance(field.type, List) else values.json(field).is_a("array")
            )
            return sa.and_(is_list, any_item(items, "item", _json_equals(item, value)))
        case "contains" | "icontains" | "startswith" | "matches":
            if isinstance(field.type, Text):
                return _TEXT_TESTS[condition.positive](values.value(field), value)
            stored = values.json(field)
            return sa.and_(
                stored.is_a("string"), _TEXT_TESTS[condition.positive](stored.text, value)
            )
        case op:
            return _is_ordered(values, field, op, value)


_TEXT_TESTS: dict[str, Callable[[Any, str], Predicate]] = {
    "contains": sa.func.contains,
    # "i" is RE2's case folding, and "l" takes the pattern as a text.
    "icontains": lambda text, part: sa.func.regexp_matches(text, part, sa.literal_column("'il'")),
    "startswith": sa.func.starts_with,
    "matches": sa.func.regexp_matches,
}


def _equals(source: Values, field: FieldRef, value: Any) -> Predicate:
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


def _is_in(source: Values, field: FieldRef, values: tuple[Any, ...]) -> Predicate:
    """Return whether a field equals any of the values.

    Strings and small numbers are passed as one list per type, all other values one by one.
    """
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
            stored = source.json(field)
            listed = [
                sa.and_(_in_list(stored.text, texts, "VARCHAR[]"), stored.is_a("string")),
                _in_list(stored.number, numbers, "DOUBLE[]"),
            ]
    single = [
        value
        for value in values
        if not isinstance(value, str) and not (_is_number(value) and abs(value) < _EXACT)
    ]
    if isinstance(field.type, Timestamp):
        single = list(values)
    return sa.or_(sa.false(), *listed, *(_equals(source, field, value) for value in single))


def _in_list(stored: sa.ColumnElement[Any], values: list[Any], sql_type: str) -> Predicate:
    return sa.func.list_contains(_bound_list(values, sql_type), stored)


def _bound_list(values: list[Any], sql_type: str) -> sa.ColumnElement[Any]:
    bound: sa.ColumnElement[Any] = sa.bindparam(None, values, type_=SqlType(sql_type))
    return sa.cast(bound, SqlType(sql_type))


def _is_ordered(source: Values, field: FieldRef, op: str, value: Any) -> Predicate:
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
    """Return the double nearest to a number; an infinity if the number is out of range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _double(value: float) -> sa.ColumnElement[float]:
    return sa.cast(sa.literal(_nearest(value), sa.Double), sa.Double)


def _compare_double(column: sa.ColumnElement[Any], op: str, value: Any) -> Predicate:
    """Compare a column of doubles exactly with any number."""
    if not _is_number(value):
        return sa.false()
    nearest = _nearest(value)
    if not (math.isnan(nearest) or nearest == value):
        # `value` lies between two doubles. A double is less than `value` if it is at most the
        # lower one.
        if op == "==":
            return sa.false()
        below = nearest < value
        op = {"<": "<=" if below else "<", "<=": "<=" if below else "<"}.get(op) or (
            ">" if below else ">="
        )
    compared = _ORDERINGS[op](column, _double(value))
    return compared  # type: ignore[no-any-return]


def _json_equals(stored: JsonValue, value: Any) -> Predicate:
    match value:
        case None:
            return stored.kind.is_(None)
        case bool():
            return sa.and_(stored.is_a("boolean"), stored.text == ("true" if value else "false"))
        case str():
            return sa.and_(stored.text == value, stored.is_a("string"))
        case int() | float():
            return _json_compare_number(stored, "==", value)
        case list():
            items = (_json_equals(stored.child(index), item) for index, item in enumerate(value))
            return sa.and_(stored.is_a("array"), stored.length == len(value), *items)
        case dict():
            return sa.and_(
                stored.is_a("object"),
                stored.key_count == len(value),
                *(_has_entry(stored.child(key), item) for key, item in value.items()),
            )
    raise AssertionError(f"not a JSON value: {value!r}")


def _has_entry(stored: JsonPath, value: Any) -> Predicate:
    """Return whether the key exists with that value. A null value differs from a missing key."""
    equal = _json_equals(stored, value)
    return sa.and_(stored.json.is_not(None), equal) if value is None else equal


def _json_is_ordered(stored: JsonValue, op: str, value: Any) -> Predicate:
    if isinstance(value, bool):
        flag = sa.case((stored.text == "true", 1), else_=0)
        return sa.and_(stored.is_a("boolean"), _ORDERINGS[op](flag, int(value)))
    if isinstance(value, str):
        return sa.and_(stored.is_a("string"), _ORDERINGS[op](stored.text, value))
    if _is_number(value):
        return _json_compare_number(stored, op, value)
    return sa.false()


def _json_compare_number(stored: JsonValue, op: str, value: float) -> Predicate:
    """Compare numbers exactly: by the nearest double, and if these are equal, as integers."""
    number, nearest = stored.number, _nearest(value)
    if not abs(value) >= _EXACT:  # also true for NaN
        return _ORDERINGS[op](number, _double(nearest))  # type: ignore[no-any-return]
    near = number == _double(nearest)
    if isinstance(value, float) and math.isinf(value):
        # Integers too large for a double have an infinite `number`, but are less than infinity.
        equal = sa.and_(near, _is_float(stored))
        less = sa.and_(near, sa.not_(_is_float(stored))) if value > 0 else sa.false()
        more = sa.and_(near, sa.not_(_is_float(stored))) if value < 0 else sa.false()
    else:
        integer = sa.cast(sa.literal(str(int(value)), sa.VARCHAR), _BIGNUM)
        equal = sa.and_(near, _integer(stored) == integer)
        less = sa.and_(near, _integer(stored) < integer)
        more = sa.and_(near, _integer(stored) > integer)
        if math.isinf(nearest):
            beyond = sa.and_(near, _is_float(stored))
            less, more = (less, sa.or_(more, beyond)) if value > 0 else (sa.or_(less, beyond), more)
    strictly = {
        "<": lambda: sa.or_(number < _double(nearest), less),
        ">": lambda: sa.or_(number > _double(nearest), more),
    }
    if op == "==":
        return equal
    return sa.or_(strictly[op[0]](), equal) if op.endswith("=") else strictly[op]()


def _is_float(stored: JsonValue) -> Predicate:
    """Return whether a number is written as a float. Such a text is not its exact value."""
    return sa.func.regexp_matches(stored.text, "[^0-9-]")


def _integer(stored: JsonValue) -> sa.ColumnElement[Any]:
    """Return the exact integer of a number of at least 2**53; NULL for infinities and NaN."""
    # Cast only digits: DuckDB 1.5.4 raises an error for an empty text even in TRY_CAST.
    return sa.case(
        (_is_float(stored), sa.try_cast(stored.number, _BIGNUM)),
        (sa.func.regexp_matches(stored.text, "^-?[0-9]+$"), sa.try_cast(stored.text, _BIGNUM)),
    )


def _sort_inputs(source: Source, key: SortKey) -> list[sa.ColumnElement[Any]]:
    """Return the values of a record that a sort key is computed from."""
    field = key.field
    if key.seed is not None:
        return [key_of("shuffle", key.seed, source.identity)]
    if isinstance(field.type, Text | Double | Integer | Timestamp):
        return [source.value(field)]
    stored = source.json(field)
    return [stored.json] if isinstance(stored, JsonPath) else [stored.text, stored.kind]


def _sort_expressions(
    field: FieldRef, parts: Sequence[sa.ColumnElement[Any]]
) -> Sequence[sa.ColumnElement[Any]]:
    """Return the sort keys of a field, computed from its `_sort_inputs`."""
    if isinstance(field.type, Text | Double | Integer | Timestamp):
        return parts
    return order_of_values(TypedText(parts[0], parts[1]) if len(parts) == 2 else JsonPath(parts[0]))


def order_of_values(value: JsonValue) -> list[sa.ColumnElement[Any]]:
    """Return the sort keys of JSON values. Two values have equal keys only if they are equal.

    Lists and objects are compared by their JSON text.
    """
    kind, number = value.kind, value.number
    rank = sa.case(
        *((kind == name, rank) for rank, name in enumerate(_RANKS)),
        else_=sa.null(),
    )
    flag = sa.case((kind == "boolean", sa.case((value.text == "true", 1.0), else_=0.0)))
    size = sa.func.abs(number)
    infinite = sa.case((size == math.inf, sa.case((_is_float(value), number), else_=0.0)))
    exact = sa.case((size >= float(_EXACT), _integer(value)))
    text = sa.case((kind.in_(["string", "array", "object"]), value.text))
    return [rank, sa.func.coalesce(flag, number), infinite, exact, text]


_RANKS = ("boolean", "number", "string", "array", "object")
