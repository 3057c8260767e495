"""Conditions and sorts in the engine, on JSON text and on columns that hold a metadata key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from afterimage.storage.engine.database import scratch_connection
from afterimage.storage.engine.statements import fetch_all
from afterimage.storage.query.predicates import filtered, in_order, sliced
from afterimage.storage.query.query import Query
from afterimage.storage.query.relations import RecordSource, Source, TableSource
from afterimage.storage.records.fields import CONVERSATIONS, Json

ABSENT = object()
ROWS: dict[str, Any] = {
    "absent": ABSENT,
    "null": None,
    "false": False,
    "true": True,
    "-1.5": -1.5,
    "3": 3,
    "3.0": 3.0,
    "2**53": 2**53,
    "2**53+1": 2**53 + 1,
    "text 3": "3",
    "text b": "b",
    "[3]": [3],
    '{"a":3}': {"a": 3},
}

MATCHES: list[tuple[str, Any, set[str]]] = [
    ("==", 3, {"3", "3.0"}),
    ("==", 3.0, {"3", "3.0"}),
    ("==", "3", {"text 3"}),
    ("==", True, {"true"}),
    ("==", None, {"absent", "null"}),
    ("==", 2**53, {"2**53"}),
    ("==", 2**53 + 1, {"2**53+1"}),
    ("==", [3.0], {"[3]"}),
    ("==", {"a": 3}, {'{"a":3}'}),
    ("==", {}, set()),
    ("<", 3, {"-1.5"}),
    ("<=", 3, {"-1.5", "3", "3.0"}),
    (">", 2**53, {"2**53+1"}),
    (">=", 2**53, {"2**53", "2**53+1"}),
    ("<", "b", {"text 3"}),
    (">", False, {"true"}),
    ("<", None, set()),
    ("<", [4], set()),
    ("in", [3, "b", None], {"3", "3.0", "text b", "absent", "null"}),
    ("in", [], set()),
]
NEGATIONS = {"==": "!=", "in": "not in"}


@pytest.fixture(scope="module", params=["JSON text", "columns"])
def relation(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[sa.Connection, sa.FromClause, Source, str]]:
    """A relation of `ROWS`, its source, and the field that holds the values."""
    table = sa.table("data", *map(sa.column, ("name", "line", "position", "n", "n_type")))
    with scratch_connection() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE data"
            " (name VARCHAR, line JSON, position BIGINT, n VARCHAR, n_type VARCHAR)"
        )
        for position, (name, value) in enumerate(ROWS.items()):
            row = {"metadata": {} if value is ABSENT else {"n": value}}
            connection.exec_driver_sql(
                "INSERT INTO data SELECT ?, ?, ?, value->>'$.metadata.n', CASE"
                " json_type(value, '$.metadata.n') WHEN 'VARCHAR' THEN 'string'"
                " WHEN 'BOOLEAN' THEN 'boolean' WHEN 'ARRAY' THEN 'array'"
                " WHEN 'OBJECT' THEN 'object' WHEN 'UBIGINT' THEN 'number'"
                " WHEN 'BIGINT' THEN 'number' WHEN 'DOUBLE' THEN 'number' END"
                " FROM (SELECT ?::JSON AS value)",
                (name, json.dumps(row), position, json.dumps(row)),
            )
        if request.param == "JSON text":
            yield connection, table, RecordSource(table.c.line, table.c.position), "metadata.n"
        else:
            columns = sa.select(
                table.c.name,
                table.c.position.label(CONVERSATIONS.sequence),
                sa.func.json_extract(table.c.line, "$.metadata").label("metadata"),
                table.c.n,
                table.c.n_type,
            ).subquery()
            source = TableSource(CONVERSATIONS, columns, {"n": ("n", "n_type")})
            yield connection, columns, source, "metadata.n"


def names(relation: Any, **query: Any) -> list[str]:
    connection, table, source, _ = relation
    checked = Query.of({"metadata": Json()}, **query)
    statement = in_order(source, checked, [table.c.name], table)
    return [name for [name] in fetch_all(connection, sliced(statement, checked))]


@pytest.mark.parametrize(("op", "value", "expected"), MATCHES)
def test_a_condition_matches_exactly_these_values(
    relation: Any, op: str, value: Any, expected: set[str]
) -> None:
    field = relation[-1]
    assert set(names(relation, filters=[(field, op, value)])) == expected
    if op in NEGATIONS:
        others = set(names(relation, filters=[(field, NEGATIONS[op], value)]))
        assert others == set(ROWS) - expected


def test_groups_are_ored_and_their_conditions_anded(relation: Any) -> None:
    field = relation[-1]
    filters = [[(field, ">", 0), (field, "<", 4)], [(field, "==", "b")]]
    assert names(relation, filters=filters) == ["3", "3.0", "text b"]


def test_a_sort_is_by_type_then_by_value_then_by_insertion_and_null_is_last(relation: Any) -> None:
    field = relation[-1]
    values = ["false", "true", "-1.5", "3", "3.0", "2**53", "2**53+1", "text 3", "text b"]
    values += ["[3]", '{"a":3}']
    nulls = ["absent", "null"]
    assert names(relation, order_by=[(field, 1)]) == values + nulls
    backwards = ['{"a":3}', "[3]", "text b", "text 3", "2**53+1", "2**53", "3", "3.0", "-1.5"]
    assert names(relation, order_by=[(field, -1)]) == [*backwards, "true", "false", *nulls]


def test_a_slice_is_taken_after_the_sort(relation: Any) -> None:
    field = relation[-1]
    assert names(relation, order_by=[(field, 1)], limit=2, offset=1) == ["true", "-1.5"]


def test_values_never_become_part_of_the_statement(relation: Any) -> None:
    _, table, source, field = relation
    hostile = "'; DROP TABLE data; --"
    query = Query.of({"metadata": Json()}, filters={field: hostile, 'metadata."x\'y"': hostile})
    statement = filtered(sa.select(table.c.name), source, query)
    assert hostile not in str(statement)
