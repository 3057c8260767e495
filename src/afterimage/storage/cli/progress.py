"""How far a long command is, told on the terminal: never where stderr is a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["following", "is_watched", "working"]


def is_watched() -> bool:
    """Whether somebody sees stderr."""
    return sys.stderr.isatty()


@contextmanager
def following(what: str, total: int | None) -> Iterator[Callable[[int], object] | None]:
    """A bar of records with their rate and the time left, which goes away at the end.

    Args:
        what: stands before the bar.
        total: records in all; None where that is not known.

    Returns:
        What is to be told of the records done since it was last told; None without a terminal.
    """
    if not is_watched():
        yield None
        return
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn() if total is None else TimeRemainingColumn(compact=True),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda records: progress.advance(task, records)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A sign of life with the seconds so far, for one statement of the engine."""
    if not is_watched():
        yield
        return
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(what, total=None)
        yield


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(
            f"{task.speed:,.0f} records/s" if task.speed else "", style="progress.data.speed"
        )
