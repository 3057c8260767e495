"""The published package `afterimage`: it loads all records, and the rest is a loop in Python."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from afterimage.types import EvaluatedConversationWithContext

from afterimage.storage import JSONLStorage
from benchmarks.curating.base import (
    CHANGES,
    DELETED,
    PHRASE,
    SHARE,
    UPDATED,
    Curator,
    synced,
)


class PublishedCurator(Curator):
    """Edits save the records to a new file, which replaces the old one."""

    def make(self, name: str, lines: Path) -> None:
        with lines.open(encoding="utf-8") as file:
            records = [EvaluatedConversationWithContext.model_validate_json(line) for line in file]
        self.open(name).save_conversations(records)

    def open(self, name: str) -> JSONLStorage:
        return JSONLStorage(self.at(name) / "talks.jsonl", self.at(name) / "documents.jsonl")

    def search(self, store: JSONLStorage) -> int:
        return sum(
            any(PHRASE in message.content.lower() for message in record.conversations)
            for record in store.load_conversations()
        )

    def dedupe(self, store: JSONLStorage) -> int:
        records = store.load_conversations()
        first: dict[Any, Any] = {}
        for record in records:
            first.setdefault(_content(record), record)
        self._replace(store, list(first.values()))
        return len(records) - len(first)

    def split(self, store: JSONLStorage, out: Path) -> int:
        out.mkdir()
        records: list[Any] = store.load_conversations()
        random.Random(7).shuffle(records)
        cut = round(len(records) * SHARE)
        for name, part in (("train", records[:cut]), ("validation", records[cut:])):
            path = out / f"{name}.jsonl"
            JSONLStorage(path, out / "none.jsonl").save_conversations(part)
            synced(path)
        return len(records)

    def delete(self, store: JSONLStorage) -> int:
        records = store.load_conversations()
        kept: list[Any] = [record for record in records if record.metadata["part"] >= DELETED]
        self._replace(store, kept)
        return len(records) - len(kept)

    def update(self, store: JSONLStorage) -> int:
        records = store.load_conversations()
        chosen = [record for record in records if record.metadata["part"] < UPDATED]
        for record in chosen:
            record.metadata |= CHANGES
        self._replace(store, records)
        return len(chosen)

    def diff(self, store: JSONLStorage, other: JSONLStorage) -> tuple[int, ...]:
        here, there = (
            {_content(record): _rest(record) for record in each.load_conversations()}
            for each in (store, other)
        )
        both = here.keys() & there.keys()
        changed = sum(here[content] != there[content] for content in both)
        return len(both), len(here) - len(both), len(there) - len(both), changed

    def _replace(self, store: JSONLStorage, records: list[Any]) -> None:
        path = Path(store.conversations_path)
        fresh = path.with_name("new.jsonl")
        JSONLStorage(fresh, path.with_name("none.jsonl")).save_conversations(records)
        synced(fresh)
        fresh.replace(path)


def _content(record: Any) -> Any:
    return tuple((each.role, each.content, each.reasoning_content) for each in record.conversations)


def _rest(record: Any) -> str:
    scores = None if record.evaluation is None else record.evaluation.model_dump()
    return json.dumps([record.metadata, scores, record.final_score], sort_keys=True)
