"""`Statistics`: the result of `store.stats()`, as a frozen value, a page of text and HTML.

`query/figures/statistics.py` computes it. Names and metadata keys come from the data, so the HTML
output escapes them and the text output puts each on one line.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, NamedTuple

from afterimage.storage.errors import counted, shorten

__all__ = ["Coverage", "Distribution", "Histogram", "MetadataKey", "Statistics"]


@dataclass(frozen=True)
class Distribution:
    """Summary statistics of a set of numbers; all but `count` are None if the set is empty.

    Attributes:
        count: number of values.
        min: the smallest value.
        median: the quantile at 0.5. The quantile at q of n sorted values is at index q * (n - 1),
            counted from 0; between two indexes it is interpolated linearly.
        p95: the quantile at 0.95.
        max: the largest value.
        mean: the arithmetic mean.
    """

    count: int
    min: float | None
    median: float | None
    p95: float | None
    max: float | None
    mean: float | None


@dataclass(frozen=True)
class Histogram:
    """The number of values in each of ten bins of equal width.

    Attributes:
        edges: the eleven edges of the bins. The first is 0, or the smallest value if that is
            negative; the last is 1, or the largest value if that is greater.
        counts: number of values in each bin. A bin includes its lower edge and excludes its upper
            edge; the last bin includes both.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class MetadataKey:
    """A top-level key of the metadata.

    Attributes:
        key: the name of the key.
        rows: number of conversations in which its value is not null.
        values: number of distinct values. Values are compared as filters compare them: 3 and 3.0
            are one value, 3 and "3" are two. Lists and objects are compared by their JSON text.
    """

    key: str
    rows: int
    values: int


@dataclass(frozen=True)
class Coverage:
    """How many conversations have a field, and how many different values it has.

    Attributes:
        rows: number of conversations in which the field is neither null nor empty.
        values: number of distinct values.
    """

    rows: int
    values: int


@dataclass(frozen=True)
class Statistics:
    """Statistics of a data set. `print` shows a page of text; a notebook cell shows HTML.

    Attributes:
        conversations: number of conversations that match the filters. All fields below except
            `documents` and `records` describe these conversations.
        documents: number of all documents.
        records: number of all records of other models.
        messages: number of messages.
        turns: messages per conversation.
        characters: characters (Unicode code points) per message content, by role.
        with_reasoning: number of conversations with at least one non-empty reasoning content.
        with_evaluation: number of conversations with an evaluation.
        grades: number of conversations by overall grade; lists every grade, from best to worst.
        mean_scores: mean score of each evaluation criterion; None if there are no scores.
        final_score: distribution of the final scores, without those of unscored conversations.
        final_score_histogram: histogram of the same scores.
        final_score_nulls: number of conversations whose final score is null.
        unscored: number of conversations without a score: the final score is null, or it is the
            default, 0, and there is no evaluation.
        not_finite: number of final scores and criterion scores that are NaN or infinite.
            `mean_scores`, `final_score` and `final_score_histogram` do not include them.
        metadata_keys: the most frequent metadata keys, by descending `rows`, then by name.
        metadata_key_count: number of distinct top-level metadata keys, null values included.
        duplicates: number of conversations whose messages (role, content and reasoning) equal
            those of an earlier conversation.
        empty_contents: number of messages whose content is empty or only spaces, tabs and line
            breaks.
        empty_conversations: number of conversations without messages.
        ends_with_user: number of conversations whose last message is the user's.
        without_answer: number of conversations without an assistant message that has content;
            empty contents are as in `empty_contents`.
        characters_per_conversation: characters of all contents of a conversation.
        tokens: tokens of all contents of a conversation; None unless `stats` was given `tokens`.
        total_tokens: tokens of all contents of all conversations; None as above.
        longer_than: the argument of `stats`.
        too_long: number of conversations with more tokens than `longer_than`, or with more
            characters if `tokens` is None; None if `longer_than` is None.
        coverage: for "persona", "instruction_context" and "response_context", how many
            conversations have one, and how many different ones there are.
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
    unscored: int
    not_finite: int
    metadata_keys: tuple[MetadataKey, ...]
    metadata_key_count: int
    duplicates: int
    empty_contents: int
    empty_conversations: int
    ends_with_user: int
    without_answer: int
    characters_per_conversation: Distribution
    tokens: Distribution | None
    total_tokens: int | None
    longer_than: int | None
    too_long: int | None
    coverage: Mapping[str, Coverage]

    @property
    def share_with_reasoning(self) -> float | None:
        """`with_reasoning` divided by `conversations`, 0 to 1; None if there are none."""
        return self.with_reasoning / self.conversations if self.conversations else None

    @property
    def share_with_evaluation(self) -> float | None:
        """`with_evaluation` divided by `conversations`, 0 to 1; None if there are none."""
        return self.with_evaluation / self.conversations if self.conversations else None

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and the two shares as dicts, lists, strings and numbers, for JSON."""
        return {
            **asdict(self),
            "share_with_reasoning": self.share_with_reasoning,
            "share_with_evaluation": self.share_with_evaluation,
        }

    def __str__(self) -> str:
        return self.as_text()

    def as_text(self, width: int | None = None) -> str:
        """Return a page of text.

        Args:
            width: maximum length of a line; None for as long as the tables are. Tables that are
                wider have one paragraph for each row.
        """
        page = [_headline(self), *(_text_table(table, width) for table in _tables(self, width))]
        if width is not None:
            page[0] = textwrap.fill(page[0], width)
        return "\n\n".join(page)

    def _repr_html_(self) -> str:
        return _as_html(self)


_BAR = 30
_LONGEST_KEY = 40


class _Table(NamedTuple):
    """A header and rows of cells. The first column is text; the others are numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def _as_html(stats: Statistics) -> str:
    """Return an HTML fragment for a notebook."""
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
    return ", ".join(counted(count, name) for name, count in counts.items())


def _tables(stats: Statistics, width: int | None = None) -> list[_Table]:
    tables = [_lengths(stats), _shares(stats)]
    if stats.with_evaluation:
        tables += [_grades(stats), _means(stats)]
    if stats.final_score.count:
        tables.append(_scores(stats, width))
    if any(each.rows for each in stats.coverage.values()):
        tables.append(_coverage(stats))
    if stats.metadata_keys:
        tables.append(_keys(stats))
    return tables


def _lengths(stats: Statistics) -> _Table:
    rows = {
        "messages per conversation": stats.turns,
        "characters per conversation": stats.characters_per_conversation,
        **({"tokens per conversation": stats.tokens} if stats.tokens else {}),
        **{f"characters, {role}": each for role, each in stats.characters.items()},
        "final score": stats.final_score,
    }
    head = ["", "count", "min", "median", "p95", "max", "mean"]
    return _Table(head, [[name, *_spread(each)] for name, each in rows.items()])


def _spread(numbers: Distribution) -> list[str]:
    values = (numbers.min, numbers.median, numbers.p95, numbers.max, numbers.mean)
    return [f"{numbers.count:,}", *map(_number, values)]


def _shares(stats: Statistics) -> _Table:
    conversations, messages = stats.conversations, stats.messages
    counts = {
        "with reasoning": (stats.with_reasoning, conversations),
        "with an evaluation": (stats.with_evaluation, conversations),
        "unscored": (stats.unscored, conversations),
        "duplicates of another one": (stats.duplicates, conversations),
        "ending with the user": (stats.ends_with_user, conversations),
        "without an answer": (stats.without_answer, conversations),
        "without messages": (stats.empty_conversations, conversations),
        "empty contents": (stats.empty_contents, messages),
    }
    if stats.too_long is not None:
        unit = "characters" if stats.tokens is None else "tokens"
        counts[f"more than {stats.longer_than:,} {unit}"] = (stats.too_long, conversations)
    rows = [[name, f"{count:,}", _share(count, total)] for name, (count, total) in counts.items()]
    if stats.not_finite:
        rows.append(["NaN or infinite scores", f"{stats.not_finite:,}", ""])
    if stats.total_tokens is not None:
        rows.append(["tokens", f"{stats.total_tokens:,}", ""])
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


def _scores(stats: Statistics, width: int | None) -> _Table:
    # Beside the bar there are its bounds, in 15 characters, and the count.
    longest = _BAR if width is None else min(_BAR, max(1, width - 24))
    edges, counts = stats.final_score_histogram.edges, stats.final_score_histogram.counts
    most = max(counts)
    rows = []
    for index, count in enumerate(counts):
        bracket = "]" if index == len(counts) - 1 else ")"
        bounds = f"[{_number(edges[index])}, {_number(edges[index + 1])}{bracket}"
        rows.append([f"{bounds:<14} {'█' * math.ceil(longest * count / most)}", f"{count:,}"])
    return _Table(["final score", "count"], rows)


def _coverage(stats: Statistics) -> _Table:
    rows = [
        [
            name.replace("_", " "),
            f"{n.rows:,}",
            _share(n.rows, stats.conversations),
            f"{n.values:,}",
        ]
        for name, n in stats.coverage.items()
    ]
    return _Table(["generated from", "rows", "share", "values"], rows)


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


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _text_table(table: _Table, width: int | None = None) -> str:
    lines = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return "\n".join(_paragraph(table.head, row, width) for row in table.rows)
    return "\n".join(_text_line(line, widths) for line in lines)


def _text_line(cells: Iterable[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return "  ".join(padded).rstrip()


def _paragraph(head: Sequence[str], row: Sequence[str], width: int) -> str:
    """Return a row as its first cell, and below it its numbers with their names."""
    named = zip(head[1:], row[1:], strict=True)
    numbers = ", ".join(f"{name} {value}" for name, value in named if value)
    wrapped = textwrap.wrap(numbers, width, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*(textwrap.wrap(row[0], width) or [""]), *wrapped])


def _html_table(table: _Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = (
        "".join(
            f'<td style="text-align: {"right" if column else "left"}">{escape(cell)}</td>'
            for column, cell in enumerate(row)
        )
        for row in table.rows
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
