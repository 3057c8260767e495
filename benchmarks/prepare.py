"""Prepares the data: ``python -m benchmarks.prepare REQUEST``, in our package's environment.

REQUEST is JSON. It has either `source` (a JSONL file, or null for chitchat-dataset), `limit`,
`filter` and `sort`; or `base` (a prepared data set) and `factor`, to create a smaller or larger
data set from it. The result is `data.jsonl` and its description `data.json`, in `folder`.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from afterimage.storage.demo import chitchat_conversations
from afterimage.storage.models import EvaluatedConversationWithContext
from benchmarks.harness.dataset import Dataset

# Queries for known metadata; the first one whose keys exist is used. Each has the key and the value
# of the filter (None: the most common value), the sort key, and whether the sort is descending.
_KNOWN_QUESTIONS = (
    ("domain", "Flights", "n_actions", True),
    ("prompt", None, "start", False),
)

Record = dict[str, Any]


def prepare(
    source: Path | None,
    folder: Path,
    *,
    limit: int | None = None,
    filter_by: str | None = None,
    sort_by: str | None = None,
) -> Dataset:
    """Write the records of a source and the queries on them.

    Args:
        source: a JSONL file, also compressed as `.gz`; None for the package chitchat-dataset.
        folder: folder of the result.
        limit: the largest number of records to take.
        filter_by: `KEY` or `KEY=VALUE` of the metadata; by default, keys that are known.
        sort_by: `KEY`, or `-KEY` for descending.
    """
    records = list(islice(_chitchat() if source is None else _of_file(source), limit))
    if not records:
        raise SystemExit("There are no conversations in the data.")
    name = "chitchat" if source is None else source.name.split(".")[0]
    if limit is not None:
        name += f"-first-{len(records)}"
    question = _question([record["metadata"] for record in records], filter_by, sort_by)
    return _write(folder, name, records, question)


def resize(base: Dataset, factor: float, folder: Path) -> Dataset:
    """Create a part of a data set, or several copies of it.

    Copies differ from each other in every text and in every id.
    """
    count = max(1, round(base.records * factor))
    name = f"{base.name}-x{factor:g}"
    if factor <= 1:
        records = [json.loads(line) for line in islice(base.lines(), count)]
        question = (base.filter_key, base.filter_value, base.sort_key, base.descending)
        return _write(folder, name, records, question)
    path = folder / "data.jsonl"
    messages = 0
    templates = [json.loads(line) for line in base.lines()]
    with path.open("w", encoding="utf-8") as file:
        for record in _copies(templates, base.unique_keys, count):
            file.write(_line(record))
            messages += len(record["conversations"])
    dataset = replace(
        base,
        name=name,
        path=str(path),
        records=count,
        messages=messages,
        size=path.stat().st_size,
        page=None,
        groups=None,
    )
    dataset.write(folder / "data.json")
    return dataset


def _copies(templates: list[Record], unique: list[str], count: int) -> Iterator[Record]:
    for at in range(count):
        copy, index = divmod(at, len(templates))
        record = templates[index]
        if copy == 0:
            yield record
            continue
        ids = {key: f"{record['metadata'][key]}-{copy}" for key in unique}
        talk = [m | {"content": f"{m['content']} ({copy})"} for m in record["conversations"]]
        yield record | {"conversations": talk, "metadata": record["metadata"] | ids}


def _chitchat() -> Iterator[Record]:
    for conversation in chitchat_conversations():
        # The class that `load_conversations` returns, so that every record has the same fields.
        yield EvaluatedConversationWithContext(**conversation.model_dump()).model_dump(mode="json")


def _of_file(path: Path) -> Iterator[Record]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = EvaluatedConversationWithContext.model_validate_json(line)
            except ValidationError as error:
                reason = error.errors(include_url=False)[0]["msg"]
                raise SystemExit(f"{path.name}, line {number}: no conversation: {reason}") from None
            yield record.model_dump(mode="json")


def _question(
    all_metadata: list[Record], filter_by: str | None, sort_by: str | None
) -> tuple[str, str, str, bool]:
    if filter_by is not None and sort_by is not None:
        key, _, text = filter_by.partition("=")
        wanted = (key, text or None, sort_by.removeprefix("-"), sort_by.startswith("-"))
    else:
        keys = {key for metadata in all_metadata for key in metadata}
        fitting = (known for known in _KNOWN_QUESTIONS if {known[0], known[2]} <= keys)
        known = next(fitting, None)
        if known is None:
            raise SystemExit(
                f"Say what to ask of this data: --filter KEY[=VALUE] and --sort KEY or --sort=-KEY "
                f"of the metadata, which has {', '.join(sorted(keys)) or 'no keys'}."
            )
        wanted = known
    key, value, sort_key, descending = wanted
    if value is None:
        texts = Counter(m[key] for m in all_metadata if isinstance(m.get(key), str))
        if not texts:
            raise SystemExit(f"metadata.{key} is nowhere a text that can be filtered by.")
        value = texts.most_common(1)[0][0]
    return key, value, sort_key, descending


def _write(
    folder: Path, name: str, records: list[Record], question: tuple[str, str, str, bool]
) -> Dataset:
    key, value, sort_key, descending = question
    path = folder / "data.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(map(_line, records))
    all_metadata = [record["metadata"] for record in records]
    dataset = Dataset(
        name=name,
        path=str(path),
        records=len(records),
        messages=sum(len(record["conversations"]) for record in records),
        size=path.stat().st_size,
        filter_key=key,
        filter_value=value,
        sort_key=sort_key,
        sort_is_number=any(isinstance(m.get(sort_key), int | float) for m in all_metadata),
        descending=descending,
        unique_keys=_unique_keys(all_metadata),
        page=None,
        groups=Counter(metadata.get(key) for metadata in all_metadata).most_common(),
    )
    page = [m.get(sort_key) for m in dataset.pick(all_metadata, lambda metadata: metadata)]
    dataset = replace(dataset, page=page)
    dataset.write(folder / "data.json")
    return dataset


def _line(record: Record) -> str:
    """A record exactly as the published package writes it."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def _unique_keys(all_metadata: list[Record]) -> list[str]:
    def is_unique(key: str) -> bool:
        values = [metadata.get(key) for metadata in all_metadata]
        texts = all(isinstance(value, str) for value in values)
        return texts and len(set(values)) == len(values)

    return [key for key in all_metadata[0] if is_unique(key)]


def main() -> None:
    """Prepare the data that the request in the first argument describes."""
    request = json.loads(sys.argv[1])
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    if "base" in request:
        resize(Dataset.read(Path(request["base"])), request["factor"], folder)
        return
    source = request["source"]
    prepare(
        None if source is None else Path(source),
        folder,
        limit=request["limit"],
        filter_by=request["filter"],
        sort_by=request["sort"],
    )


if __name__ == "__main__":
    main()
