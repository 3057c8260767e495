"""What a prepared data set is, and what is asked of it: one JSON file beside its JSONL file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["PAGE", "Dataset"]

PAGE = (100, 100)
"""Offset and limit of the filtered page."""

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Dataset:
    """A data set, and the questions that every system answers about it.

    Attributes:
        name: part of the names of result files.
        path: the records, one a line, in the very form in which the published package writes them.
        records: how many lines.
        messages: how many messages in them.
        size: bytes of the file.
        filter_key: the metadata key of the filter, which the groups are counted by, too.
        filter_value: what the filter wants it to be.
        sort_key: the metadata key that the page is sorted by.
        sort_is_number: whether its values are numbers, which who sorts JSON by hand must know.
        descending: whether the greatest comes first.
        unique_keys: metadata keys that tell records apart.
        page: the values of `sort_key` in the right page, or None where nobody has computed them.
        groups: value of `filter_key` and number of records that have it; None as for `page`.
    """

    name: str
    path: str
    records: int
    messages: int
    size: int
    filter_key: str
    filter_value: str
    sort_key: str
    sort_is_number: bool
    descending: bool
    unique_keys: list[str]
    page: list[Any] | None
    groups: list[tuple[str | None, int]] | None

    @property
    def declared(self) -> list[str]:
        """The `metadata_fields` that fit these questions."""
        return [self.filter_key, self.sort_key]

    @property
    def question(self) -> str:
        """The filtered page in words."""
        direction = "descending" if self.descending else "ascending"
        first, rows = PAGE
        return (
            f'`metadata.{self.filter_key}` == "{self.filter_value}", sorted by '
            f"`metadata.{self.sort_key}` {direction}, rows {first}–{first + rows}"
        )

    def lines(self) -> Iterator[bytes]:
        """The records as they stand in the file."""
        with Path(self.path).open("rb") as file:
            yield from file

    def pick(
        self, records: Iterable[_Record], metadata_of: Callable[[_Record], dict[str, Any]]
    ) -> list[_Record]:
        """The filtered page, by plain Python: ties in their order, what has no value last."""
        found = [r for r in records if metadata_of(r).get(self.filter_key) == self.filter_value]
        ranked = [record for record in found if metadata_of(record).get(self.sort_key) is not None]
        ranked.sort(key=lambda r: metadata_of(r)[self.sort_key], reverse=self.descending)
        ranked += [record for record in found if metadata_of(record).get(self.sort_key) is None]
        offset, limit = PAGE
        return ranked[offset : offset + limit]

    def write(self, path: Path) -> None:
        """Write the description to a file."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Dataset:
        """Read it back."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
