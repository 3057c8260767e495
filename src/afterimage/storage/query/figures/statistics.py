"""Compute the statistics of `store.stats()` with DuckDB, in one statement and one pass.

The data is read once, because a stream of JSON lines cannot be read again. For each conversation
only numbers, roles, metadata keys and hashes are kept until the end: message contents are measured
and metadata values are hashed while they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from numbers import Integral
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

from afterimage.storage.chat import ChatRole
from afterimage.storage.engine.dialect import Lambda
from afterimage.storage.engine.statements import execute_arrow
from afterimage.storage.engine.users.functions import Number, number_of_texts
from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.models import GradeSchema
from afterimage.storage.query.figures.kept_rows import kept_in_parts
from afterimage.storage.query.json_values import JsonPath
from afterimage.storage.query.predicates import filtered, order_of_values
from afterimage.storage.query.relations import Relation
from afterimage.storage.records.fields import CONVERSATIONS, CRITERIA, Text
from afterimage.storage.records.paths import FieldRef, resolve
from afterimage.storage.reports.progress import Progress
from afterimage.storage.reports.statistics import (
    Coverage,
    Distribution,
    Histogram,
    MetadataKey,
    Statistics,
)

__all__ = ["conversation_statistics"]

_ROLES: Final = Text(ChatRole).choices
_GRADES: Final = Text(GradeSchema).choices
_BINS: Final = 10
# The fields that say what a conversation was generated from.
_ORIGINS: Final = ("persona", "instruction_context", "response_context")
_DEFAULT_SCORE: Final = CONVERSATIONS.record.defaults["final_score"]


def conversation_statistics(
    relation: Relation,
    *,
    documents: int,
    records: int,
    top_keys: int,
    longer_than: int | None = None,
    tokens: Callable[[str], int] | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Return the statistics of the conversations that match the relation's query.

    Args:
        relation: the conversations; they are read once.
        documents: number of documents.
        records: number of records of other models.
        top_keys: number of metadata keys to list.
        longer_than: the length above which a conversation is too long, in tokens if `tokens` is
            given, otherwise in characters; None to count no such conversations.
        tokens: returns the number of tokens of a text.
        progress: called as conversations of a table are read. It is not used for a stream of JSON
            lines, which reports its own progress.
    """
    narrow: sa.FromClause
    connection, source = relation.connection, relation.source
    with ExitStack() as stack:
        number = tokens and stack.enter_context(number_of_texts(connection, _summed(tokens)))
        if progress and isinstance(relation.table, sa.Table):
            select = partial(_narrow, relation, number)
            narrow = kept_in_parts(connection, source.sequence, select, progress)
        else:
            every = _narrow(relation, number, sa.true())
            narrow = every.cte("narrow").prefix_with("MATERIALIZED")
        statement = _statement(narrow, top_keys, longer_than, has_tokens=tokens is not None)
        [row] = execute_arrow(connection, statement).to_pylist()
    lengths = {part["role"]: Distribution(**part["lengths"]) for part in row["by_role"] or ()}
    return Statistics(
        conversations=row["conversations"],
        documents=documents,
        records=records,
        messages=row["messages"],
        turns=Distribution(**row["turns"]),
        characters={role: lengths[role] for role in _ROLES if role in lengths},
        with_reasoning=row["with_reasoning"],
        with_evaluation=row["with_evaluation"],
        grades=dict(zip(_GRADES, row["grades"], strict=True)),
        mean_scores=dict(zip(CRITERIA, row["mean_scores"], strict=True)),
        final_score=Distribution(**row["final_score"]),
        final_score_histogram=Histogram(
            *(tuple(row["histogram"][name]) for name in ("edges", "counts"))
        ),
        final_score_nulls=row["final_score_nulls"],
        unscored=row["unscored"],
        not_finite=row["not_finite"],
        metadata_keys=tuple(MetadataKey(**part) for part in row["by_key"] or ()),
        metadata_key_count=row["metadata_key_count"],
        duplicates=row["duplicates"],
        empty_contents=row["empty_contents"],
        empty_conversations=row["empty_conversations"],
        ends_with_user=row["ends_with_user"],
        without_answer=row["without_answer"],
        characters_per_conversation=Distribution(**row["size"]),
        tokens=Distribution(**row["tokens"]) if tokens else None,
        total_tokens=row["total_tokens"] if tokens else None,
        longer_than=longer_than,
        too_long=None if longer_than is None else row["too_long"],
        coverage={name: Coverage(**row[name]) for name in _ORIGINS},
    )


def _summed(tokens: Callable[[str], int]) -> Callable[[list[str | None] | None], int]:
    """Return a function that counts the tokens of all texts of a conversation."""

    def count(texts: list[str | None] | None) -> int:
        total = 0
        for text in texts or ():
            number = tokens(text) if text else 0
            if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
                raise InvalidQueryError(
                    "tokens must return a whole number, 0 or more, not "
                    f"{shown(number, 40)}, as for the text {shown(text, 40)}"
                )
            total += int(number)
        return total

    return count


def _narrow(
    relation: Relation, tokens: Number | None, within: sa.ColumnElement[bool]
) -> sa.Select[Any]:
    """Select one row of small values per conversation that meets the condition and the query."""
    source = relation.source
    metadata = source.json(_field("metadata"))
    assert isinstance(metadata, JsonPath)
    every = filtered(
        sa.select(
            source.value(_field("conversations")).label("messages"),
            source.value(_field("evaluation")).label("evaluation"),
            source.value(_field("final_score")).label("stored_score"),
            metadata.json.label("metadata"),
            *(source.value(_field(name)).label(name) for name in _ORIGINS),
        )
        .select_from(relation.table)
        .where(within),
        source,
        relation.query,
    ).subquery()
    evaluation = every.c.evaluation
    scores = [_inside(_inside(evaluation, name), "score") for name in CRITERIA]
    messages, metadata_values = every.c.messages, sa.func.json_extract(every.c.metadata, _EACH)
    values = sa.select(
        # 128 bits: equal fingerprints of different texts are practically impossible.
        sa.func.md5_number(sa.cast(sa.func.to_json(messages), sa.String)).label("fingerprint"),
        sa.func.list_transform(messages, _MEASURED).label("messages"),
        (sa.func.len(sa.func.list_filter(messages, _IS_REASONED)) > 0).label("reasoned"),
        evaluation.is_not(None).label("evaluated"),
        _inside(evaluation, "overall_grade").label("grade"),
        sa.func.list_value(*scores).label("scores"),
        # The default score says nothing about a conversation that nobody has evaluated.
        sa.case(
            (sa.and_(evaluation.is_(None), every.c.stored_score == _DEFAULT_SCORE), sa.null()),
            else_=every.c.stored_score,
        ).label("final_score"),
        every.c.stored_score.is_(None).label("score_is_null"),
        sa.func.json_keys(every.c.metadata).label("keys"),
        sa.func.list_transform(metadata_values, _HASHED).label("hashes"),
        *(_hash_of_text(every.c[name]).label(name) for name in _ORIGINS),
        *([tokens(sa.func.list_transform(messages, _CONTENT)).label("tokens")] if tokens else []),
    ).subquery()
    measured = values.c.messages
    lengths = sa.func.list_sum(sa.func.list_transform(measured, _LENGTH))
    return sa.select(
        *values.c,
        sa.func.len(measured).label("turns"),
        sa.func.len(sa.func.list_filter(measured, _IS_BLANK)).label("empty"),
        (sa.func.len(sa.func.list_filter(measured, _IS_ANSWER)) > 0).label("answered"),
        _inside(sa.func.list_extract(measured, -1), "role").label("last_role"),
        sa.cast(sa.func.coalesce(lengths, 0), sa.BigInteger).label("size"),
    )


def _field(path: str) -> FieldRef:
    return resolve(CONVERSATIONS.record.fields, path)


def _of_message(expression: str) -> Lambda:
    return Lambda("message", sa.literal_column(expression))


_MEASURED: Final = _of_message(
    "struct_pack(role := message.role, length := length(message.content), "
    r"blank := NOT regexp_matches(message.content, '\S'))"
)
_CONTENT: Final = _of_message("message.content")
_LENGTH: Final = _of_message("message.length")
_IS_REASONED: Final = _of_message("message.reasoning_content <> ''")
_IS_BLANK: Final = _of_message("message.blank")
_IS_ANSWER: Final = _of_message("message.role = 'assistant' AND NOT message.blank")


def _hash_of_text(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a hash of a text, NULL for an empty one and for NULL."""
    return sa.case((text != sa.literal_column("''"), sa.func.hash(text)))


def _hash_of_value() -> sa.ColumnElement[Any]:
    """Return a hash of `value`: equal for values that a filter treats as equal, NULL for null.

    Lists and objects are hashed by their JSON text. DuckDB writes `value` as JSON without leading
    spaces, so its first character determines its type.
    """
    text = sa.cast(sa.literal_column("value"), sa.String)
    number = sa.try_cast(text, sa.Double)
    return sa.case(
        (text == sa.literal_column("'null'"), sa.null()),
        (sa.not_(sa.func.regexp_matches(text, "^[-0-9NI]")), sa.func.hash(text)),
        # A double represents every integer below 2**53 exactly. Larger numbers need all sort keys.
        (sa.func.abs(number) < float(2**53), sa.func.hash(number)),
        else_=sa.func.hash(*order_of_values(JsonPath(sa.literal_column("value")))),
    )


_EACH: Final = sa.literal_column("'$.*'", sa.String)
_HASHED: Final = Lambda("value", _hash_of_value())


def _statement(
    narrow: sa.FromClause, top_keys: int, longer_than: int | None, *, has_tokens: bool
) -> sa.Select[Any]:
    """Select all statistics as one row; results by role and by key are lists of structs."""
    every, count = narrow.c, sa.func.count()
    scores = [sa.func.list_extract(every.scores, index + 1) for index in range(len(CRITERIA))]
    not_finite = [
        count.filter(sa.not_(sa.func.isfinite(score))) for score in (*scores, every.final_score)
    ]
    columns = {
        "conversations": count,
        "duplicates": count - sa.func.count(sa.distinct(every.fingerprint)),
        "messages": sa.cast(sa.func.coalesce(sa.func.sum(every.turns), 0), sa.BigInteger),
        "turns": _distribution(every.turns),
        "by_role": _by_role(narrow),
        "empty_contents": sa.cast(sa.func.coalesce(sa.func.sum(every.empty), 0), sa.BigInteger),
        "with_reasoning": count.filter(every.reasoned),
        "with_evaluation": count.filter(every.evaluated),
        "grades": sa.func.list_value(*(count.filter(every.grade == name) for name in _GRADES)),
        "mean_scores": sa.func.list_value(*map(_mean, scores)),
        "final_score": _distribution(every.final_score),
        "histogram": _histogram(narrow),
        "final_score_nulls": count.filter(every.score_is_null),
        "unscored": count.filter(every.final_score.is_(None)),
        "not_finite": sum(not_finite[1:], not_finite[0]),
        "by_key": _by_key(narrow, top_keys),
        "metadata_key_count": _key_count(narrow),
        "empty_conversations": count.filter(every.turns == 0),
        "ends_with_user": count.filter(every.last_role == "user"),
        "without_answer": count.filter(sa.not_(every.answered)),
        "size": _distribution(every.size),
        **{name: _coverage(every[name]) for name in _ORIGINS},
    }
    if has_tokens:
        columns["tokens"] = _distribution(every.tokens)
        total = sa.func.coalesce(sa.func.sum(every.tokens), 0)
        columns["total_tokens"] = sa.cast(total, sa.BigInteger)
    if longer_than is not None:
        length = every.tokens if has_tokens else every.size
        columns["too_long"] = count.filter(length > longer_than)
    return sa.select(*(column.label(name) for name, column in columns.items()))


def _coverage(hashes: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the fields of a `Coverage` as a struct."""
    return _struct(rows=sa.func.count(hashes), values=sa.func.count(sa.distinct(hashes)))


def _distribution(numbers: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the fields of a `Distribution` of the finite numbers, as a struct."""
    functions = {
        "count": sa.func.count(numbers),
        "min": sa.func.min(numbers),
        "median": sa.func.quantile_cont(numbers, 0.5),
        "p95": sa.func.quantile_cont(numbers, 0.95),
        "max": sa.func.max(numbers),
    }
    finite = sa.func.isfinite(numbers)
    return _struct(
        **{name: function.filter(finite) for name, function in functions.items()},
        mean=_mean(numbers),
    )


def _mean(numbers: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the mean of the finite numbers. It adds sorted values, so every run is bit-equal."""
    ordered: Any = aggregate_order_by(numbers, numbers)
    return sa.func.avg(ordered).filter(sa.func.isfinite(numbers))


def _histogram(narrow: sa.FromClause) -> sa.ScalarSelect[Any]:
    """Return the edges and counts of a `Histogram` as a struct."""
    score = narrow.c.final_score
    finite = sa.select(score).where(sa.func.isfinite(score)).subquery()
    ends = sa.select(
        sa.func.least(0.0, sa.func.min(finite.c.final_score)).label("low"),
        sa.func.greatest(1.0, sa.func.max(finite.c.final_score)).label("high"),
    ).subquery()
    # A weighted sum of both ends cannot overflow. From 0 to 1 it gives exactly 0.1, 0.2, 0.3, …
    edges = [
        ends.c.low * ((_BINS - edge) / _BINS) + ends.c.high * (edge / _BINS)
        for edge in range(_BINS + 1)
    ]
    score = finite.c.final_score
    at_least = [sa.func.count().filter(score >= edge) for edge in edges[:-1]]
    counts = [low - high for low, high in pairwise([*at_least, sa.literal(0)])]
    histogram = _struct(
        edges=sa.func.list_value(*map(sa.func.any_value, edges)), counts=sa.func.list_value(*counts)
    )
    return sa.select(histogram).select_from(ends.outerjoin(finite, sa.true())).scalar_subquery()


def _by_role(narrow: sa.FromClause) -> sa.ScalarSelect[Any]:
    message = sa.select(sa.func.unnest(narrow.c.messages).label("message")).subquery()
    role, length = (_inside(message.c.message, name) for name in ("role", "length"))
    rows = sa.select(role.label("role"), _distribution(length).label("lengths")).group_by(role)
    return _as_list_of_structs(rows.subquery())


def _by_key(narrow: sa.FromClause, top_keys: int) -> sa.ScalarSelect[Any]:
    pairs = _pairs(narrow)
    rows = sa.func.count(pairs.c.hash).label("rows")
    values = sa.func.count(sa.distinct(pairs.c.hash)).label("values")
    keys = sa.select(pairs.c.key, rows, values).group_by(pairs.c.key)
    top = keys.order_by(rows.desc(), pairs.c.key).limit(top_keys)
    return _as_list_of_structs(top.subquery())


def _key_count(narrow: sa.FromClause) -> sa.ScalarSelect[Any]:
    return sa.select(sa.func.count(sa.distinct(_pairs(narrow).c.key))).scalar_subquery()


def _pairs(narrow: sa.FromClause) -> sa.Subquery:
    """Select each metadata key of each conversation, with the hash of its value (NULL for null)."""
    return sa.select(
        sa.func.unnest(narrow.c["keys"]).label("key"),
        sa.func.unnest(narrow.c.hashes).label("hash"),
    ).subquery()


def _as_list_of_structs(rows: sa.Subquery) -> sa.ScalarSelect[Any]:
    """Return all rows as one list of structs."""
    return sa.select(sa.func.list(_struct(**dict(rows.c.items())))).scalar_subquery()


def _struct(**parts: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a struct. The names are constants of this module, so they need no escaping."""
    return sa.func.struct_pack(
        *(sa.literal_column(f'"{name}"').op(":=")(part) for name, part in parts.items())
    )


def _inside(struct: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[Any]:
    return sa.func.struct_extract(struct, sa.literal_column(f"'{name}'"))
