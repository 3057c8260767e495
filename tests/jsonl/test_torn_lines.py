"""A write that broke off: the next save keeps the torn bytes aside and loses nothing."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock

from afterimage.storage import (
    Conversation,
    CorruptRecordError,
    Document,
    JSONLStorage,
    LockTimeoutError,
    SkippedRecordsWarning,
    verify_jsonl,
)


def record(text: str) -> Conversation:
    return Conversation(conversations=[], metadata={"text": text})


def texts(store: JSONLStorage) -> list[str]:
    return [found.metadata["text"] for found in store.load_conversations()]


@pytest.fixture
def store(tmp_path: Path) -> JSONLStorage:
    return JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl")


class Kind(NamedTuple):
    """Conversations or documents, of which one text each is told."""

    path: Path
    save: Callable[[str], None]
    load: Callable[..., list[str]]


@pytest.fixture(params=["conversations", "documents"])
def kind(request: pytest.FixtureRequest, store: JSONLStorage) -> Kind:
    if request.param == "conversations":
        return Kind(
            store.conversations_path,
            lambda text: store.save_conversations([record(text)]),
            lambda **given: [r.metadata["text"] for r in store.load_conversations(**given)],
        )
    return Kind(
        store.documents_path,
        lambda text: store.save_documents([Document(text=text)]),
        lambda **given: [str(document.text) for document in store.load_documents(**given)],
    )


def torn(kind: Kind, *texts: str) -> Iterator[tuple[bytes, int, bytes]]:
    """The file cut at every byte of its last record: what was before, its end, and what is left."""
    for text in texts:
        kind.save(text)
    whole = kind.path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    assert any(byte > 127 for byte in whole[start:]), "cuts go through a character, too"
    for cut in range(start + 1, len(whole) - 1):
        kind.path.write_bytes(whole[:cut])
        yield whole[:start], start, whole[start:cut]


class TestTornLastLine:
    @pytest.mark.parametrize("before", [[], ["one"]], ids=["alone", "after another"])
    def test_a_save_after_a_cut_at_any_byte_keeps_what_is_left_aside(
        self, kind: Kind, before: list[str]
    ) -> None:
        for good, start, tail in torn(kind, *before, "zwei é 🚂"):
            with pytest.warns(UserWarning, match="torn record") as caught:
                kind.save("three")
            aside = kind.path.with_name(f"{kind.path.name}.torn-{start}")
            assert aside.name in str(caught[0].message)
            assert kind.load() == [*before, "three"]
            assert kind.path.read_bytes().startswith(good)
            assert aside.read_bytes() == tail
            aside.unlink()

    def test_until_then_a_load_names_it_and_one_that_skips_gives_the_rest(self, kind: Kind) -> None:
        for good, start, tail in torn(kind, "one", "zwei é 🚂"):
            with pytest.raises(CorruptRecordError) as caught:
                kind.load()
            assert (caught.value.path, caught.value.line) == (kind.path, 2)
            assert caught.value.offset == start
            with pytest.warns(SkippedRecordsWarning) as skipped:
                assert kind.load(on_error="skip") == ["one"]
            (warning,) = skipped
            assert isinstance(warning.message, SkippedRecordsWarning)
            (place,) = warning.message.report.places
            assert (place.line, place.offset) == (2, start)
            assert kind.path.read_bytes() == good + tail  # which neither of them changed

    def test_it_is_verified_as_such_after_a_cut_at_any_byte(self, kind: Kind) -> None:
        what: Any = {"talks": "conversations", "texts": "documents"}[kind.path.stem]
        for _, start, tail in torn(kind, "one", "zwei é 🚂"):
            report = verify_jsonl(kind.path, what)
            assert (report.documents + report.conversations, report.corrupt.count) == (1, 0)
            assert report.torn_tails.first == ((kind.path, 2, start, len(tail)),)

    def test_a_query_over_it_skips_it_as_well(self, store: JSONLStorage) -> None:
        store.save_conversations([record("one"), record("two"), record("three")])
        path = store.conversations_path
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(CorruptRecordError):
            store.load_conversations(filters={"metadata.text": "one"})
        for query in ({"filters": {"metadata.text": "two"}}, {"order_by": [("metadata.text", -1)]}):
            with pytest.warns(SkippedRecordsWarning, match=r"line 3 \("):
                found = store.load_conversations(**query, limit=1, on_error="skip")
            assert [each.metadata["text"] for each in found] == ["two"]

    def test_a_tail_longer_than_a_read(self, kind: Kind) -> None:
        kind.save("one")
        kind.save("x" * 200_000)
        whole = kind.path.read_bytes()
        kind.path.write_bytes(whole[:-1000])
        with pytest.warns(UserWarning, match="torn record"):
            kind.save("three")
        assert kind.load() == ["one", "three"]
        (aside,) = kind.path.parent.glob("*.torn-*")
        assert whole[:-1000].endswith(aside.read_bytes())
        assert aside.stat().st_size > 190_000

    @pytest.mark.parametrize("tail", [b" ", b"\t \r", b"\r"])
    def test_blanks_at_the_end_are_no_torn_record(self, kind: Kind, tail: bytes) -> None:
        kind.save("one")
        kind.path.write_bytes(kind.path.read_bytes() + tail)
        kind.save("two")
        assert kind.load() == ["one", "two"]
        assert list(kind.path.parent.glob("*.torn-*")) == []

    def test_zeros_at_the_end_are_kept_aside(self, kind: Kind) -> None:
        # As a file system may leave them after a power cut.
        kind.save("one")
        kind.path.write_bytes(kind.path.read_bytes() + bytes(100))
        with pytest.warns(UserWarning, match="torn record.* 100 bytes"):
            kind.save("two")
        assert kind.load() == ["one", "two"]

    def test_a_whole_last_line_without_its_line_feed_is_kept(self, store: JSONLStorage) -> None:
        store.save_conversations([record("one")])
        path = store.conversations_path
        path.write_bytes(path.read_bytes().removesuffix(b"\n"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.save_conversations([record("two")])
        assert texts(store) == ["one", "two"]


def hold(path: Path, held: object, done: object) -> None:
    with FileLock(path):
        held.set()  # type: ignore[attr-defined]
        done.wait(30)  # type: ignore[attr-defined]


class TestLocks:
    def test_a_save_gives_up_in_time_and_names_the_holder(self, tmp_path: Path) -> None:
        store = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl", lock_timeout=1)
        spawn = multiprocessing.get_context("spawn")
        held, done = spawn.Event(), spawn.Event()
        holder = spawn.Process(target=hold, args=[store.conversations_lock_path, held, done])
        holder.start()
        try:
            assert held.wait(30)
            with pytest.raises(LockTimeoutError, match=rf"process {holder.pid}\b"):
                store.save_conversations([record("one")])
        finally:
            done.set()
            holder.join()
        store.save_conversations([record("one")])
        assert texts(store) == ["one"]
