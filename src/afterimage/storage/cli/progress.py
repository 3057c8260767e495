"""Progress bars for long commands. They are shown only if stderr is a terminal."""

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

from afterimage.storage.errors import visible

__all__ = ["Bar", "progress_bar"]


class Bar:
    """A progress bar on the terminal; it is a `ShareProgress` for calls of the library."""

    def __init__(self, display: Progress, title: str) -> None:
        self._display = display
        # The remaining time is unknown until the first report.
        self._task = display.add_task(title, total=None, records="")
        self._total = 0
        self._records = 0
        self._since = time.monotonic()

    def expect(self, total: int) -> None:
        """Set the total number of records, for a call that does not report the share done."""
        self._total = total
        self._since = time.monotonic()

    def __call__(self, records: int) -> None:
        self._records += records
        seconds = max(time.monotonic() - self._since, 1e-6)
        text = f"{self._records:,} records, {self._records / seconds:,.0f}/s"
        self._display.update(self._task, records=text)
        if self._total:
            self.reached(min(1.0, self._records / self._total))

    def reached(self, share: float) -> None:
        if not self._records:  # the rate does not include time before the first record
            self._since = time.monotonic()
        self._display.update(self._task, total=1.0, completed=share)


@contextmanager
def progress_bar(title: str) -> Iterator[Bar | None]:
    """Show a bar with the number of records, their rate and the time left; remove it at the end.

    Args:
        title: text before the bar.

    Yields:
        The bar, to be called with the progress; None if stderr is not a terminal.
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
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        yield Bar(display, visible(title))


class _TimeColumn(TimeRemainingColumn):
    """The remaining time; the elapsed time if the remaining time is unknown."""

    def render(self, task: Task) -> Text:
        if task.time_remaining is None:
            return TimeElapsedColumn().render(task)
        return Text(f"{super().render(task)} left", style="progress.remaining")
