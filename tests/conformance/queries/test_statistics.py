"""Both storages: `stats()` equals counts in plain Python over loaded models."""

from __future__ import annotations

import json
import math
import re
import statistics
import tempfile
from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterimage.storage import (
    Conversation,
    Document,
    EvaluatedConversationWithContext,
    JSONLStorage,
    SQLStorage,
    UnknownFieldError,
)
from tests.support import strategies
from tests.support.plain_python import plain, rank, select
from tests.support.records import (
    CRITERIA,
    Note,
    RatedConversation,
    conversation,
    conversations,
    evaluation,
)

MEMORY = "duckdb:///:memory:"
GRADES = ["perfect", "good", "needs_improvement", "bad", "not_acceptable"]


def quantile(ordered: list[float], q: float) -> float:
    place = q * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def distribution(numbers: Any) -> dict[str, Any]:
    ordered = sorted(n for n in numbers if n is not None and math.isfinite(n))
    if not ordered:
        return {"count": 0, **dict.fromkeys(["min", "median", "p95", "max", "mean"])}
    return {
        "count": len(ordered),
        "min": ordered[0],
        "median": quantile(ordered, 0.5),
        "p95": quantile(ordered, 0.95),
        "max": ordered[-1],
        "mean": mean(ordered),
    }


def mean(numbers: list[float]) -> float | None:
    finite = sorted(n for n in numbers if math.isfinite(n))
    return sum(finite) / len(finite) if finite else None


def histogram(scores: list[float]) -> dict[str, Any]:
    finite = [score for score in scores if math.isfinite(score)]
    low, high = min([0.0, *finite]), max([1.0, *finite])
    edges = [low * ((10 - at) / 10) + high * (at / 10) for at in range(11)]
    counts = [0] * 10
    for score in finite:
        counts[max(at for at in range(10) if score >= edges[at])] += 1
    return {"edges": tuple(edges), "counts": tuple(counts)}


def is_unscored(record: Any) -> bool:
    score = record.final_score
    return score is None or (score == 0 and record.evaluation is None)


def is_blank(content: str) -> bool:
    return re.fullmatch(r"[ \t\n\r\f]*", content) is not None


def has_answer(record: Any) -> bool:
    entries = record.conversations
    return any(m.role.value == "assistant" and not is_blank(m.content) for m in entries)


def characters(record: Any) -> int:
    return sum(len(entry.content) for entry in record.conversations)


def coverage(loaded: list[Any], name: str) -> dict[str, int]:
    values = [value for record in loaded if (value := getattr(record, name, None))]
    return {"rows": len(values), "values": len(set(values))}


def expected(loaded: list[Any], documents: int = 0, records: int = 0) -> dict[str, Any]:
    """The expected `as_dict()` for these conversations, with all keys by rows and name."""
    messages = [entry for record in loaded for entry in record.conversations]
    evaluated = [record.evaluation for record in loaded if record.evaluation is not None]
    final = [record.final_score for record in loaded if not is_unscored(record)]
    scores = {name: [getattr(each, name).score for each in evaluated] for name in CRITERIA}
    values: dict[str, list[Any]] = {}
    for record in loaded:
        for key, value in plain(record)["metadata"].items():
            values.setdefault(key, []).extend([] if value is None else [rank(value)])
    with_reasoning = sum(any(m.reasoning_content for m in r.conversations) for r in loaded)
    keys = [{"key": k, "rows": len(v), "values": len(set(v))} for k, v in values.items()]
    talks = Counter(
        tuple((m.role.value, m.content, m.reasoning_content) for m in record.conversations)
        for record in loaded
    )
    return {
        "conversations": len(loaded),
        "documents": documents,
        "records": records,
        "messages": len(messages),
        "turns": distribution(len(record.conversations) for record in loaded),
        "characters": {
            role: distribution(len(m.content) for m in messages if m.role.value == role)
            for role in ("user", "assistant")
            if any(m.role.value == role for m in messages)
        },
        "with_reasoning": with_reasoning,
        "with_evaluation": len(evaluated),
        "grades": {
            grade: sum(each.overall_grade.value == grade for each in evaluated) for grade in GRADES
        },
        "mean_scores": {name: mean(found) for name, found in scores.items()},
        "final_score": distribution(final),
        "final_score_histogram": histogram(final),
        "final_score_nulls": sum(record.final_score is None for record in loaded),
        "unscored": sum(map(is_unscored, loaded)),
        "not_finite": sum(
            not math.isfinite(score) for found in [final, *scores.values()] for score in found
        ),
        "metadata_keys": tuple(sorted(keys, key=lambda key: (-key["rows"], key["key"]))),
        "metadata_key_count": len(keys),
        "duplicates": len(loaded) - len(talks),
        "empty_contents": sum(is_blank(entry.content) for entry in messages),
        "empty_conversations": sum(not record.conversations for record in loaded),
        "ends_with_user": sum(
            bool(r.conversations) and r.conversations[-1].role.value == "user" for r in loaded
        ),
        "without_answer": sum(not has_answer(record) for record in loaded),
        "characters_per_conversation": distribution(map(characters, loaded)),
        "tokens": None,
        "total_tokens": None,
        "longer_than": None,
        "too_long": None,
        "coverage": {
            name: coverage(loaded, name)
            for name in ("persona", "instruction_context", "response_context")
        },
        "share_with_reasoning": with_reasoning / len(loaded) if loaded else None,
        "share_with_evaluation": len(evaluated) / len(loaded) if loaded else None,
    }


def approximately(found: Any) -> Any:
    """Compare floats approximately and everything else exactly."""
    if isinstance(found, dict):
        return {key: approximately(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(approximately(value) for value in found)
    return pytest.approx(found, rel=1e-12, abs=1e-300) if isinstance(found, float) else found


RICH = [
    *conversations({"n": 1, "k.l": "a"}, {"n": 1.0, "k.l": None}, {"n": "1"}, {"n": True}),
    conversation("0", {"n": 2**53, "": [1]}, evaluation=evaluation(0.25), final_score=0.25),
    conversation("\u2028 \x00 😀", {"n": 2**53 + 1, "*": {"a": 1}}, final_score=None),
    conversation(" \t\n", {"n": float(2**53)}, evaluation=evaluation(2, "bad"), final_score=3.0),
    RatedConversation(conversations=[], mood="calm", metadata={"n": float("nan")}),
    RatedConversation(
        conversations=[{"role": "user", "content": "", "reasoning_content": ""}],
        mood="tense",
        final_score=float("inf"),
    ),
]


class TestStatistics:
    def test_are_equal_to_plain_python_over_loaded_records(self, storage: Any) -> None:
        storage.save_conversations([*RICH, Note(title="x"), Note(title="y")])
        storage.save_documents([Document(text="x")])
        found = storage.stats().as_dict()
        assert found == approximately(expected(RICH, documents=1, records=2))

    def test_of_an_empty_storage_are_zeros_and_none(self, storage: Any) -> None:
        assert storage.stats().as_dict() == expected([])

    def test_cover_the_records_that_the_filters_match(self, storage: Any) -> None:
        storage.save_conversations([*RICH, Note(title="x")])
        filters = [("final_score", ">=", 0.25)]
        found = storage.stats(filters).as_dict()
        assert found == approximately(expected(select(RICH, filters), records=1))
        with pytest.raises(UnknownFieldError):
            storage.stats({"final_scor": 1})

    def test_conversations_without_a_score_are_counted_apart(self, storage: Any) -> None:
        storage.save_conversations(
            [
                Conversation(conversations=[]),
                EvaluatedConversationWithContext(conversations=[]),
                conversation("null", final_score=None),
                conversation("zero", evaluation=evaluation(0), final_score=0.0),
                conversation("scored", final_score=0.5),
            ]
        )
        found = storage.stats()
        assert (found.unscored, found.final_score_nulls) == (3, 1)
        assert (found.final_score.count, found.final_score.mean) == (2, 0.25)
        assert sum(found.final_score_histogram.counts) == 2
        assert re.search(r"^unscored +3 +60.0%$", str(found), re.MULTILINE)
        assert found.as_dict()["unscored"] == 3

    def test_values_are_distinguished_as_in_filters(self, storage: Any) -> None:
        storage.save_conversations(RICH)
        found = {each.key: each for each in storage.stats().metadata_keys}
        # 1 and 1.0; "1"; True; 2**53 and its float; 2**53 + 1; NaN
        assert (found["n"].rows, found["n"].values) == (8, 6)

    def test_top_keys(self, storage: Any) -> None:
        storage.save_conversations(conversations({"b": 1, "a": 1}, {"b": 2, "c": None}))
        found = storage.stats(top_keys=2)
        assert [(each.key, each.rows) for each in found.metadata_keys] == [("b", 2), ("a", 1)]
        assert found.metadata_key_count == 3
        with pytest.raises(ValueError, match="top_keys"):
            storage.stats(top_keys=0)

    def test_duplicates_have_exactly_the_same_messages(self, storage: Any) -> None:
        same = [conversation("Hi", {"n": n}, final_score=n / 10) for n in range(3)]
        other = conversation("Hi")
        other.conversations[1].reasoning_content = None
        storage.save_conversations([*same, other, *conversations({}, {})])
        assert storage.stats().duplicates == 2


class TestLengths:
    def test_the_conversations_that_are_too_long_are_counted(self, storage: Any) -> None:
        storage.save_conversations([*conversations({}, {}), conversation("a" * 500)])
        lengths = [characters(record) for record in storage.load_conversations()]
        for limit in (1, min(lengths), 499, 10_000):
            found = storage.stats(longer_than=limit)
            assert (found.longer_than, found.too_long) == (limit, sum(n > limit for n in lengths))
        assert re.search(
            r"^more than 499 characters +1 +33\.3%$", str(storage.stats(longer_than=499)), re.M
        )
        with pytest.raises(ValueError, match="longer_than"):
            storage.stats(longer_than=0)

    def test_tokens_are_counted_with_a_function(self, storage: Any) -> None:
        storage.save_conversations(RICH)
        calls: list[str] = []

        def tokens(text: str) -> int:
            calls.append(text)
            return len(text.encode())

        found = storage.stats(tokens=tokens, longer_than=10)
        counted = [sum(len(m.content.encode()) for m in record.conversations) for record in RICH]
        assert asdict(found.tokens) == approximately(distribution(counted))
        assert found.total_tokens == sum(counted)
        assert found.too_long == sum(n > 10 for n in counted)
        assert sorted(calls) == sorted(
            m.content for r in RICH for m in r.conversations if m.content
        )
        assert re.search(rf"^tokens +{sum(counted):,}$", str(found), re.M)
        assert "more than 10 tokens" in str(found)

    def test_tokens_are_counted_with_progress_and_with_filters(self, storage: Any) -> None:
        storage.save_conversations(conversations({"n": 1}, {"n": 2}))
        found = storage.stats({"metadata.n": 1}, tokens=len, progress=lambda count: None)
        assert found.total_tokens == characters(
            storage.load_conversations(filters={"metadata.n": 1})[0]
        )

    def test_an_error_of_the_function_is_the_error_of_the_call(self, storage: Any) -> None:
        storage.save_conversations(RICH)

        def failing(text: str) -> int:
            raise RuntimeError("no such model")

        with pytest.raises(RuntimeError, match=r"^no such model$"):
            storage.stats(tokens=failing)
        for wrong in (-1, 1.5, None, True, "3"):
            with pytest.raises(ValueError, match="tokens must return a whole number, 0 or more"):
                storage.stats(tokens=lambda text, wrong=wrong: wrong)
        with pytest.raises(ValueError, match="tokens must be a function"):
            storage.stats(tokens="tiktoken")
        assert storage.stats(tokens=len).total_tokens
        storage.save_conversations(RICH)

    def test_what_conversations_were_generated_from_is_counted(self, storage: Any) -> None:
        personas = ["a pilot", "a pilot", "", None]
        storage.save_conversations(
            EvaluatedConversationWithContext(
                conversations=[], persona=persona, response_context=text
            )
            for persona, text in zip(personas, "abcd", strict=True)
        )
        found = storage.stats()
        assert found.as_dict()["coverage"] == {
            "persona": {"rows": 2, "values": 1},
            "instruction_context": {"rows": 0, "values": 0},
            "response_context": {"rows": 4, "values": 4},
        }
        assert re.search(r"^persona +2 +50\.0% +1$", str(found), re.M)


@settings(max_examples=max(1, settings().max_examples // 4))
@given(data=st.data())
def test_any_records_have_equal_statistics_in_both_storages(data: st.DataObject) -> None:
    records = data.draw(st.lists(strategies.conversations | strategies.others, max_size=8))
    with tempfile.TemporaryDirectory() as folder:
        storages = [JSONLStorage(f"{folder}/c.jsonl", f"{folder}/d.jsonl"), SQLStorage(MEMORY)]
        for storage in storages:
            storage.save_conversations(records)
        first, second = (storage.stats(top_keys=1000) for storage in storages)
        loaded = storages[0].load_conversations()
    assert json.dumps(asdict(first)) == json.dumps(asdict(second))
    counted = expected(loaded, records=len(records) - len(loaded))
    for name in ("turns", "characters", "grades", "duplicates", "empty_contents", "not_finite",
                 "with_reasoning", "final_score_nulls", "unscored", "records", "coverage",
                 "empty_conversations", "ends_with_user", "without_answer",
                 "characters_per_conversation", "metadata_keys"):  # fmt: skip
        assert first.as_dict()[name] == approximately(counted[name])


@pytest.mark.slow
def test_many_rows_give_the_same_statistics_in_every_run(tmp_path: Any) -> None:
    storages = [JSONLStorage(tmp_path / "c.jsonl", tmp_path / "d.jsonl"), SQLStorage(MEMORY)]
    records: list[Any] = [
        # Python 3.12 and later sum floats with less error; a mean near 0 would show the difference.
        conversation(
            str(n % 9000), {"n": n % 7}, final_score=2 + math.sin(n), evaluation=evaluation(n)
        )
        for n in range(10_000)
    ]
    for storage in storages:
        storage.save_conversations(records)
    found = [storage.stats() for storage in storages * 2]
    assert found[0].as_dict() == approximately(expected(records))
    assert found[0].mean_scores["coherence"] == statistics.fmean(range(10_000))
    assert all(other == found[0] for other in found)


class TestReport:
    @pytest.fixture
    def found(self) -> Any:
        storage = SQLStorage(MEMORY)
        storage.save_conversations([*RICH, conversation(metadata={"<b>&\n": 1, "x" * 99: 1})])
        return storage.stats()

    def test_text_is_a_page_of_narrow_lines(self, found: Any) -> None:
        lines = str(found).splitlines()
        assert lines[0] == "10 conversations, 17 messages, 0 documents, 0 records of other models"
        assert len(lines) < 60
        assert max(map(len, lines)) <= 80
        assert any(
            re.fullmatch(r"messages per conversation +10 +0 +2 +2 +2 +1\.7", x) for x in lines
        )
        assert any(re.fullmatch(r"with an evaluation +2 +20\.0%", line) for line in lines)
        assert any(re.fullmatch(r"n +8 +80\.0% +6", line) for line in lines)
        assert any(re.fullmatch(r"\[0, 0\.3\) +█+ +1", line) for line in lines)

    def test_html_is_escaped(self, found: Any) -> None:
        html = found._repr_html_()
        assert "&lt;b&gt;&amp;" in html
        assert "<b>" not in html
        assert "messages per conversation" in html

    def test_of_an_empty_storage(self) -> None:
        assert str(SQLStorage(MEMORY).stats()).startswith("0 conversations, 0 messages")
