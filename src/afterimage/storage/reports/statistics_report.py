"""`Statistics` as a page of text and as HTML: the same tables, written in two ways.

Names and metadata keys come from the data: HTML has them escaped, text on one line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from afterimage.storage.errors import shorten

if TYPE_CHECKING:
    from afterimage.storage.reports.statistics import Distribution, Statistics

__all__ = ["as_html", "as_text"]

_BAR = 30
_LONGEST_KEY = 40


class _Table(NamedTuple):
    """Rows of cells under a head; the first column is words, the others are numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def as_text(stats: Statistics) -> str:
    """A page of text."""
    return "\n\n".join([_headline(stats), *map(_text_table, _tables(stats))])


def as_html(stats: Statistics) -> str:
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
