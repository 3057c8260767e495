"""How far a long call is, and who is told of it.

The invariant: shares only grow, from 0 to 1 over the whole call, whatever its parts are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence, Sized
from contextlib import closing
from itertools import accumulate, pairwise
from typing import Protocol, TypeVar, runtime_checkable

__all__ = [
    "Progress",
    "ShareProgress",
    "after_each",
    "followed",
    "only_share",
    "parts",
    "tell",
    "unseen",
]

_Item = TypeVar("_Item")
_Records = TypeVar("_Records", bound=Sized)

Progress = Callable[[int], object]
"""Is told of records as they are worked on; the `update` of a progress bar, for one.

It may be called in another thread. One that is a `ShareProgress` is also told how much of the work
is done, and so needs no total.
"""


@runtime_checkable
class ShareProgress(Protocol):
    """A `Progress` that is told how much of the work is done."""

    def __call__(self, records: int, /) -> object:
        """So many records more were worked on."""

    def reached(self, share: float) -> object:
        """So much of all the work is done, 0 to 1."""


def tell(progress: Progress, records: int, share: float | None) -> None:
    """Tell of some records and then, where it is known, of how much is done with them."""
    if records:
        progress(records)
    if share is not None and isinstance(progress, ShareProgress):
        progress.reached(share)


def followed(
    batches: Generator[_Records, None, None], progress: Progress
) -> Generator[_Records, None, None]:
    """The same lists or batches of records; who works on one is done with it when it is told of.

    >>> [len(batch) for batch in followed((word for word in ["ab", "c"]), print)]
    2
    1
    [2, 1]
    """
    return after_each(batches, lambda batch: progress(len(batch)))


def after_each(
    items: Generator[_Item, None, None], call: Callable[[_Item], object]
) -> Generator[_Item, None, None]:
    """The same items; `call` is given each when who works on it is done with it."""
    with closing(items):  # else an error of `call`, while it is kept, would keep them open
        for item in items:
            yield item
            call(item)


def parts(progress: Progress, weights: Sequence[float]) -> list[Progress]:
    """A progress for each of several parts of a work, of which each is told 0 to 1.

    Args:
        progress: of the whole.
        weights: how much of the work each part is, in any unit.

    >>> class Printed:
    ...     def __call__(self, records):
    ...         print(records, "records")
    ...     def reached(self, share):
    ...         print(f"{share:.0%}")
    >>> first, second = parts(Printed(), [30, 10])
    >>> tell(second, 7, 0.5)
    7 records
    88%
    """
    whole = sum(weights)
    if not isinstance(progress, ShareProgress) or not whole:
        return [progress for _ in weights]
    ends = accumulate(weights, initial=0.0)
    return [_Part(progress, low / whole, high / whole) for low, high in pairwise(ends)]


class _Part:
    def __init__(self, whole: ShareProgress, low: float, high: float) -> None:
        self._whole = whole
        self._low = low
        self._width = high - low

    def __call__(self, records: int, /) -> object:
        return self._whole(records)

    def reached(self, share: float) -> object:
        return self._whole.reached(self._low + self._width * share)


def only_share(progress: Progress) -> Progress:
    """The same, which is not told of records: they are others than those it counts."""
    return _OnlyShare(progress) if isinstance(progress, ShareProgress) else unseen


class _OnlyShare:
    def __init__(self, whole: ShareProgress) -> None:
        self.reached = whole.reached

    def __call__(self, _: int, /) -> object:
        return None


def unseen(_: int) -> None:
    """Follow nothing."""
