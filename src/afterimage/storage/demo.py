"""The main job on real data: ``python -m afterimage.storage.demo [--dir DIR]``.

7,168 real conversations of the PyPI package ``chitchat-dataset`` go into a JSONL file, from there
into a DuckDB file, and come out filtered and sorted, as records, as Arrow, as SQL answers and as
Parquet. Nothing here reaches below the public API, so every step can be copied.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet
from sqlalchemy import text

from afterimage.storage import (
    ConversationEntry,
    ConversationWithContext,
    JSONLStorage,
    Role,
    SQLStorage,
    StorageError,
)

PROMPT = "What superpower do you wish you had, and why?"


def chitchat_conversations() -> Iterator[ConversationWithContext]:
    """Yield the conversations of the PyPI package ``chitchat-dataset``, in its order.

    Whoever speaks first is the user, the other one the assistant. What one of them typed in a row
    is one message, a line for each utterance: roles then alternate strictly, as chat templates
    want it, and since no utterance holds a line break the utterances can be told apart again.

    ``metadata`` has ``id`` and ``start`` always, ``prompt`` and ``ratings`` only where the data
    has them.

    Raises:
        ModuleNotFoundError: ``chitchat-dataset`` is not installed.
    """
    try:
        package = importlib.resources.files("chitchat_dataset")
    except ModuleNotFoundError:
        msg = (
            "The demo's conversations are in the package chitchat-dataset, which is not "
            "installed: pip install 'afterimage-storage[demo]'"
        )
        raise ModuleNotFoundError(msg, name="chitchat_dataset") from None
    source: dict[str, dict[str, Any]] = json.loads((package / "dataset.json").read_bytes())
    for conversation_id, record in source.items():
        turns = record["messages"]
        first_speaker = turns[0][0]["sender"]
        yield ConversationWithContext(
            conversations=[
                ConversationEntry(
                    role=Role.USER if turn[0]["sender"] == first_speaker else Role.ASSISTANT,
                    content="\n".join(utterance["text"] for utterance in turn),
                )
                for turn in turns
            ],
            metadata={"id": conversation_id}
            | {key: record[key] for key in ("start", "prompt", "ratings") if key in record},
        )


@contextmanager
def step(title: str) -> Iterator[list[str]]:
    """Print ``title``, what the block appends to the list it is given, and how long it took."""
    print(f"\n{title}", flush=True)
    said: list[str] = []
    started = time.perf_counter()
    yield said
    seconds = time.perf_counter() - started
    print(f"  {'; '.join(said)} ({seconds:.2f} s)", flush=True)


def shown(path: Path) -> str:
    """Return the path as a person in the working directory would type it."""
    return os.path.relpath(path)


def size(path: Path) -> str:
    """Return the size of the file, in megabytes of 10^6 bytes."""
    return f"{path.stat().st_size / 1e6:.1f} MB"


def run(directory: Path) -> None:
    """Do the whole job, with its files in ``directory``, and print every step.

    Files of these names that an earlier run left there are replaced.
    """
    with step("Read the chitchat dataset") as said:
        conversations = list(chitchat_conversations())
        messages = sum(len(record.conversations) for record in conversations)
        said.append(f"{len(conversations):,} conversations, {messages:,} messages")

    directory.mkdir(parents=True, exist_ok=True)
    jsonl = directory / "chitchat.jsonl"
    database = directory / "chitchat.duckdb"
    parquet = directory / "chitchat.parquet"
    # A run that was killed may have left a write-ahead log, which belongs to no other database.
    for path in (jsonl, database, directory / "chitchat.duckdb.wal", parquet):
        if path.exists():
            path.unlink()
            print(f"Removed {shown(path)} of an earlier run.")

    with step(f"Save them as JSON lines: {shown(jsonl)}") as said:
        JSONLStorage(conversations_path=jsonl).save_conversations([*conversations])
        said.append(f"{len(conversations):,} conversations, {size(jsonl)}")

    with step(f"Import that into DuckDB, a column for the prompt: {shown(database)}") as said:
        store = SQLStorage(f"duckdb:///{database}", metadata_fields=["prompt"])
        imported = store.import_jsonl(jsonl)
        said.append(f"{imported:,} conversations, {size(database)}")

    show_filtered(store)
    show_scan(store)
    show_sql(store)

    with step(f"Export everything as Parquet: {shown(parquet)}") as said:
        exported = store.export_parquet(parquet)
        rows = pyarrow.parquet.read_metadata(parquet).num_rows
        said.append(f"{exported:,} conversations, {size(parquet)}, pyarrow reads {rows:,} rows")

    with step("Load all of it back and compare") as said:
        fields = set(ConversationWithContext.model_fields)
        equal = sum(
            loaded.model_dump(include=fields) == saved.model_dump()
            for saved, loaded in zip(conversations, store.iter_conversations(), strict=True)
        )
        said.append(f"{equal:,} of {len(conversations):,} are equal to what was saved")

    print(f"\nNow try: duckdb {shown(database)}   or open {shown(parquet)} in anything.")


def show_filtered(store: SQLStorage) -> None:
    """Load the best rated talks on one prompt, and print one of them."""
    filters = [("metadata.prompt", "==", PROMPT), ("metadata.ratings.interesting", ">=", 9)]
    order_by = [("metadata.ratings.witty", -1), ("metadata.start", 1)]
    with step(f'Filter and sort: "{PROMPT}", rated 9 or more as interesting') as said:
        matching = store.count_conversations(filters)
        best = store.load_conversations(limit=3, filters=filters, order_by=order_by)
        said.append(f"{matching:,} match, {len(best)} of them loaded, the wittiest first")
    for record in best:
        print(f"    {record.metadata['start']}  {record.metadata['ratings']}")
    lengths = [len(record.conversations) for record in best]
    chosen = best[lengths.index(max(lengths))]
    print(f"\nOne of them, its first messages ({chosen.metadata['id']}):")
    for entry in chosen.conversations[:6]:
        first_line, *more_lines = entry.content.splitlines() or [""]
        print(f"    {entry.role.value:>9}: {first_line}")
        for line in more_lines:
            print(f"    {'':>9}  {line}")


def show_scan(store: SQLStorage) -> None:
    """Count the conversations of each prompt in Arrow: only one column is read, no record built."""
    with step("Scan one column into Arrow and group by it") as said:
        table = store.scan_conversations(columns=["metadata.prompt"]).read_all()
        groups = table.group_by("metadata.prompt").aggregate([([], "count_all")])
        groups = groups.sort_by([("count_all", "descending")])
        said.append(f"{table.num_rows:,} rows, {groups.num_rows} prompts")
    for row in groups.slice(0, 5).to_pylist():
        print(f"    {row['count_all']:>5}  {row['metadata.prompt'] or '(no prompt)'}")


def show_sql(store: SQLStorage) -> None:
    """Ask SQL of the view ``messages``, which has a row for each message."""
    query = (
        "SELECT role, count(*) AS messages, round(avg(length(content)), 1) AS characters\n"
        "FROM messages GROUP BY role ORDER BY role"
    )
    with step("SQL through store.engine:\n    " + query.replace("\n", "\n    ")) as said:
        with store.engine.connect() as connection:
            rows = connection.execute(text(query)).all()
        said.append(f"{len(rows)} rows")
    for role, messages, characters in rows:
        print(f"    {role:>9}  {messages:>7,} messages, {characters} characters on average")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo from the command line; the exit code is 0, or 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m afterimage.storage.demo",
        description="Real conversations into JSONL and DuckDB, and out as records, Arrow, SQL "
        "answers and Parquet.",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("chitchat-demo"),
        help="folder for the files; those of an earlier run are replaced (default: %(default)s)",
    )
    directory = parser.parse_args(arguments).dir
    try:
        run(directory)
    except (StorageError, ModuleNotFoundError, OSError) as error:
        print(f"The demo stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
