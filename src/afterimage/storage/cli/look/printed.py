"""Print the records of a query: as lines of JSON, in full, or as a table."""

from __future__ import annotations

import io
from typing import Any

from afterimage.storage.cli import render
from afterimage.storage.cli.stores import call_of
from afterimage.storage.record_storage import RecordStorage

__all__ = ["print_records"]


def print_records(
    store: RecordStorage, kind: Any, query: dict[str, Any], *, full: bool, as_json: bool
) -> bool:
    """Print the records of a query; return whether there was one."""
    if as_json:
        file = io.BytesIO()  # only an export includes extra fields
        store.export_jsonl(file, kind=kind, **query)
        lines = file.getvalue().splitlines(keepends=True)
        for line in lines:
            render.json_line(line)
        return bool(lines)
    if full:
        records = list(call_of(store, "load", kind)(**query))
        render.full(records)
        return bool(records)
    batches = call_of(store, "scan", kind)(render.DEFAULT_COLUMNS[kind], **query)
    rows = [row for batch in batches for row in batch.to_pylist()]
    render.summary(kind, rows)
    return bool(rows)
