"""`Statistics`: the result of `store.stats()`, as a frozen value, a page of text and HTML.

`query/statistics.py` computes it. Names and metadata keys come from the data: HTML escapes them,
and text shows each on one line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, NamedTuple

from afterimage.storage.errors import shorten

__all__ = ["Distribution", "Histogram", "MetadataKey", "Statistics"]


@dataclass(frozen=True)
class Distribution:
    """How some numbers are spread; all but `count` are None where there are none.

    Attributes:
        count: how many numbers.
        min: the least of them.
        median: their quantile at 0.5. A quantile at q of n numbers lies at place q * (n - 1) of
            them in order, the first being 0; between two places it is interpolated linearly.
        p95: their quantile at 0.95.
        max: the greatest.
        mean: their sum by their count.
    """

    count: int
    min: float | None
    median: float | None
    p95: float | None
    max: float | None
    mean: float | None


@dataclass(frozen=True)
class Histogram:
    """How many numbers are in each of ten ranges of equal width.

    Attributes:
        edges: where the ranges begin, and where the last one ends: from 0 or the least number, if
            that is less, to 1 or the greatest, if that is more.
        counts: how many numbers are in each range, its beginning included, its end not, but in the
            last one.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class MetadataKey:
    """A key at the top of the metadata.

    Attributes:
        key: its name.
        rows: conversations in which it holds something other than null.
        values: how many different values it holds there, as filters tell them apart (3 and 3.0 are
            one value, 3 and "3" are two); lists and objects by their JSON text.
    """

    key: str
    rows: int
    values: int


@dataclass(frozen=True)
class Statistics:
    """What is in a data set; `print` it for a page of text, or leave it at the end of a cell.

    Attributes:
        conversations: conversations that the filters match; all the below is about these.
        documents: all documents.
        records: all records of other models.
        messages: messages in the conversations.
        turns: messages a conversation.
        characters: characters (Unicode code points) of the content of a message, by role.
        with_reasoning: conversations in which some message has reasoning that is not empty.
        with_evaluation: conversations that have an evaluation.
        grades: conversations by their overall grade, every grade named, from best to worst.
        mean_scores: mean score of each criterion of the evaluations; None where there is none.
        final_score: of the conversations that have one.
        final_score_histogram: of the same.
        final_score_nulls: conversations without a final score.
        not_finite: final scores, and scores of the criteria, that are NaN or infinite; they are
            left out of the three above and of the means.
        metadata_keys: the keys that most conversations have, by `rows`, ties by their name.
        metadata_key_count: different keys at the top of the metadata, null or not.
        duplicates: conversations whose messages (roles, contents and reasoning) are exactly those
            of another one before them.
        empty_contents: messages whose content is empty, or spaces, tabs and line breaks only.
    """

    conversations: int
    documents: int
    records: int
    messages: int
    turns: Distribution
    characters: Mapping[str, Distribution]
    with_reasoning: int
    with_evaluation: int
    grades: Mapping[str, int]
    mean_scores: Mapping[str, float | None]
    final_score: Distribution
    final_score_histogram: Histogram
    final_score_nulls: int
    not_finite: int
    metadata_keys: tuple[MetadataKey, ...]
    metadata_key_count: int
    duplicates: int
    empty_contents: int

    @property
    def share_with_reasoning(self) -> float | None:
        """`with_reasoning` as a part of all conversations, 0 to 1; None where there are none."""
        return self.with_reasoning / self.conversations if self.conversations else None

    @property
    def share_with_evaluation(self) -> float | None:
        """`with_evaluation` as a part of all conversations, 0 to 1; None where there are none."""
        return self.with_evaluation / self.conversations if self.conversations else None

    def as_dict(self) -> dict[str, Any]:
        """All of it as dicts, lists, strings and numbers, for JSON; the two shares included."""
        return {
            **asdict(self),
            "share_with_reasoning": self.share_with_reasoning,
            "share_with_evaluation": self.share_with_evaluation,
        }

    def __str__(self) -> str:
        return _as_text(self)

    def _repr_html_(self) -> str:
        return _as_html(self)


_BAR = 30
_LONGEST_KEY = 40


class _Table(NamedTuple):
    """Rows of cells under a head; the first column is words, the others are numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def _as_text(stats: Statistics) -> str:
    """A page of text."""
    return "\n\n".join([_headline(stats), *map(_text_table, _tables(stats))])


def _as_html(stats: Statistics) -> str:
    """A fragment of HTML, for a notebook."""
    return (
        f"<div><p>{escape(_headline(stats))}</p>{''.join(map(_html_table, _tables(stats)))}</div>"
    )


def _headline(stats: Statistics) -> str:
    counts = {
        "conversations": stats.conversations,
        "messages": stats.messages,
        "documents": stats.documents,
        "records of other models": stats.records,
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _tables(stats: Statistics) -> list[_Table]:
    tables = [_lengths(stats), _shares(stats)]
    if stats.with_evaluation:
        tables += [_grades(stats), _means(stats)]
    if stats.final_score.count:
        tables.append(_scores(stats))
    if stats.metadata_keys:
        tables.append(_keys(stats))
    return tables


def _lengths(stats: Statistics) -> _Table:
    rows = {
        "turns a conversation": stats.turns,
        **{f"characters, {role}": each for role, each in stats.characters.items()},
        "final score": stats.final_score,
    }
    head = ["", "count", "min", "median", "p95", "max", "mean"]
    return _Table(head, [[name, *_spread(each)] for name, each in rows.items()])


def _spread(numbers: Distribution) -> list[str]:
    found = (numbers.min, numbers.median, numbers.p95, numbers.max, numbers.mean)
    return [f"{numbers.count:,}", *map(_number, found)]


def _shares(stats: Statistics) -> _Table:
    conversations, messages = stats.conversations, stats.messages
    counts = {
        "with reasoning": (stats.with_reasoning, conversations),
        "with an evaluation": (stats.with_evaluation, conversations),
        "without a final score": (stats.final_score_nulls, conversations),
        "duplicates of another one": (stats.duplicates, conversations),
        "empty contents": (stats.empty_contents, messages),
    }
    rows = [[name, f"{count:,}", _share(count, of)] for name, (count, of) in counts.items()]
    if stats.not_finite:
        rows.append(["scores that are no finite number", f"{stats.not_finite:,}", ""])
    return _Table(["", "count", "share"], rows)


def _grades(stats: Statistics) -> _Table:
    rows = [
        [name, f"{count:,}", _share(count, stats.with_evaluation)]
        for name, count in stats.grades.items()
    ]
    return _Table(["grade", "count", "share"], rows)


def _means(stats: Statistics) -> _Table:
    rows = [[name, _number(mean)] for name, mean in stats.mean_scores.items()]
    return _Table(["score", "mean"], rows)


def _scores(stats: Statistics) -> _Table:
    edges, counts = stats.final_score_histogram.edges, stats.final_score_histogram.counts
    most = max(counts)
    rows = []
    for at, count in enumerate(counts):
        end = "]" if at == len(counts) - 1 else ")"
        bins = f"[{_number(edges[at])}, {_number(edges[at + 1])}{end}"
        rows.append([f"{bins:<14} {'█' * math.ceil(_BAR * count / most)}", f"{count:,}"])
    return _Table(["final score", "count"], rows)


def _keys(stats: Statistics) -> _Table:
    rows = [
        [
            shorten(each.key, _LONGEST_KEY),
            f"{each.rows:,}",
            _share(each.rows, stats.conversations),
            f"{each.values:,}",
        ]
        for each in stats.metadata_keys
    ]
    more = stats.metadata_key_count - len(rows)
    if more:
        rows.append([f"and {more:,} more", "", "", ""])
    return _Table(["metadata key", "rows", "share", "values"], rows)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if 100 <= abs(value) < 1e15 else f"{value:.3g}"


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%}" if of else "-"


def _text_table(table: _Table) -> str:
    lines = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_text_line(line, widths) for line in lines)


def _text_line(cells: Iterable[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return "  ".join(padded).rstrip()


def _html_table(table: _Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = (
        "".join(
            f'<td style="text-align: {"right" if at else "left"}">{escape(cell)}</td>'
            for at, cell in enumerate(row)
        )
        for row in table.rows
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
