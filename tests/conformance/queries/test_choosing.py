"""Both storages choose the same records: samples, shuffled orders, shards and distinct values."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from afterimage.storage import Conversation, Document, InvalidQueryError, JSONLStorage, SQLStorage
from tests.support import strategies
from tests.support.plain_python import as_saved, chosen, chosen_rows, same
from tests.support.records import conversations, firsts

SEEDS = st.sampled_from([0, 7, -1, 2**63])


@st.composite
def choices(draw: st.DrawFn, rows: list[Any]) -> dict[str, Any]:
    """Any query with any choice."""
    query: dict[str, Any] = dict(draw(strategies.queries(rows)))
    fields = ["content_hash", "metadata", "final_score", "metadata.n", "metadata.domain"]
    if rows and isinstance(rows[0], Document):
        fields = ["content_hash", "text", "metadata.n"]
    choice: dict[str, Any] = {
        "distinct": st.sampled_from(fields),
        "sample": st.integers(0, 6),
        "shard": st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3)]),
        "shuffle_seed": SEEDS,
    }
    taken = {name: draw(values) for name, values in choice.items() if draw(st.booleans())}
    if "sample" in taken and draw(st.booleans()):
        taken["seed"] = draw(SEEDS)
    return {**query, **taken}


@settings(max_examples=max(1, settings().max_examples // 8))
@given(data=st.data())
def test_conversations_are_chosen_as_in_plain_python(data: st.DataObject) -> None:
    every = strategies.conversations | strategies.conversations | strategies.others
    records = data.draw(st.lists(every, min_size=4, max_size=9))
    records += data.draw(st.lists(st.sampled_from(records), max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        storages: list[Any] = [
            JSONLStorage(f"{folder}/c.jsonl", f"{folder}/d.jsonl"),
            SQLStorage("duckdb:///:memory:", metadata_fields=["domain", "n"]),
        ]
        for storage in storages:
            storage.save_conversations(records)
        loaded = storages[0].load_conversations()
        saved = [record for record in records if isinstance(record, Conversation)]
        rows = as_saved(loaded, saved)
        for _ in range(2):
            query = data.draw(choices(loaded))
            expected = chosen_rows(rows, **query)
            for storage in storages:
                assert same(storage.load_conversations(**query), expected)
                assert same(list(storage.iter_conversations(**query)), expected)
                scanned = storage.scan_conversations(["content_hash", "metadata"], **query)
                assert scanned.read_all().num_rows == len(expected)
                whole = {
                    name: value
                    for name, value in query.items()
                    if name not in ("limit", "offset", "order_by")
                }
                counted = storage.count_conversations(**whole)
                assert counted == len(chosen_rows(rows, **whole))


@settings(max_examples=max(1, settings().max_examples // 10))
@given(data=st.data())
def test_documents_are_chosen_as_in_plain_python(data: st.DataObject) -> None:
    records = data.draw(st.lists(strategies.documents, min_size=4, max_size=9))
    with tempfile.TemporaryDirectory() as folder:
        storages: list[Any] = [
            JSONLStorage(f"{folder}/c.jsonl", f"{folder}/d.jsonl"),
            SQLStorage("duckdb:///:memory:"),
        ]
        for storage in storages:
            storage.save_documents(records)
        loaded = storages[0].load_documents()
        for _ in range(2):
            query = data.draw(choices(loaded))
            expected = chosen(loaded, **query)
            for storage in storages:
                assert same(storage.load_documents(**query), expected)


class Note(BaseModel):
    text: str
    n: int


class Other(BaseModel):
    text: str
    other: int


class TestSamples:
    def test_a_sample_has_that_many_records_in_insertion_order(self, filled: Any) -> None:
        found = firsts(filled.load_conversations(sample=8, seed=7))
        assert len(found) == 8
        assert found == sorted(found, key=int)
        assert found != firsts(filled.load_conversations(sample=8, seed=8))
        assert filled.count_conversations(sample=8) == 8
        assert filled.count_conversations(sample=80) == 30
        assert filled.count_conversations({"metadata.domain": "A"}, sample=80) == 10

    def test_growth_replaces_only_few(self, filled: Any) -> None:
        before = firsts(filled.load_conversations(sample=10, seed=7))
        records = conversations(*({"n": n} for n in range(30)))
        for index, record in enumerate(records):
            record.conversations[0].content = f"new {index}"
        filled.save_conversations(records)
        after = firsts(filled.load_conversations(sample=10, seed=7))
        stayed = [name for name in after if not name.startswith("new")]
        assert stayed == [name for name in before if name in stayed]
        assert len(stayed) < 10

    def test_of_equal_records_the_first_are_taken(self, storage: Any) -> None:
        [record] = conversations({})
        for n in range(4):
            storage.save_conversations([record.model_copy(update={"metadata": {"n": n}})])
        for seed in range(3):
            found = storage.load_conversations(sample=2, seed=seed)
            assert [each.metadata["n"] for each in found] == [0, 1]

    def test_the_start_of_a_shuffled_order_is_itself_stable(self, filled: Any) -> None:
        order = firsts(filled.load_conversations(shuffle_seed=3))
        assert sorted(order, key=int) == [str(n) for n in range(30)]
        assert order != [str(n) for n in range(30)]
        assert firsts(filled.load_conversations(7, 4, shuffle_seed=3)) == order[4:11]

    def test_records_of_a_model(self, storage: Any) -> None:
        storage.save_conversations(
            [
                record
                for n in range(20)
                for record in (Note(text="a", n=n), Other(text="b", other=n))
            ]
        )
        every = storage.load_records(Note)
        found = storage.load_records(Note, sample=5, seed=1)
        assert len(found) == 5
        assert all(each in every for each in found)
        assert storage.load_records(Note, distinct="text") == every[:1]
        halves = [storage.load_records(Note, shard=(rank, 2)) for rank in range(2)]
        assert sorted(each.n for half in halves for each in half) == list(range(20))
        assert storage.count_records(sample=30) == 30
        shuffled = storage.load_records(Note, shuffle_seed=1)
        assert shuffled != every
        assert sorted(each.n for each in shuffled) == list(range(20))


class TestShards:
    @pytest.mark.slow
    @pytest.mark.parametrize("world", [1, 3, 40])
    def test_are_disjoint_and_complete(self, filled: Any, world: int) -> None:
        shards = [firsts(filled.load_conversations(shard=(r, world))) for r in range(world)]
        assert sorted((name for shard in shards for name in shard), key=int) == [
            str(n) for n in range(30)
        ]
        samples = [
            firsts(filled.load_conversations(sample=9, seed=5, shard=(r, world)))
            for r in range(world)
        ]
        together = sorted((name for each in samples for name in each), key=int)
        assert together == firsts(filled.load_conversations(sample=9, seed=5))


class TestDistinct:
    def test_the_first_of_equals_stays(self, filled: Any) -> None:
        assert firsts(filled.load_conversations(distinct="metadata.domain")) == ["0", "1", "2"]
        assert filled.count_conversations(distinct="content_hash") == 30
        filled.save_conversations(conversations(*({} for _ in range(3))))
        assert filled.count_conversations(distinct="content_hash") == 30
        assert filled.count_documents(distinct="text") == 10

    def test_records_without_a_value_all_stay(self, storage: Any) -> None:
        values: list[Any] = [{"k": 1}, {}, {"k": 1.0}, {"k": None}, {"k": "1"}, {"k": [1]}]
        storage.save_conversations(conversations(*values, {"k": [1.0]}))
        found = firsts(storage.load_conversations(distinct="metadata.k"))
        assert found == ["0", "1", "3", "4", "5"]


class TestExports:
    def test_take_the_same_choice(self, filled: Any, tmp_path: Path) -> None:
        choice: dict[str, Any] = {"sample": 9, "seed": 5, "shuffle_seed": 2}
        expected = firsts(filled.load_conversations(**choice))
        assert filled.export_jsonl(tmp_path / "c.jsonl", **choice) == 9
        read = JSONLStorage(tmp_path / "c.jsonl", tmp_path / "d.jsonl")
        assert firsts(read.load_conversations()) == expected
        assert filled.export_jsonl(tmp_path / "m.jsonl", format="messages", **choice) >= 0
        assert filled.export_parquet(tmp_path / "c.parquet", **choice) == 9


class TestErrors:
    @pytest.mark.parametrize(
        "choice",
        [
            {"sample": -1},
            {"sample": 1.5},
            {"seed": 7},
            {"sample": 1, "seed": "7"},
            {"sample": 1, "seed": 2**70},
            {"shuffle_seed": True},
            {"shard": 3},
            {"shard": (2, 2)},
            {"shard": (-1, 2)},
            {"shard": (0, 1, 2)},
            {"distinct": "nonsense"},
            {"distinct": 3},
        ],
        ids=str,
    )
    def test_a_choice_that_is_not_valid_is_an_error(self, filled: Any, choice: Any) -> None:
        for call in (filled.load_conversations, filled.iter_documents, filled.count_documents):
            with pytest.raises(InvalidQueryError):
                call(**choice)

    def test_an_unknown_keyword_is_named(self, filled: Any) -> None:
        for call in (filled.load_conversations, filled.scan_documents, filled.count_records):
            with pytest.raises(TypeError, match=r"'sampel'\. Did you mean sample\?"):
                call(sampel=3)
