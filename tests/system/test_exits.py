"""The end of the interpreter: calls in `atexit` functions, late threads and daemon threads."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import KINDS, opened
from tests.support.records import conversation

pytestmark = pytest.mark.process

_MANY = 4000

# `storage`, `folder` and `batch` are defined; `work` uses the storage in every way.
_BEGIN = """
import atexit, sys, threading, time
from pathlib import Path
from typing import Any
from tests.support.processes import opened
from tests.support.records import conversation

kind, folder = sys.argv[1], Path(sys.argv[2])
storage = opened(kind, folder)
batch = [conversation("x" * 1500, {"n": 1})] * 1000

def work():
    records = iter(storage.iter_conversations(batch_size=100))
    next(records)
    found = [len(storage.load_conversations()), 1 + sum(1 for _ in records)]
    found.append(storage.scan_conversations().read_all().num_rows)
    found.append(storage.count_conversations({"metadata.n": 0}))
    found.append(len(storage.load_conversations(order_by=[("metadata.n", -1)])))
    found.append(storage.stats().conversations)
    found.append(storage.export_jsonl(folder / "out.jsonl"))
    found.append(storage.export_parquet(folder / "out.parquet"))
    found.append(storage.import_jsonl(folder / "out.jsonl"))
    storage.save_conversations(batch[:1])
    assert storage.verify().ok
    print(set(found))
"""

_ENDINGS = {
    "in an atexit function": "atexit.register(work)",
    "in an atexit function of an iterator begun before": """
records = storage.iter_conversations(batch_size=100)
next(records)
atexit.register(lambda: print({1 + sum(1 for _ in records)}))
""",
    "in a thread that outlives the main one": """
def late():
    threading.main_thread().join()
    work()

threading.Thread(target=late).start()
""",
}

_LEFT_OPEN = """
records = storage.iter_conversations(filters=[("metadata.n", ">=", 0)])
next(records)
scan = storage.scan_conversations()
scan.read_next_batch()
"""

_DAEMONS = {
    "saves": "storage.save_conversations(batch)",
    "iterates": "sum(1 for _ in storage.iter_conversations())",
    "scans": "storage.scan_conversations(order_by=[('metadata.n', 1)]).read_all()",
    "describes": "storage.stats()",
}

_DAEMON = """
def run():
    while True:
        {call}
        sizes.append(1)

sizes = []
threading.Thread(target=run, daemon=True).start()
time.sleep({seconds})
print(len(sizes), flush=True)
"""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kind: str = request.param
    records: list[Any] = [conversation("x" * 1500, {"n": 0})] * _MANY
    opened(kind, tmp_path).save_conversations(records)
    return kind


def output(kind: str, folder: Path, script: str) -> str:
    """What a script writes; it must end well, and with no message."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + script, kind, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("ending", _ENDINGS)
def test_calls_work(kind: str, tmp_path: Path, ending: str) -> None:
    assert output(kind, tmp_path, _ENDINGS[ending]) == f"{{{_MANY}}}\n"


def test_an_iterator_and_a_scan_that_are_left_open_are_silent(kind: str, tmp_path: Path) -> None:
    assert output(kind, tmp_path, _LEFT_OPEN) == ""


@pytest.mark.slow
@pytest.mark.parametrize("daemon", _DAEMONS)
def test_a_daemon_thread_in_a_call_ends_silently(kind: str, tmp_path: Path, daemon: str) -> None:
    for _ in range(2):
        script = _DAEMON.format(call=_DAEMONS[daemon], seconds=random.uniform(0.1, 0.5))
        returned = int(output(kind, tmp_path, script))
        found = opened(kind, tmp_path).count_conversations()
        if daemon == "saves":
            assert found % 1000 == 0
            assert found - _MANY >= returned * 1000
            break
        assert found == _MANY
