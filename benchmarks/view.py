"""Compare the answers of `view` with the calls of the store: ``python3 benchmarks/view.py STORE``.

For the first and the last page, a search and the menus it prints the time of an answer over HTTP
and of the store's own call, each the median of several, in milliseconds.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

# This file is started by its path, so Python does not search the project folder by itself.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from afterimage.storage import open_storage  # noqa: E402

SEARCH = ("messages.content", "icontains", "train")


def median(call: Callable[[], object], times: int) -> float:
    """Return the median time of a call in milliseconds, after a first one."""
    call()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--times", type=int, default=9)
    chosen = parser.parse_args()
    store = open_storage(chosen.store)
    count = store.count_conversations()
    command = [sys.executable, "-m", "afterimage.storage", "view", str(chosen.store)]
    path = {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=path, text=True) as process:
        assert process.stdout is not None
        found = re.fullmatch(r"(http://.*)/\?token=(.*)\n", process.stdout.readline())
        assert found is not None
        link, token = found.groups()

        def ask(what: str, **values: object) -> bytes:
            url = f"{link}/api/{what}?{urllib.parse.urlencode(values)}"
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(request) as answer:
                body: bytes = answer.read()
                return body

        text = " ".join(SEARCH)
        last = max(0, count - 20)
        load: Any = store.load_conversations
        cases: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "first page": (lambda: ask("records"), lambda: load(20)),
            "last page": (lambda: ask("records", offset=last), lambda: load(20, last)),
            "search": (lambda: ask("records", q=text), lambda: load(20, filters=[SEARCH])),
            "count of a search": (
                lambda: ask("count", q=text),
                lambda: store.count_conversations([SEARCH]),
            ),
            "menus": (lambda: ask("facets"), lambda: store.facets(most_values=30)),
        }
        print(f"{count:,} conversations: answer, own call")
        for name, calls in cases.items():
            answer, own = (median(call, chosen.times) for call in calls)
            print(f"{name}: {answer:.0f} ms, {own:.0f} ms, {answer / own:.2f} x")
        process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
