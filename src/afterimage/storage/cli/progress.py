"""How far a long command is, told on the terminal: never where stderr is a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["Bar", "progress_bar"]


class Bar:
    """A bar on the terminal; what the library tells how far it is (its `ShareProgress`)."""

    def __init__(self, shown: Progress, what: str) -> None:
        self._shown = shown
        # How much is left is not known before something is done.
        self._task = shown.add_task(what, total=None, records="")
        self._total = 0
        self._records = 0
        self._since = time.monotonic()

    def expect(self, total: int) -> None:
        """So many records there are in all, where who works on them does not tell the share."""
        self._total = total
        self._since = time.monotonic()

    def __call__(self, records: int) -> None:
        self._records += records
        seconds = max(time.monotonic() - self._since, 1e-6)
        said = f"{self._records:,} records, {self._records / seconds:,.0f}/s"
        self._shown.update(self._task, records=said)
        if self._total:
            self.reached(min(1.0, self._records / self._total))

    def reached(self, share: float) -> None:
        if not self._records:  # what was done before them is no part of their rate
            self._since = time.monotonic()
        self._shown.update(self._task, total=1.0, completed=share)


@contextmanager
def progress_bar(what: str) -> Iterator[Bar | None]:
    """A bar with records, their rate and the time left, which goes away at the end.

    Args:
        what: stands before the bar.

    Returns:
        What is to be told; None without a terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]}", style="progress.data.speed", markup=False),
        _TimeColumn(compact=True),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        yield Bar(shown, what)


class _TimeColumn(TimeRemainingColumn):
    """The time left or, where it is not known, the time so far."""

    def render(self, task: Task) -> Text:
        if task.time_remaining is None:
            return TimeElapsedColumn().render(task)
        return Text(f"{super().render(task)} left", style="progress.remaining")
