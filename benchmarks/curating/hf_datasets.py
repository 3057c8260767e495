"""Hugging Face `datasets`: what it does itself, in the Arrow format; a save is a new folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.curating.base import CHANGES, DELETED, PHRASE, SHARE, UPDATED, Curator, synced

datasets.disable_progress_bars()
_OPTIONS: dict[str, Any] = {"batched": True, "load_from_cache_file": False}


class DatasetsCurator(Curator):
    """Duplicates and differences are not among its calls."""

    def make(self, name: str, lines: Path) -> None:
        with lines.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        for row in rows:
            row["part"] = row["metadata"].pop("part")
            row["metadata"] |= dict.fromkeys(CHANGES)
        datasets.Dataset.from_list(rows).save_to_disk(self.at(name) / "dataset")

    def open(self, name: str) -> tuple[Path, Any]:
        path = self.at(name) / "dataset"
        return path, datasets.load_from_disk(path)

    def search(self, store: Any) -> int:
        def has_phrase(column: pa.ChunkedArray) -> pa.Array:
            lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            content = pc.struct_field(lists.flatten(), "content")
            hits = pc.list_parent_indices(lists).filter(
                pc.match_substring(content, PHRASE, ignore_case=True)
            )
            return pc.is_in(pa.array(range(len(lists)), hits.type), hits)

        found = (
            store[1]
            .with_format("arrow")
            .filter(has_phrase, input_columns=["conversations"], **_OPTIONS)
        )
        return len(found)

    def split(self, store: Any, out: Path) -> int:
        out.mkdir()
        parts = store[1].train_test_split(train_size=SHARE, seed=7)
        for name, part in parts.items():
            part.to_json(out / f"{name}.jsonl")
        return sum(map(len, parts.values()))

    def delete(self, store: Any) -> int:
        kept = store[1].filter(
            lambda part: [n >= DELETED for n in part], input_columns="part", **_OPTIONS
        )
        self._save(store, kept)
        return len(store[1]) - len(kept)

    def update(self, store: Any) -> int:
        count = 0

        def changed(metadata: list[Any], parts: list[int]) -> dict[str, Any]:
            nonlocal count
            count += sum(part < UPDATED for part in parts)
            pairs = zip(metadata, parts, strict=True)
            return {"metadata": [{**m, **CHANGES} if part < UPDATED else m for m, part in pairs]}

        names = ["metadata", "part"]
        self._save(store, store[1].map(changed, input_columns=names, **_OPTIONS))
        return count

    def _save(self, store: Any, changed: Any) -> None:
        fresh = store[0].with_name("new")
        changed.save_to_disk(fresh)
        synced(fresh)
