"""One damaged DuckDB file: whatever is left of it, every call answers or raises a `StorageError`.

DuckDB keeps a checksum of each block, so a load that answers must answer with what was saved. Two
blocks that changed places pass the checksum, and DuckDB itself may crash on them (seed 1, `duckdb`,
number 272), which nothing outside of it can foresee. After each file a sound one is read, too: what
one file does to the engine must not reach another.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from afterimage.storage import (
    Document,
    EvaluatedConversationWithContext,
    InvalidQueryError,
    SQLStorage,
    StorageError,
)
from tests.fuzz.mutated_lines import LONGEST_MESSAGE, Outcome
from tests.fuzz.mutations import BINARY, damaged
from tests.support.plain_python import same
from tests.support.records import ALL_SORTS, Note, conversation, evaluation

KINDS = ("duckdb", "duckdb.wal")

_NOTE = Note(title="of another model", body=[1, {"n": 2}])
_DOCUMENTS = [Document(id=f"d{at}", text="x" * at, metadata={"n": at}) for at in range(30)]
_BATCHES: list[list[Any]] = [
    [*ALL_SORTS[:2], conversation(f"{batch} {at}", {"n": at}, evaluation=evaluation())]
    for batch in range(3)
    for at in range(2)
]
_LOADED = [
    EvaluatedConversationWithContext.model_validate(each.model_dump())
    for batch in _BATCHES
    for each in batch
]


def make_sound(folder: Path) -> None:
    """The files that are damaged: a database, and one with a log that was not worked in yet."""
    store = SQLStorage(f"duckdb:///{folder / 'sound.duckdb'}", metadata_fields=["n"])
    _save(store, _BATCHES)
    logged = SQLStorage(f"duckdb:///{folder / 'logged.duckdb'}", metadata_fields=["n"])
    _save(logged, _BATCHES[:2])
    path = folder / "logged.duckdb"
    with logged.engine.connect() as connection:  # while it is open, saves stay in the log
        connection.exec_driver_sql("SET wal_autocheckpoint = '1GB'")
        for batch in _BATCHES[2:]:
            logged.save_conversations(batch)
        for name in (path.name, f"{path.name}.wal"):
            shutil.copyfile(folder / name, folder / f"copy of {name}")


def _save(store: SQLStorage, batches: list[Any]) -> None:
    store.save_documents(_DOCUMENTS)
    store.save_conversations([_NOTE])
    for batch in batches:
        store.save_conversations(batch)


def try_file(kind: str, seed: int, number: int, folder: Path, sound: Path) -> Outcome:
    """Make the damaged file with that number, and call everything.

    Raises:
        AssertionError: a call gives what was not saved, or a message is long.
        Exception: anything that is not a `StorageError`, from wherever it comes.
    """
    rng = random.Random(f"{seed} {kind} {number}")
    path = folder / "damaged.duckdb"
    if kind == "duckdb":
        data, names = damaged(_bytes(sound / "sound.duckdb"), rng, BINARY)
        path.write_bytes(data)
    else:
        shutil.copyfile(sound / "copy of logged.duckdb", path)
        data, names = damaged(_bytes(sound / "copy of logged.duckdb.wal"), rng, BINARY)
        path.with_name(f"{path.name}.wal").write_bytes(data)
    refused = _tried(path, rng, kind)
    _a_sound_one_is_read(sound / "sound.duckdb")
    return Outcome(refused, names)


def _tried(path: Path, rng: random.Random, kind: str) -> str:
    store = _answer(lambda: SQLStorage(f"duckdb:///{path}", lock_timeout=2))
    if store is None:
        return "cannot be opened: StorageError"
    calls: list[Callable[[], Any]] = [
        store.load_conversations,
        lambda: store.load_conversations(on_error="skip"),
        lambda: store.load_conversations(filters={"metadata.n": 1}, order_by=[("persona", -1)]),
        lambda: list(store.iter_conversations(batch_size=3)),
        lambda: store.scan_conversations().read_all(),
        store.count_conversations,
        store.load_documents,
        lambda: store.count_documents(on_error="skip"),
        lambda: store.load_records(Note),
        store.stats,
        lambda: store.export_jsonl(path.with_name("out.jsonl")),
    ]
    loaded = _answer(calls[0])
    answers = [loaded, *(_answer(call) for call in calls[1:])]
    report = _answer(store.verify)
    assert report is None or len(str(report)) < 5 * LONGEST_MESSAGE
    if loaded is not None:
        assert same(loaded, _LOADED[: len(loaded)]), "records that were not saved"
        if kind == "duckdb":
            assert len(loaded) in (0, len(_LOADED)), "some of the records are missing, unsaid"
    saved = _answer(lambda: store.save_conversations([conversation("after")]) or True)
    if report is None:
        return "opens; verify raises a StorageError"
    if report.ok:
        assert None not in [*answers, saved], "verify finds nothing wrong, and a call fails"
        return "nothing is noticed: every call answers with what was saved"
    return "opens; verify names what cannot be read"


def _answer(call: Callable[[], Any]) -> Any:
    """What a call gives; None where it raises a `StorageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return call()
    except StorageError as error:
        _is_short(error)
        return None


def _is_short(error: StorageError) -> None:
    assert len(str(error)) < LONGEST_MESSAGE, f"a message of {len(str(error))} characters"
    assert not isinstance(error, InvalidQueryError), str(error)


def _a_sound_one_is_read(path: Path) -> None:
    assert SQLStorage(f"duckdb:///{path}").count_conversations() == len(_LOADED)


@cache
def _bytes(path: Path) -> bytes:
    return path.read_bytes()
