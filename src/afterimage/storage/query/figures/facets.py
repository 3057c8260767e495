"""Count the values of fields that have few: metadata keys, roles and grades.

One statement reads the records once, because a stream of JSON lines cannot be read again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from afterimage.storage.engine.statements import fetch_all
from afterimage.storage.query.json_values import JsonPath
from afterimage.storage.query.predicates import filtered
from afterimage.storage.query.relations import Relation
from afterimage.storage.records.fields import DOCUMENTS, RecordKind
from afterimage.storage.records.paths import render, resolve

__all__ = ["count_values"]

# A value with more characters is not for a menu.
_LONGEST: Final = 60
_MOST_KEYS: Final = 1000

_OF_METADATA: Final = f"""
    list_transform(
        list_zip(json_keys(metadata), json_extract(metadata, '$.*')),
        lambda p: ['metadata', p[1], CASE
            WHEN json_type(p[2]) IN ('VARCHAR', 'BOOLEAN', 'BIGINT', 'UBIGINT')
                AND strlen(CAST(p[2] AS VARCHAR)) <= {_LONGEST}
            THEN CAST(p[2] AS VARCHAR)
        END]
    )"""
_OF_MESSAGES: Final = """
    list_transform(
        list_distinct(list_transform(messages, lambda m: m.role)),
        lambda r: ['role', '', CAST(to_json(r) AS VARCHAR)]
    )"""
_OF_EVALUATION: Final = """
    CASE WHEN evaluation IS NULL THEN CAST([] AS VARCHAR[][])
    ELSE [['grade', '', CAST(to_json(evaluation.overall_grade) AS VARCHAR)]] END"""
_FIXED: Final = {"role": "messages.role", "grade": "evaluation.overall_grade"}


def count_values(
    relation: Relation, kind: RecordKind, most_values: int
) -> dict[str, dict[Any, int] | None]:
    """Return the values of each field with the number of records that have them.

    Args:
        relation: the records, which are read once.
        kind: their kind: conversations or documents.
        most_values: a field with more values, or with a value that is long, a list or an object,
            has None instead.

    Returns:
        By field, most frequent first; the values of a field are, too.
    """
    fields = kind.record.fields
    source = relation.source
    metadata = source.json(resolve(fields, "metadata"))
    assert isinstance(metadata, JsonPath)
    columns = [metadata.json.label("metadata")]
    parts = [_OF_METADATA]
    if kind is not DOCUMENTS:
        columns.append(source.value(resolve(fields, "conversations")).label("messages"))
        columns.append(source.value(resolve(fields, "evaluation")).label("evaluation"))
        parts += [_OF_MESSAGES, _OF_EVALUATION]
    every = filtered(sa.select(*columns).select_from(relation.table), source, relation.query)
    # A list that is NULL is left out of the concatenation.
    pair: sa.ColumnElement[Any] = sa.literal_column(f"unnest(list_concat({', '.join(parts)}))")
    pairs = sa.select(pair.label("pair")).select_from(every.subquery()).subquery()
    part, key, value = (sa.func.list_extract(pairs.c.pair, at) for at in (1, 2, 3))
    counted = (
        sa.select(
            part.label("part"), key.label("key"), value.label("value"), sa.func.count().label("n")
        )
        .group_by(part, key, value)
        .subquery()
    )
    # `max_by` keeps some values of each field, and never all of a field with many.
    few: sa.ColumnElement[Any] = sa.literal_column(
        f"max_by(struct_pack(value := value, n := n), n, {most_values + 1})"
    )
    statement = (
        sa.select(counted.c.part, counted.c.key, sa.func.count().label("values"), few)
        .group_by(counted.c.part, counted.c.key)
        .order_by(sa.func.sum(counted.c.n).desc(), counted.c.part.desc(), counted.c.key)
        .limit(_MOST_KEYS)
    )
    found: dict[str, dict[Any, int] | None] = {}
    for name, inner, number, values in fetch_all(relation.connection, statement):
        path = _FIXED.get(name) or render((name, inner))
        found[path] = _counts(values) if number <= most_values else None
    return found


def _counts(values: list[Mapping[str, Any]]) -> dict[Any, int] | None:
    if any(each["value"] is None for each in values):
        return None
    ordered = sorted(values, key=lambda each: (-each["n"], each["value"]))
    texts = {each["value"]: each["n"] for each in ordered}
    parsed = {text: json.loads(text) for text in texts}
    if len(set(map(repr, parsed.values()))) != len({*parsed.values()}):
        return None  # a dict has one key for true and 1
    return {parsed[text]: number for text, number in texts.items()}
