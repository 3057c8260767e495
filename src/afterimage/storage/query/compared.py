"""Compare the records of two storages by their content, with one statement for each of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from afterimage.storage.engine.database import scratch_connection
from afterimage.storage.engine.statements import execute_arrow, streamed
from afterimage.storage.query.json_values import JsonPath
from afterimage.storage.query.predicates import filtered
from afterimage.storage.query.relations import Relation
from afterimage.storage.records.fields import CONVERSATIONS, CRITERIA, RecordKind
from afterimage.storage.records.paths import resolve

__all__ = ["Compared", "compare", "content_of", "hashes_of"]

_SCORES: Final = (
    "final_score",
    "evaluation.overall_grade",
    *(f"evaluation.{name}.score" for name in CRITERIA),
)


@dataclass(frozen=True)
class Compared:
    """The places of records in two storages, from 0 in insertion order, ascending.

    Attributes:
        both: number of records that are in both.
        only_here: places of the records that are only in the first one.
        only_there: places of the records that are only in the second one.
        changed_here: places in the first one of records in both that differ in other fields.
        changed_there: their places in the second one.
    """

    both: int
    only_here: pa.Array
    only_there: pa.Array
    changed_here: pa.Array
    changed_there: pa.Array


def content_of(kind: RecordKind, relation: Relation) -> pa.Table:
    """Return the hash, the metadata and the scores of each record, in insertion order."""
    connection, table, source, query = relation
    metadata = source.json(resolve(kind.queried, "metadata"))
    assert isinstance(metadata, JsonPath)
    columns = [
        source.sequence.label("place"),
        _hash(kind, relation).label("hash"),
        sa.cast(metadata.json, sa.String).label("metadata"),
    ]
    if kind is CONVERSATIONS:
        columns += [
            sa.cast(source.value(resolve(kind.queried, path)), sa.String).label(f"score_{index}")
            for index, path in enumerate(_SCORES)
        ]
    statement = filtered(sa.select(*columns).select_from(table), source, query)
    return _placed(execute_arrow(connection, statement))


def hashes_of(kind: RecordKind, relation: Relation) -> list[str]:
    """Return the content hash of each record, in insertion order; "" for one without content."""
    connection, table, source, query = relation
    columns = [source.sequence.label("place"), _hash(kind, relation).label("hash")]
    statement = filtered(sa.select(*columns).select_from(table), source, query)
    found = _placed(execute_arrow(connection, statement))
    return found.column("hash").to_pylist()  # type: ignore[no-any-return]


def _hash(kind: RecordKind, relation: Relation) -> sa.ColumnElement[Any]:
    value = relation.source.value(resolve(kind.queried, "content_hash"))
    return sa.func.coalesce(value, "")


def _placed(rows: pa.Table) -> pa.Table:
    """Return rows in the order of their sequence numbers, which their places replace."""
    rows = rows.sort_by("place")
    return rows.set_column(0, "place", pa.array(range(len(rows)), pa.int64()))


def compare(here: pa.Table, there: pa.Table) -> Compared:
    """Compare two results of `content_of`: the n-th record of a hash with the n-th one there."""
    scores = [name for name in here.column_names if name.startswith("score_")]
    with (
        scratch_connection() as connection,
        streamed(connection, here.schema, here.to_batches()) as first,
        streamed(connection, there.schema, there.to_batches()) as second,
    ):
        one, other = _ranked(first), _ranked(second)
        same = sa.and_(one.c.hash == other.c.hash, one.c.rank == other.c.rank)
        scored = [one.c[name].is_distinct_from(other.c[name]) for name in scores]
        spelled = one.c.metadata.is_distinct_from(other.c.metadata)
        statement = sa.select(
            one.c.place.label("here"),
            other.c.place.label("there"),
            sa.or_(sa.false(), *scored).label("scored"),
            sa.case((spelled, one.c.metadata)).label("one"),
            sa.case((spelled, other.c.metadata)).label("other"),
        ).select_from(one.join(other, same, full=True))
        pairs = execute_arrow(connection, statement)
    without_here, without_there = pairs["here"].is_null(), pairs["there"].is_null()
    both = pairs.filter(pc.invert(pc.or_(without_here, without_there)))
    texts = zip(both["one"].to_pylist(), both["other"].to_pylist(), strict=True)
    differs = [
        scored or (one != other and _canonical(one) != _canonical(other))
        for scored, (one, other) in zip(both["scored"].to_pylist(), texts, strict=True)
    ]
    changed = both.filter(pa.array(differs, pa.bool_()))
    return Compared(
        len(both),
        _sorted(pairs.filter(without_there)["here"]),
        _sorted(pairs.filter(without_here)["there"]),
        _sorted(changed["here"]),
        _sorted(changed["there"]),
    )


def _ranked(rows: sa.FromClause) -> sa.Subquery:
    rank = sa.func.row_number().over(partition_by=rows.c.hash, order_by=rows.c.place)
    return sa.select(*rows.c, rank.label("rank")).subquery()


def _canonical(text: str | None) -> str:
    """Return metadata in one way of writing it: the order of keys and blanks are no difference."""
    return json.dumps(None if text is None else json.loads(text), sort_keys=True)


def _sorted(places: pa.ChunkedArray) -> pa.Array:
    return pc.take(places, pc.sort_indices(places)).combine_chunks()
