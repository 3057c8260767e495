"""Prepared data sets and their queries: one JSON file next to the JSONL file."""

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
    """A data set, and the queries that every system answers on it.

    Attributes:
        name: part of the names of result files.
        path: the file of the records, one per line, exactly as the published package writes them.
        records: number of lines.
        messages: number of messages.
        size: size of the file in bytes.
        filter_key: the metadata key of the filter, and of the count by key.
        filter_value: the value that the filter selects.
        sort_key: the metadata key that the page is sorted by.
        sort_is_number: whether its values are numbers; a hand-written sort of JSON needs to know.
        descending: whether the largest value comes first.
        unique_keys: metadata keys with a different value in every record.
        page: the values of `sort_key` in the expected page; None if they were not computed.
        groups: each value of `filter_key` and its number of records; None as for `page`.
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
        """The `metadata_fields` for these queries."""
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
        """The lines of the file."""
        with Path(self.path).open("rb") as file:
            yield from file

    def pick(
        self, records: Iterable[_Record], metadata_of: Callable[[_Record], dict[str, Any]]
    ) -> list[_Record]:
        """The filtered page in plain Python: ties keep their order, missing values come last."""
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
        """Read a description that `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
