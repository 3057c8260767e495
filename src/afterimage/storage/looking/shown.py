"""`Shown`: some records of a storage, which a notebook shows as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from afterimage.storage.errors import shorten
from afterimage.storage.looking.records import STYLE, records_html

__all__ = ["Shown"]


class Shown(Sequence[Any]):
    """Records that a notebook cell shows as a reader wants to see them.

    >>> from afterimage.storage import Document
    >>> Shown([Document(id="night", text="Night trains run daily.")])
    #1 Document(id='night', text='Night trains run daily.', personas=[], metadata={})
    """

    def __init__(self, records: Sequence[BaseModel]) -> None:
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        return self._records[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._records)

    def __repr__(self) -> str:
        lines = [f"#{at} {shorten(repr(each), 200)}" for at, each in enumerate(self, 1)]
        return "\n".join(lines) or "no records"

    def _repr_html_(self) -> str:
        inside = records_html(self._records) or "<p>no records</p>"
        return f'<style>{STYLE}</style><div class="ai-look">{inside}</div>'
