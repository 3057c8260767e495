"""Signals at chosen moments of a call: its exception is raised after the call has cleaned up."""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from filelock import FileLock, Timeout
from pydantic import BaseModel, field_validator

from afterimage.storage import Document, StorageError
from afterimage.storage.system import streams
from afterimage.storage.system.interrupts import deferred_signals
from afterimage.storage.system.locks import lock_path
from afterimage.storage.system.streams import RecordIterator
from tests.support.processes import KINDS, child, opened, told_by
from tests.support.records import numbered_batch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")


# A stop takes less than a second on a machine that does nothing else.
_SOON = 5


class _TookTooLong(Exception):  # noqa: N818  it stands for any exception of a program
    pass


def _refuse(number: int, frame: FrameType | None) -> None:
    raise _TookTooLong


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Sets when SIGALRM comes, whose handler raises.

    Where a test sets it, the handler raises once only: a second exception, of a later alarm or of
    a signal that is sent again, could come in the middle of pytest, which would end the whole run.
    """
    came: list[int] = []

    def refuse_once(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            _refuse(number, frame)

    def set_alarm(seconds: float) -> None:
        signal.signal(signal.SIGALRM, refuse_once)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, _refuse)
    yield set_alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _signal_now(*_: object) -> None:
    signal.raise_signal(signal.SIGALRM)


def _lock_file(storage: Any) -> Path:
    if hasattr(storage, "engine"):
        return lock_path(Path(storage._backend.database.name))
    return Path(storage.conversations_lock_path)


def _is_free(storage: Any) -> bool:
    try:
        FileLock(_lock_file(storage)).acquire(blocking=False).lock.release()
    except Timeout:
        return False
    return True


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return opened(request.param, tmp_path)


@pytest.mark.usefixtures("alarm")
class TestMoments:
    @pytest.mark.parametrize("call", ["save_conversations", "load_conversations"])
    def test_a_wait_for_another_process_ends(
        self, storage: Any, call: str, alarm: Callable[[float], None]
    ) -> None:
        storage.save_conversations(numbered_batch(0, 1))
        arguments = [numbered_batch(1, 1)] if call == "save_conversations" else []
        with FileLock(_lock_file(storage)):
            alarm(0.2)
            started = time.monotonic()
            with pytest.raises(_TookTooLong):
                getattr(storage, call)(*arguments)
            assert time.monotonic() - started < _SOON
        assert storage.count_conversations() == 1

    def test_a_wait_for_another_thread_ends(
        self, tmp_path: Path, alarm: Callable[[float], None]
    ) -> None:
        storage: Any = opened("sql", tmp_path)
        has_turn, end = threading.Event(), threading.Event()

        def hold() -> None:
            with storage._backend.database.catalog.write_turn():
                has_turn.set()
                end.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        assert has_turn.wait(10)
        alarm(0.2)
        with pytest.raises(_TookTooLong):
            storage.save_conversations(numbered_batch(1, 1))
        end.set()
        thread.join()
        storage.save_conversations(numbered_batch(1, 1))
        assert storage.count_conversations() == 1

    def test_an_import_that_is_ended_saves_nothing(self, storage: Any, tmp_path: Path) -> None:
        storage.save_documents([Document(text="a")])
        (tmp_path / "more.jsonl").write_text('{"text":"b"}\n' * 9000)
        with pytest.raises(_TookTooLong):
            storage.import_jsonl(tmp_path / "more.jsonl", kind="documents", progress=_signal_now)
        assert storage.count_documents() == 1
        assert _is_free(storage)

    @pytest.mark.parametrize("call", ["export_jsonl", "export_parquet"])
    def test_an_export_that_is_ended_leaves_the_earlier_file(
        self, storage: Any, tmp_path: Path, call: str
    ) -> None:
        storage.save_conversations(numbered_batch(0, 3000))
        (tmp_path / "out").write_text("earlier")
        with pytest.raises(_TookTooLong):
            getattr(storage, call)(tmp_path / "out", progress=_signal_now)
        assert (tmp_path / "out").read_text() == "earlier"
        assert list(tmp_path.glob(".*")) == []
        assert _is_free(storage)

    def test_a_slow_model_of_the_caller_is_ended_after_a_record(
        self, storage: Any, alarm: Callable[[float], None]
    ) -> None:
        checked: list[str] = []

        class Slow(BaseModel):
            text: str

            @field_validator("text")
            @classmethod
            def check(cls, value: str) -> str:
                checked.append(value)
                time.sleep(0.05)
                return value

        storage.save_conversations([Slow(text="a")] * 20)
        checked.clear()
        alarm(0.2)
        with pytest.raises(_TookTooLong):
            storage.load_records(Slow)
        assert len(checked) < 20

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT sum(hash(a.range * b.range)) FROM range(100000) a, range(20000) b",
            "SELECT range FROM range(20000000) WHERE hash(range) % 3 = 0",
        ],
    )
    def test_a_statement_of_the_caller_is_ended(
        self, tmp_path: Path, alarm: Callable[[float], None], query: str
    ) -> None:
        storage: Any = opened("sql", tmp_path)
        with storage.engine.connect() as connection:
            alarm(0.3)
            started = time.monotonic()
            with pytest.raises(_TookTooLong):
                connection.exec_driver_sql(query).all()
            assert time.monotonic() - started < _SOON
        assert _is_free(storage)

    def test_rows_that_are_fetched_in_parts_are_all_there(self, tmp_path: Path) -> None:
        storage: Any = opened("sql", tmp_path)
        with storage.engine.connect() as connection:
            for many in (0, 1, 49_999, 50_000, 50_001, 100_000, 120_000):
                rows = connection.exec_driver_sql(f"SELECT range FROM range({many})").all()
                assert [row[0] for row in rows] == [*range(many)]

    def test_a_scan_is_closed_before_the_exception_comes(self, storage: Any) -> None:
        storage.save_conversations(numbered_batch(0, 4000))
        reader = storage.scan_conversations(progress=_signal_now)
        with pytest.raises(_TookTooLong):
            reader.read_all()
        assert _is_free(storage)

    def test_an_iterator_is_closed_before_the_exception_comes(
        self, storage: Any, alarm: Callable[[float], None]
    ) -> None:
        storage.save_conversations(numbered_batch(0, 4000))
        with pytest.raises(_TookTooLong) as found:  # noqa: PT012
            for _ in range(1000):
                records = storage.iter_conversations(batch_size=4000)
                alarm(0.02)
                next(records)
        assert _is_free(storage)
        assert found.value.__context__ is None
        del records

    def test_a_thread_that_shares_an_iterator_gets_an_error(
        self, alarm: Callable[[float], None]
    ) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def batches() -> Any:
            yield [1]
            begun.set()
            go_on.wait(30)
            yield [2]

        records = RecordIterator(batches())
        found: list[str] = []

        def read() -> None:
            try:
                list(records)
            except StorageError as error:
                found.append(str(error))

        thread = threading.Thread(target=read)
        thread.start()
        assert begun.wait(10)
        threading.Timer(0.3, go_on.set).start()
        alarm(0.1)
        with pytest.raises(_TookTooLong):
            next(records)
        thread.join(10)
        assert found == [
            "this iteration was ended by a signal to the main thread. Call the storage again."
        ]


def _handlers() -> dict[str, Any]:
    class Refusing:
        def __call__(self, number: int, frame: FrameType | None) -> None:
            raise _TookTooLong

        def method(self, number: int, frame: FrameType | None) -> None:
            self(number, frame)

    return {
        "function": _refuse,
        "function inside": lambda *signal_and_frame: _refuse(*signal_and_frame),  # noqa: PLW0108
        "method": Refusing().method,
        "object": Refusing(),
        "partial": functools.partial(lambda text, number, frame: _refuse(number, frame), "x"),
    }


@pytest.mark.usefixtures("alarm")
class TestFinalizers:
    """Python drops an exception in a finalizer, so the signal is sent again after it."""

    def test_a_signal_in_one_wakes_the_thread_that_sleeps_after_it(self) -> None:
        def batches() -> Any:
            try:
                yield [1, 2]
                yield [3]
            finally:
                _signal_now()

        records = RecordIterator(batches())
        next(records)
        started = time.monotonic()
        with pytest.raises(_TookTooLong):  # noqa: PT012
            del records
            time.sleep(60)
        assert time.monotonic() - started < _SOON

    @pytest.mark.parametrize("name", _handlers())
    def test_a_signal_between_any_two_steps_of_one_is_not_lost(self, name: str) -> None:
        signal.signal(signal.SIGALRM, _handlers()[name])
        closed: list[int] = []
        steps = [0]

        def batches(at: int) -> Any:
            try:
                yield [1, 2]
            finally:
                closed.append(at)

        unlooked = {streams._closed_when_dropped.__code__, batches.__code__}

        def signal_at_step(frame: FrameType, event: str, argument: Any) -> None:
            # Python looks for signals where a function begins, and after one written in C.
            is_look = event == "c_return" or (event == "call" and frame.f_code not in unlooked)
            if is_look and Path(frame.f_code.co_filename).parent.name == "system":
                steps[0] += 1
                if steps[0] == at:
                    sys.setprofile(None)
                    _signal_now()

        for at in itertools.count(1):
            records = RecordIterator(batches(at))
            next(records)
            steps[0] = 0
            try:
                sys.setprofile(signal_at_step)
                del records
                sys.setprofile(None)
                if steps[0] < at:  # it had no such step
                    break
                time.sleep(5)
                pytest.fail(f"the exception of step {at} is lost")
            except _TookTooLong:
                assert closed[-1] == at
        assert at > 20

    @pytest.mark.process
    def test_a_handler_that_is_gone_by_then_does_not_end_the_process(self) -> None:
        with child(change_handlers_after_a_finalizer) as (process, pipe):
            assert told_by(process, pipe) == [{"default": 0, "ignored": 0, "other": 25}]


def change_handlers_after_a_finalizer(pipe: Connection) -> None:
    """Send how often each handler got a signal that came while another one was in place."""

    def batches() -> Any:
        try:
            yield [1, 2]
        finally:
            _signal_now()

    came: list[int] = []
    others: dict[str, Any] = {
        "default": signal.SIG_DFL,  # which ends the process
        "ignored": signal.SIG_IGN,
        "other": lambda number, frame: came.append(number),
    }
    found = {}
    for name, other in others.items():
        came.clear()
        for turn in range(25):
            signal.signal(signal.SIGALRM, _refuse)
            records = RecordIterator(batches())
            next(records)
            try:
                del records
                # In half of the turns, at about the moment at which the signal comes.
                end = time.monotonic() + (turn % 2) * random.uniform(0.0045, 0.0055)
                while time.monotonic() < end:
                    pass
                signal.signal(signal.SIGALRM, other)
                time.sleep(0.02)
            except _TookTooLong:
                came.append(0) if name == "other" else None
        found[name] = len(came)
    pipe.send(found)


@pytest.mark.usefixtures("alarm")
class TestHandlers:
    def test_one_that_raises_nothing_ends_nothing(self, storage: Any) -> None:
        came: list[int] = []
        signal.signal(signal.SIGALRM, lambda number, frame: came.append(number))
        storage.save_conversations(numbered_batch(0, 3000))
        scanned = storage.scan_conversations(progress=_signal_now).read_all()
        assert scanned.num_rows == 3000
        assert set(came) == {signal.SIGALRM}

    def test_they_are_in_place_after_a_call(self, storage: Any) -> None:
        storage.save_conversations(numbered_batch(0, 1))
        assert signal.getsignal(signal.SIGALRM) is _refuse
        with pytest.raises(_TookTooLong):
            _signal_now()

    def test_one_that_is_set_during_a_call_stays(self, storage: Any, tmp_path: Path) -> None:
        def other(number: int, frame: FrameType | None) -> None: ...

        storage.save_conversations(numbered_batch(0, 1))
        storage.export_jsonl(
            tmp_path / "out", progress=lambda _: signal.signal(signal.SIGALRM, other)
        )
        assert signal.getsignal(signal.SIGALRM) is other

    def test_an_interrupt_is_not_lost_because_of_a_timeout(self) -> None:
        with pytest.raises(KeyboardInterrupt), deferred_signals():  # noqa: PT012
            _signal_now()
            signal.raise_signal(signal.SIGINT)
            _signal_now()

    def test_the_exception_comes_when_all_is_done(self) -> None:
        done = []
        with pytest.raises(_TookTooLong), deferred_signals(), deferred_signals():  # noqa: PT012
            _signal_now()
            done.append(1)
        assert done == [1]

    def test_threads_other_than_the_main_one_get_none(self, storage: Any) -> None:
        def work() -> None:
            for at in range(20):
                storage.save_conversations(numbered_batch(at, 1))

        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            with pytest.raises(_TookTooLong):
                _signal_now()
            time.sleep(0.01)
        assert storage.count_conversations() == 20
