"""What `progress=True` shows: a bar of `tqdm`, which suits terminals and notebooks, or lines.

Nothing is known of the number of records in advance. The bar's total follows from the share of the
work that is done.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any, Final

__all__ = ["new_bar"]

# Without tqdm, a line is written when so much time has passed since the last one.
_LINE_SECONDS: Final = 2.0


def new_bar() -> _Bar | _Lines:
    """Return a bar if `tqdm` is installed, and otherwise lines on stderr."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about notebooks without widgets
            from tqdm.auto import tqdm  # noqa: PLC0415  optional
    except ImportError:
        return _Lines()
    return _Bar(tqdm(unit=" records", dynamic_ncols=True))


class _Bar:
    """A bar of tqdm, which is closed at the end of the work."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def __call__(self, records: int, /) -> None:
        self._bar.update(records)

    def reached(self, share: float) -> None:
        if share > 0 and self._bar.n:
            self._bar.total = max(self._bar.n, round(self._bar.n / share))
        if share >= 1:
            self._bar.close()


class _Lines:
    """Lines with the number of records and, if known, the share."""

    def __init__(self) -> None:
        self._records = 0
        self._share = 0.0
        self._last = time.monotonic()

    def __call__(self, records: int, /) -> None:
        self._records += records
        if time.monotonic() - self._last >= _LINE_SECONDS:
            self._write()

    def reached(self, share: float) -> None:
        was, self._share = self._share, share
        if share >= 1 > was:
            self._write()

    def _write(self) -> None:
        self._last = time.monotonic()
        share = f" ({self._share:.0%})" if self._share else ""
        sys.stderr.write(f"{self._records:,} records{share}\n")
