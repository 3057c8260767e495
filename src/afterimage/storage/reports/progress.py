"""Progress of long calls: callbacks that receive record counts and, if known, the share done.

The invariant: during a call the share only grows, from 0 to 1, whatever stages the call has.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence, Sized
from contextlib import closing
from itertools import accumulate, pairwise
from typing import Protocol, TypeVar, runtime_checkable

from afterimage.storage.errors import InvalidQueryError, shown

__all__ = [
    "Followed",
    "Progress",
    "ShareProgress",
    "after_each",
    "counting",
    "following",
    "ignore",
    "report",
    "share_only",
    "split",
]

_Item = TypeVar("_Item")
_Records = TypeVar("_Records", bound=Sized)

Progress = Callable[[int], object]
"""Called with the number of records processed since the last call; `tqdm.update`, for example.

It may be called in another thread. A `ShareProgress` also receives the share of the work that is
done, so it needs no total.
"""


Followed = Progress | bool | None
"""An argument `progress`: a function, True for a bar, or None."""


@runtime_checkable
class ShareProgress(Protocol):
    """A `Progress` that also receives the share of the work that is done."""

    def __call__(self, records: int, /) -> object:
        """Add the number of records processed since the last call."""

    def reached(self, share: float) -> object:
        """Set the share of the whole work that is done, from 0 to 1."""


def following(progress: Followed) -> Progress:
    """Return the progress of an argument: a bar for True, and one that ignores all for None.

    Raises:
        InvalidQueryError: the argument is neither a function nor a boolean.
    """
    if progress is None or progress is False:
        return ignore
    if progress is True:
        from afterimage.storage.reports.bars import (  # noqa: PLC0415  rarely used
            new_bar,
        )

        return new_bar()
    if not callable(progress):
        raise InvalidQueryError(
            f"progress must be a function, or True for a bar, not {shown(progress, 40)}"
        )
    return progress


def report(progress: Progress, records: int, share: float | None) -> None:
    """Report a number of records, then the share of the work that is done (None: unknown)."""
    if records:
        progress(records)
    if share is not None and isinstance(progress, ShareProgress):
        progress.reached(share)


def counting(
    batches: Generator[_Records, None, None], progress: Progress
) -> Generator[_Records, None, None]:
    """Yield the same lists or batches; report each length when the consumer asks for the next.

    >>> [len(batch) for batch in counting((word for word in ["ab", "c"]), print)]
    2
    1
    [2, 1]
    """
    return after_each(batches, lambda batch: progress(len(batch)))


def after_each(
    items: Generator[_Item, None, None], call: Callable[[_Item], object]
) -> Generator[_Item, None, None]:
    """Yield the same items; call `call` with each one when the consumer asks for the next."""
    # Close now: an exception from `call` could keep this generator alive and `items` open.
    with closing(items):
        for item in items:
            yield item
            call(item)


def split(progress: Progress, weights: Sequence[float]) -> list[Progress]:
    """Return a progress for each stage of a call. Each stage reports its own share, 0 to 1.

    Args:
        progress: the progress of the whole call.
        weights: amount of work of each stage, in any unit.

    >>> class Printed:
    ...     def __call__(self, records):
    ...         print(records, "records")
    ...     def reached(self, share):
    ...         print(f"{share:.0%}")
    >>> first, second = split(Printed(), [30, 10])
    >>> report(second, 7, 0.5)
    7 records
    88%
    """
    whole = sum(weights)
    if not isinstance(progress, ShareProgress) or not whole:
        return [progress for _ in weights]
    ends = accumulate(weights, initial=0.0)
    return [_Stage(progress, low / whole, high / whole) for low, high in pairwise(ends)]


class _Stage:
    def __init__(self, whole: ShareProgress, low: float, high: float) -> None:
        self._whole = whole
        self._low = low
        self._width = high - low

    def __call__(self, records: int, /) -> object:
        return self._whole(records)

    def reached(self, share: float) -> object:
        return self._whole.reached(self._low + self._width * share)


def share_only(progress: Progress) -> Progress:
    """Return a progress that passes on the share but not the record counts."""
    return _ShareOnly(progress) if isinstance(progress, ShareProgress) else ignore


class _ShareOnly:
    def __init__(self, whole: ShareProgress) -> None:
        self.reached = whole.reached

    def __call__(self, _: int, /) -> object:
        return None


def ignore(_: int) -> None:
    """Do nothing: the progress of a call without a callback."""
