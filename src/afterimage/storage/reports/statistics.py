"""`Statistics`: what `store.stats()` found out about a data set, as one frozen value.

Only numbers and names are here. `query/statistics.py` computes them, and
`statistics_report.py` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from afterimage.storage.reports import statistics_report

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
        return statistics_report.as_text(self)

    def _repr_html_(self) -> str:
        return statistics_report.as_html(self)
