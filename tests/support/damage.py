"""Corrupts stored records without the storage, in the same way for every storage."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

NO_ROLE = [{"role": "narrator", "content": "x", "reasoning_content": None}]


def spoil_conversations(storage: Any, numbers: Collection[int]) -> None:
    """Give an invalid role to the records whose metadata has one of the numbers as `n`."""
    if hasattr(storage, "engine"):
        _update(
            storage,
            f"UPDATE {_rows(storage, 'conversations')} SET conversations = "
            "[{'role': 'narrator', 'content': 'x', 'reasoning_content': NULL}] "
            "WHERE (metadata->>'n')::INTEGER IN (SELECT unnest(?))",
            list(numbers),
        )
    else:
        _rewrite(
            storage.conversations_path,
            lambda record: record.get("metadata", {}).get("n") in numbers,
            conversations=NO_ROLE,
        )


def spoil_documents(storage: Any, texts: Collection[str]) -> None:
    """Remove the ids of the documents that have one of the texts."""
    if hasattr(storage, "engine"):
        _update(
            storage,
            f"UPDATE {_rows(storage, 'documents')} SET id = NULL WHERE text IN (SELECT unnest(?))",
            list(texts),
        )
    else:
        _rewrite(storage.documents_path, lambda record: record.get("text") in texts, id=None)


def _rows(storage: Any, table: str) -> str:
    """Return the table to change: in a lake, the usual name is that of a view."""
    return f"{table}_rows" if "ducklake" in repr(storage) else table


def _update(storage: Any, statement: str, values: list[Any]) -> None:
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(statement, (values,))


def _rewrite(path: Path, chosen: Any, **fields: Any) -> None:
    lines = path.read_bytes().split(b"\n")
    for at, line in enumerate(lines):
        record = json.loads(line) if line else {}
        if chosen(record):
            lines[at] = json.dumps({**record, **fields}).encode()
    path.write_bytes(b"\n".join(lines))
