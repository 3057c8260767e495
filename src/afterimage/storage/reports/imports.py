"""`ImportCount`: the result of `import_jsonl`."""

from __future__ import annotations

from typing import Self

__all__ = ["ImportCount"]


class ImportCount(int):
    """The number of records that an import saved, as an integer.

    Attributes:
        format: name of the format that was read; None for this package's own records.
        others: number of those that are records of other models. `load_records` returns them, and
            calls for conversations do not.

    >>> count = ImportCount(5, others=2)
    >>> count, count.of_kind, count.others
    (5, 3, 2)
    """

    others: int
    format: str | None = None

    def __new__(cls, count: int, others: int = 0) -> Self:
        """Return the count of an import of which `others` are records of other models."""
        self = super().__new__(cls, count)
        self.others = others
        return self

    @property
    def of_kind(self) -> int:
        """Number of records of the imported kind: those that its load returns."""
        return self - self.others
