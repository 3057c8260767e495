"""Both storages split exports by groups: whole, disjoint, stable under growth and alike."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from afterimage.storage import Conversation, InvalidQueryError, UnknownFieldError
from tests.support.plain_python import content_hash, group, key, plain

SHARES = {"train": 0.7, "validation": 0.2, "test": 0.1}
GROUP = "metadata.context_id"


def talks(count: int, start: int = 0) -> list[Conversation]:
    """Conversations of 25 contexts, of which some have no id, or one of another type."""
    ids: list[Any] = [None, *range(8), *map(str, range(8)), *[[n] for n in range(8)]]
    return [
        Conversation(
            conversations=[
                {"role": "user", "content": str(n)},
                {"role": "assistant", "content": "a"},
            ],
            metadata={"n": n, "context_id": ids[n % len(ids)]},
        )
        for n in range(start, start + count)
    ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def part_of(record: Conversation, seed: int, by: str | None = GROUP) -> str:
    """The part of a record, in plain Python."""
    row = plain(record)
    value = group(row, by) if by else None
    identity = value or content_hash(row["conversations"])
    place = Fraction(int(key("split", seed, identity), 16), 2**128)
    if place < Fraction(7, 10):
        return "train"
    return "validation" if place < Fraction(9, 10) else "test"


@pytest.mark.parametrize("by", [GROUP, None, pytest.param("content_hash", marks=pytest.mark.slow)])
def test_a_part_follows_from_the_group_and_the_seed(storage: Any, tmp_path: Path, by: Any) -> None:
    records = talks(60)
    storage.save_conversations(records)
    count = storage.export_jsonl(tmp_path / "out", split=SHARES, split_by=by, seed=3)
    expected: dict[str, list[int]] = {name: [] for name in SHARES}
    for record in records:
        expected[part_of(record, 3, by)].append(record.metadata["n"])
    found = {
        name: [line["metadata"]["n"] for line in lines(tmp_path / "out" / f"{name}.jsonl")]
        for name in SHARES
    }
    assert found == expected
    assert count == 60
    assert count.parts == {name: len(numbers) for name, numbers in expected.items()}
    assert count.shares == {name: len(numbers) / 60 for name, numbers in expected.items()}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{name}.jsonl" for name in SHARES
    )


def test_parquet_files_have_the_names_and_the_records_of_the_hub(
    storage: Any, tmp_path: Path
) -> None:
    records = talks(60)
    storage.save_conversations(records)
    count = storage.export_parquet(tmp_path / "out", split=SHARES, split_by=GROUP)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00001.parquet",
        "validation-00000-of-00001.parquet",
    ]
    for name in SHARES:
        rows = pq.read_table(tmp_path / "out" / f"{name}-00000-of-00001.parquet").to_pylist()
        expected = [each.metadata["n"] for each in records if part_of(each, 42) == name]
        assert [json.loads(row["metadata"])["n"] for row in rows] == expected
        assert count.parts[name] == len(rows)


@pytest.mark.slow
def test_growth_moves_no_record_and_no_group_straddles_two_parts(
    storage: Any, tmp_path: Path
) -> None:
    part_by_number: dict[int, str] = {}
    for round_number in range(2):
        storage.save_conversations(talks(40, 40 * round_number))
        folder = tmp_path / str(round_number)
        storage.export_jsonl(folder, split=SHARES, split_by=GROUP)
        parts_of_group: dict[str, set[str]] = {}
        for name in SHARES:
            for line in lines(folder / f"{name}.jsonl"):
                number, value = line["metadata"]["n"], line["metadata"]["context_id"]
                assert part_by_number.setdefault(number, name) == name
                if value is not None:
                    parts_of_group.setdefault(json.dumps(value), set()).add(name)
        assert all(len(parts) == 1 for parts in parts_of_group.values())
    assert len(part_by_number) == 80


def test_a_split_goes_with_a_sample_filters_an_order_and_a_format(
    storage: Any, tmp_path: Path
) -> None:
    storage.save_conversations(talks(60))
    choice: dict[str, Any] = {"filters": [("metadata.n", ">=", 10)], "sample": 30, "seed": 3}
    chosen = storage.load_conversations(**choice, order_by="-metadata.n")
    count = storage.export_jsonl(
        tmp_path / "out",
        split={"train": 0.5, "test": 0.5},
        order_by="-metadata.n",
        format="messages",
        columns=["metadata.n"],
        **choice,
    )
    assert (count, bool(count.omitted)) == (30, False)
    found = [[line["n"] for line in lines(tmp_path / "out" / f"{p}.jsonl")] for p in count.parts]
    assert all(numbers == sorted(numbers, reverse=True) for numbers in found)
    together = sorted((n for numbers in found for n in numbers), reverse=True)
    assert together == [each.metadata["n"] for each in chosen]


def test_documents_and_records_of_other_models_are_split_too(filled: Any, tmp_path: Path) -> None:
    count = filled.export_jsonl(tmp_path / "out", kind="documents", split=SHARES)
    assert (count, sum(count.parts.values())) == (10, 10)
    count = filled.export_jsonl(tmp_path / "none", kind="records", split=SHARES)
    assert (count, set(count.parts.values())) == (0, {0})


@pytest.mark.parametrize(
    "arguments",
    [
        {"split": {"train": 0.9, "test": 0.2}},
        {"split": {"train": 0.9}},
        {"split": {}},
        {"split": 0.1},
        {"split": {"train": "0.9", "test": 0.1}},
        {"split": {"train": 1.1, "test": -0.1}},
        {"split": {"train": 1, "test": 0}},
        {"split": {"../train": 0.9, "test": 0.1}},
        {"split": {"": 0.9, "test": 0.1}},
        {"split": {"test": 0.9, "Test": 0.1}},
        {"split": {"train": float("nan"), "test": 0.1}},
        {"split": SHARES, "split_by": "nonsense"},
        {"split": SHARES, "limit": 3},
        {"split": SHARES, "offset": 3},
        {"split": SHARES, "seed": "3"},
        {"split_by": GROUP},
    ],
    ids=str,
)
def test_a_split_that_is_not_valid_is_an_error_and_writes_nothing(
    filled: Any, tmp_path: Path, arguments: Any
) -> None:
    before = sorted(tmp_path.iterdir())
    for export in (filled.export_jsonl, filled.export_parquet):
        with pytest.raises(InvalidQueryError):
            export(tmp_path / "out", **arguments)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_appears_whole_or_not_at_all(filled: Any, tmp_path: Path) -> None:
    target = tmp_path / "out"
    before = sorted(tmp_path.iterdir())

    def stop(_records: int) -> None:
        raise UnknownFieldError("stopped")

    for export in (filled.export_jsonl, filled.export_parquet):
        with pytest.raises(UnknownFieldError, match="stopped"):
            export(target, split=SHARES, progress=stop)
        assert sorted(tmp_path.iterdir()) == before
    target.mkdir()
    (target / "kept").write_text("kept")
    with pytest.raises(InvalidQueryError, match="already exists"):
        filled.export_jsonl(target, split=SHARES)
    assert [path.name for path in target.iterdir()] == ["kept"]
