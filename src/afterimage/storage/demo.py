"""A demonstration on real data: ``python -m afterimage.storage.demo [--dir DIR]``.

The 7,168 conversations of the PyPI package ``chitchat-dataset`` are saved to a JSONL file and
imported into a DuckDB file. They are then read with filters and sort keys, scanned as Arrow,
queried with SQL, and exported as Parquet and as a page to look at. The demo uses only the public
API, so every step can be copied.
"""

from __future__ import annotations

import argparse
import importlib.resources
import importlib.util
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources.abc import Traversable
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
PAGE_RECORDS = 300


def chitchat_conversations() -> Iterator[ConversationWithContext]:
    """Yield the conversations of the PyPI package ``chitchat-dataset``, in its order.

    The first speaker has the role user, the other one assistant. Consecutive utterances of one
    speaker are one message with one line per utterance, so roles alternate strictly, as chat
    templates require. No utterance contains a line break, so a message can be split again.

    ``metadata`` always has ``id`` and ``start``; it has ``prompt`` and ``ratings`` if the data has
    them.

    Raises:
        ModuleNotFoundError: ``chitchat-dataset`` is not installed.
    """
    source: dict[str, dict[str, Any]] = json.loads((_package() / "dataset.json").read_bytes())
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


def _package() -> Traversable:
    try:
        return importlib.resources.files("chitchat_dataset")
    except ModuleNotFoundError:
        msg = (
            "The demo reads its conversations from the package chitchat-dataset, which is not "
            "installed: pip install 'afterimage-storage[demo]'"
        )
        raise ModuleNotFoundError(msg, name="chitchat_dataset") from None


@contextmanager
def step(title: str) -> Iterator[list[str]]:
    """Print ``title``, the results that the block appends to the list, and the elapsed time."""
    print(f"\n{title}", flush=True)
    results: list[str] = []
    started = time.perf_counter()
    yield results
    seconds = time.perf_counter() - started
    print(f"  {'; '.join(results)} ({seconds:.2f} s)", flush=True)


def shown(path: Path) -> str:
    """Return the path relative to the working directory."""
    return os.path.relpath(path)


def size(path: Path) -> str:
    """Return the size of the file, in megabytes of 10^6 bytes."""
    return f"{path.stat().st_size / 1e6:.1f} MB"


def run(directory: Path) -> None:
    """Run all steps with their files in ``directory``, and print the result of each.

    Files of an earlier run are replaced.
    """
    _package()
    directory.mkdir(parents=True, exist_ok=True)
    with step("Read the chitchat dataset") as results:
        conversations = list(chitchat_conversations())
        messages = sum(len(record.conversations) for record in conversations)
        results.append(f"{len(conversations):,} conversations, {messages:,} messages")

    jsonl = directory / "chitchat.jsonl"
    database = directory / "chitchat.duckdb"
    parquet = directory / "chitchat.parquet"
    page = directory / "chitchat.html"
    # A killed run may have left a write-ahead log. It must not be applied to the new database.
    for path in (jsonl, database, directory / "chitchat.duckdb.wal", parquet, page):
        if path.exists():
            path.unlink()
            print(f"Removed {shown(path)} of an earlier run.")

    with step(f"Save them as JSON lines: {shown(jsonl)}") as results:
        JSONLStorage(conversations_path=jsonl).save_conversations([*conversations])
        results.append(f"{len(conversations):,} conversations, {size(jsonl)}")

    with step(f"Import it into DuckDB, with a column for the prompt: {shown(database)}") as results:
        store = SQLStorage(f"duckdb:///{database}", metadata_fields=["prompt"])
        imported = store.import_jsonl(jsonl)
        results.append(f"{imported:,} conversations, {size(database)}")

    show_filtered(store)
    show_scan(store)
    show_sql(store)

    with step(f"Export everything as Parquet: {shown(parquet)}") as results:
        exported = store.export_parquet(parquet)
        rows = pyarrow.parquet.read_metadata(parquet).num_rows
        results.append(f"{exported:,} conversations, {size(parquet)}, pyarrow reads {rows:,} rows")

    with step("Load all of it back and compare") as results:
        fields = set(ConversationWithContext.model_fields)
        equal = sum(
            loaded.model_dump(include=fields) == saved.model_dump()
            for saved, loaded in zip(conversations, store.iter_conversations(), strict=True)
        )
        results.append(f"{equal:,} of {len(conversations):,} are equal to the saved ones")

    with step("Write some of them as a page, to search and read in a browser") as results:
        written = store.export_html(page, limit=None, sample=PAGE_RECORDS, title="chitchat")
        results.append(f"{written:,} conversations, {size(page)}")

    print(f"\nNow open {shown(page)} in a browser. It needs no network.")
    if commands := next_commands(database):
        print("Then try:")
        for command in commands:
            print(f"    {shlex.join(command)}")


def next_commands(database: Path) -> list[list[str]]:
    """Return commands about the database that work in this environment."""
    commands = []
    if importlib.util.find_spec("click") and importlib.util.find_spec("rich"):
        script = Path(sys.executable).with_name("afterimage-storage")
        module = [sys.executable, "-m", "afterimage.storage"]
        program = [shown(script)] if script.exists() else module
        store = shown(database)
        lines = shown(database.with_name("train.jsonl"))
        commands += [
            [*program, "head", store, "--where", "messages.content icontains teleport"],
            [*program, "export", store, lines, "--format", "messages", "--trim"],
            [*program, "sql", store, "SELECT role, count(*) AS n FROM messages GROUP BY role"],
        ]
    if shutil.which("duckdb"):
        commands.append(["duckdb", "-readonly", shown(database), "-c", "SUMMARIZE messages"])
    return commands


def show_filtered(store: SQLStorage) -> None:
    """Load the best-rated conversations on one prompt, and print one of them."""
    filters = [("metadata.prompt", "==", PROMPT), ("metadata.ratings.interesting", ">=", 9)]
    order_by = [("metadata.ratings.witty", -1), ("metadata.start", 1)]
    with step(f'Filter and sort: "{PROMPT}", rated 9 or more as interesting') as results:
        matching = store.count_conversations(filters)
        best = store.load_conversations(limit=3, filters=filters, order_by=order_by)
        results.append(f"{matching:,} match; loaded the {len(best)} wittiest")
    for record in best:
        print(f"    {record.metadata['start']}  {record.metadata['ratings']}")
    lengths = [len(record.conversations) for record in best]
    chosen = best[lengths.index(max(lengths))]
    print(f"\nThe first messages of conversation {chosen.metadata['id']}:")
    for entry in chosen.conversations[:6]:
        first_line, *more_lines = entry.content.splitlines() or [""]
        print(f"    {entry.role.value:>9}: {first_line}")
        for line in more_lines:
            print(f"    {'':>9}  {line}")


def show_scan(store: SQLStorage) -> None:
    """Count conversations by prompt in Arrow. Only one column is read and no model is built."""
    with step("Scan one column into Arrow and group by it") as results:
        table = store.scan_conversations(columns=["metadata.prompt"]).read_all()
        groups = table.group_by("metadata.prompt").aggregate([([], "count_all")])
        groups = groups.sort_by([("count_all", "descending")])
        results.append(f"{table.num_rows:,} rows, {groups.num_rows} prompts")
    for row in groups.slice(0, 5).to_pylist():
        print(f"    {row['count_all']:>5}  {row['metadata.prompt'] or '(no prompt)'}")


def show_sql(store: SQLStorage) -> None:
    """Query the view ``messages``, which has one row per message, with SQL."""
    query = (
        "SELECT role, count(*) AS messages, round(avg(length(content)), 1) AS characters\n"
        "FROM messages GROUP BY role ORDER BY role"
    )
    with step("SQL through store.engine:\n    " + query.replace("\n", "\n    ")) as results:
        with store.engine.connect() as connection:
            rows = connection.execute(text(query)).all()
        results.append(f"{len(rows)} rows")
    for role, messages, characters in rows:
        print(f"    {role:>9}  {messages:>7,} messages, {characters} characters on average")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo from the command line. Return the exit code: 0, or 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m afterimage.storage.demo",
        description="Save real conversations to JSONL and DuckDB, and read them as records, as "
        "Arrow, with SQL, as Parquet and as a page.",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("chitchat-demo"),
        help="folder for the files; files of an earlier run are replaced (default: %(default)s)",
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
