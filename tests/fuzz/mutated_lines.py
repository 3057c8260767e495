"""One damaged JSONL file: checks every guarantee about it.

The expectation is computed per line. An undamaged line must give its record, as pydantic parses it.
Any other line must give the same result as in its own file, in every call.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from afterimage.storage import (
    CorruptRecordError,
    Document,
    JSONLStorage,
    SkippedRecords,
    SkippedRecordsWarning,
    SQLStorage,
    StorageError,
    UnsupportedFileError,
    verify_jsonl,
)
from afterimage.storage.reports.faults import Place
from tests.fuzz.mutations import BINARY, LINES, damaged
from tests.fuzz.sound_lines import (
    SOUND_LINES,
    holds_a_conversation,
    is_nested_to_the_limit,
    names_twice,
    packed,
    parsed,
    unpacked,
)
from tests.support.plain_python import same, select
from tests.support.records import conversation

SUFFIXES = {"jsonl": "", "jsonl.gz": ".gz", "jsonl.zst": ".zst"}

LONGEST_MESSAGE = 1000

_NEW = conversation("saved after the damage")
_NEW_DOCUMENT = Document(id="saved after the damage")


class Outcome(NamedTuple):
    """The result of one file.

    Attributes:
        what: the result in a few words.
        mutations: the names of the mutations.
    """

    what: str
    mutations: list[str]


def try_file(kind: str, seed: int, number: int, folder: Path) -> Outcome:
    """Create the damaged file with that number, and check the guarantees.

    Raises:
        AssertionError: a guarantee is broken.
        Exception: any error that is not a `StorageError`.
    """
    rng = random.Random(f"{seed} {kind} {number}")
    case = _Case(folder, "documents" if rng.random() < 0.25 else "conversations", SUFFIXES[kind])
    known = SOUND_LINES[case.kind]
    text = b"".join(line + b"\n" for line in rng.choices(list(known), k=rng.randint(1, 12)))
    if not case.suffix:
        if rng.random() < 0.1:
            return _with_a_mark(case, text, rng)
        data, names = damaged(text, rng, LINES)
    elif rng.random() < 0.3:
        text, names = damaged(text, rng, LINES)
        data = packed(text, case.suffix, rng)
    else:
        data, names = damaged(packed(text, case.suffix, rng), rng, BINARY)
    case.path.write_bytes(data)
    return Outcome(_check(case, data, names, rng), names)


class _Case:
    """A damaged file that is one of the two files of a storage, and the calls for its kind."""

    def __init__(self, folder: Path, kind: str, suffix: str) -> None:
        self.kind = kind
        self.suffix = suffix
        self.folder = folder
        self.path = folder / f"damaged.jsonl{suffix}"
        self.store = self.open(self.path)

    def open(self, path: Path) -> JSONLStorage:
        other = self.folder / "other.jsonl"
        return JSONLStorage(
            *((path, other) if self.kind == "conversations" else (other, path)), lock_timeout=5
        )

    def call(self, what: str, *arguments: Any, store: Any = None, **keywords: Any) -> Any:
        return getattr(store or self.store, f"{what}_{self.kind}")(*arguments, **keywords)

    def alone(self, line: bytes) -> list[Any]:
        """The result of a line in its own file."""
        path = self.folder / "alone.jsonl"
        path.write_bytes(line + b"\n")
        found: list[Any]
        with _skipped() as reports:
            try:
                found = self.call("load", store=self.open(path), on_error="skip")
            except UnsupportedFileError:  # in its own file, `[{}]` is a JSON array
                return []
        assert len(found) + sum(each.count for each in reports) <= 1
        return found if found or reports else _NO_RECORD_OF_THIS_KIND


_NO_RECORD_OF_THIS_KIND: list[Any] = [None]


def _check(case: _Case, data: bytes, names: list[str], rng: random.Random) -> str:
    with _skipped() as reports:
        found = case.call("load", on_error="skip")
    skipped = sum(report.count for report in reports)
    first = reports[0].places[0] if reports else None
    text, whole = unpacked(data, case.suffix)
    expected, bad, others = _expected(case, text)
    if whole:
        assert _alike(case, found, expected, text), "load(skip) is not what its lines give"
        assert skipped == len(bad), f"{skipped} skipped, {len(bad)} corrupt"
        if reports:
            places = [(place.line, place.offset) for place in reports[0].places]
            assert places == bad[: len(places)], "the report names other lines"
    else:
        # It is not guaranteed how much of a damaged compressed file is read before the error.
        assert first is not None, "damaged packing is not reported"
        assert _alike(case, found, expected[: len(found)], text), "records out of nothing"
    _whole_or_refused(case, found, first, text)
    if case.kind == "documents" and holds_a_conversation(text):
        return "documents with a conversation among them: loads alone are checked"
    if is_nested_to_the_limit(text):
        return "nested right to the limit of readers: loads alone are checked"
    _verified(case, len(found), skipped, len(others) if whole else None)
    _queried(case, found, skipped, text, rng)
    _imported(case, found, first, rng, text)
    if not case.suffix:
        _appended(case, found, data)
    if not whole:
        return "packing damaged: what comes before is given"
    return f"{'some' if found else 'all'} lines corrupt, reported" if skipped else "all lines sound"


def _expected(case: _Case, text: bytes) -> tuple[list[Any], list[tuple[int, int]], list[bytes]]:
    """The records of the lines, the places of corrupt lines, and the lines of other models."""
    records: list[Any] = []
    bad: list[tuple[int, int]] = []
    others: list[bytes] = []
    known = SOUND_LINES[case.kind]
    start = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    offset = start
    for number, line in enumerate(text[start:].split(b"\n"), 1):
        if line.strip():
            given = [known[line]] if line in known else case.alone(line)
            if given == _NO_RECORD_OF_THIS_KIND:
                others.append(line)
            elif given:
                assert isinstance(parsed(line), dict), "a record out of what is no object"
                records += given
            else:
                bad.append((number, offset))
        offset += len(line) + 1
    return records, bad, others


def _whole_or_refused(case: _Case, found: list[Any], first: Place | None, text: bytes) -> None:
    """By default, a load returns everything, or names the first line without a valid record."""
    try:
        everything = case.call("load")
    except CorruptRecordError as error:
        _is_the_first(error, first)
    else:
        assert first is None, "load(skip) skips and load does not raise"
        assert _alike(case, everything, found, text)


def _verified(case: _Case, sound: int, skipped: int, others: int | None) -> None:
    reports = [
        verify_jsonl(case.path, kind="documents" if case.kind == "documents" else "conversations"),
        case.store.verify(),
    ]
    for report in reports:
        assert (report.conversations, report.documents)[case.kind == "documents"] == sound
        assert report.corrupt.count + report.torn_tails.count == skipped, "verify finds otherwise"
        assert others in (None, report.records)
        assert report.ok == (not skipped and not report.duplicate_ids)
        assert len(str(report)) < 4 * LONGEST_MESSAGE


def _queried(case: _Case, found: list[Any], skipped: int, text: bytes, rng: random.Random) -> None:
    """Check some of the calls that the engine answers; each takes longer than a load."""
    column = "text" if case.kind == "documents" else "final_score"
    filters = [(column, "!=", None), ("metadata.n", "!=", "a")]
    order_by = [("metadata.n", -1)]
    # Known: of duplicate keys in an object, a load uses the last one and the engine the first one.
    as_python = not names_twice(text)
    with _skipped() as reports:
        which = rng.choice(["filter", "order", "scan"])
        if which == "filter":
            given = case.call("load", filters=filters, on_error="skip")
            assert case.call("count", filters, on_error="skip") == len(given)
            if as_python:
                expected = select(found, filters)
                assert _alike(case, given, expected, text), "a filter differs from Python's"
        elif which == "order":
            given = case.call("load", order_by=order_by, on_error="skip")
            assert len(given) == len(found)
            if as_python:
                expected = select(found, order_by=order_by)
                assert _alike(case, given, expected, text), "an order differs from Python's"
        else:
            given = case.call("scan", [column, "metadata"], on_error="skip").read_all()
            assert given.num_rows == len(found)
            assert case.call("count", on_error="skip") == len(found)
    assert {report.count for report in reports} == ({skipped} if skipped else set())
    calls: list[Callable[[], Any]] = [
        lambda: case.call("load", filters=filters),
        lambda: case.call("load", order_by=order_by, limit=3),
        lambda: case.call("count"),
        lambda: case.call("scan").read_all(),
        case.store.stats,
    ]
    _answers_or_refuses(rng.choice(calls))


def _imported(
    case: _Case, found: list[Any], first: Place | None, rng: random.Random, text: bytes
) -> None:
    targets: list[Any] = [case.open(case.folder / "imported.jsonl")]
    if rng.random() < 0.25:  # it takes longer than all other checks
        targets.append(_emptied_database())
    for target in targets:
        try:
            target.import_jsonl(case.path, kind=case.kind)
        except CorruptRecordError as error:
            _is_the_first(error, first)
            assert case.call("count", store=target) == 0, "part of a refused import is there"
            with _skipped():
                target.import_jsonl(case.path, kind=case.kind, on_error="skip")
        else:
            assert first is None, "an import takes what a load refuses"
        assert _alike(case, case.call("load", store=target), found, text), "an import differs"


@cache
def _database() -> SQLStorage:
    return SQLStorage("duckdb:///:memory:")


def _emptied_database() -> SQLStorage:
    """One database for all files, emptied: creating one takes longer than an import."""
    with _database().engine.begin() as connection:
        for table in ("conversations", "documents", "records"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    return _database()


def _appended(case: _Case, found: list[Any], data: bytes) -> None:
    new = _NEW if case.kind == "conversations" else _NEW_DOCUMENT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            case.call("save", [new])
        except StorageError:  # the last line cannot be the start of a record
            assert case.path.read_bytes() == data, "a refused save changes the file"
            return
    with _skipped():
        after = case.call("load", on_error="skip")
    assert _alike(case, after, [*found, new], data), "a save after the damage loses records"
    kept = case.path.read_bytes()
    aside = [path.read_bytes() for path in case.folder.glob(f"{case.path.name}.torn-*")]
    assert kept.startswith(data[: len(data) - sum(map(len, aside))]), "bytes are gone"
    assert b"".join([data[: len(data) - sum(map(len, aside))], *aside]) == data, "bytes are gone"


def _with_a_mark(case: _Case, text: bytes, rng: random.Random) -> Outcome:
    """Check a file with part of a save and a damaged `.saving` file: no complete line is lost.

    It is not guaranteed whether the contents of the damaged `.saving` file are used.
    """
    ends = [0, *(at + 1 for at, byte in enumerate(text) if byte == 10)]
    start = rng.choice(ends[:-1])
    mark = b"%d %d\n" % (start, len(text) - start + 50) + text[start : start + 4096]
    mark, names = damaged(mark, rng, BINARY)
    case.path.with_name(f"{case.path.name}.saving").write_bytes(mark)
    case.path.write_bytes(text)
    sound = _expected(case, text)[0]
    found = case.call("load")
    assert _alike(case, found, sound[: len(found)], text), "a part of a save is read"
    new = _NEW if case.kind == "conversations" else _NEW_DOCUMENT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        case.call("save", [new])
    assert _alike(case, case.call("load"), [*found, new], text)
    aside = b"".join(path.read_bytes() for path in case.folder.glob(f"{case.path.name}.torn-*"))
    assert text[: len(text) - len(aside)] + aside == text, "bytes are gone"
    assert case.path.read_bytes().startswith(text[: len(text) - len(aside)]), "bytes are gone"
    return Outcome("half a save, its mark damaged: all bytes are kept", [*names, "mark"])


# -- expected results of calls ------------------------------------------------------------------


@contextmanager
def _skipped() -> Iterator[list[SkippedRecords]]:
    """Collect the reports of skipped records; every other warning is an error."""
    reports: list[SkippedRecords] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield reports
    for warning in caught:
        assert isinstance(warning.message, SkippedRecordsWarning), str(warning.message)[:500]
        assert len(str(warning.message)) < 3 * LONGEST_MESSAGE
        reports.append(warning.message.report)


def _answers_or_refuses(call: Callable[[], Any]) -> None:
    try:
        call()
    except StorageError as error:
        _is_short(error)


def _is_the_first(error: CorruptRecordError, first: Place | None) -> None:
    _is_short(error)
    assert first is not None, "refused, and by load(skip) it is not"
    assert (error.line, error.offset) == (first.line, first.offset), "names another line"


def _is_short(error: StorageError) -> None:
    assert len(str(error)) < LONGEST_MESSAGE, f"a message of {len(str(error))} characters"
    assert len(str(error).splitlines()) <= 3


def _alike(case: _Case, left: list[Any], right: list[Any], text: bytes) -> bool:
    if case.kind == "documents":
        return same([_told(each, text) for each in left], [_told(each, text) for each in right])
    return same(left, right)


def _told(document: Document, text: bytes) -> Document:
    """The document without its id if the line has none; each load then makes a new id."""
    given = len(document.id) == 36 and document.id.encode() not in text
    return document.model_copy(update={"id": "given"}) if given else document
