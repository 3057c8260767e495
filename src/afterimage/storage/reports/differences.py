"""`Diff`: how the records of two storages differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from afterimage.storage.errors import InvalidQueryError, shown

if TYPE_CHECKING:  # importing the JSONL storage must not load Arrow
    import pyarrow as pa

__all__ = ["Diff"]

Part = Literal["only_here", "only_there", "changed_here", "changed_there"]
"""The records of a part of a difference; those that changed are in both storages."""


@dataclass(frozen=True)
class Diff:
    """How the records of two storages differ. Records with the same content hash are the same.

    If a storage has a record several times, each of them counts: the first is compared with the
    first of the other storage, and so on.

    Attributes:
        here: name of the storage whose method was called.
        there: name of the other storage.
        kind: the kind of the records.
        both: number of records that are in both storages.
        only_here: number of those that are only in this storage.
        only_there: number of those that are only in the other storage.
        changed: number of the records in `both` whose metadata or scores differ.
    """

    here: str
    there: str
    kind: str
    both: int
    only_here: int
    only_there: int
    changed: int
    _rows: Callable[[Part], pa.Table] = field(repr=False, compare=False)
    _models: Callable[[Part], list[Any]] = field(repr=False, compare=False)

    @property
    def equal(self) -> bool:
        """Whether both storages have the same records, in any order."""
        return not (self.only_here or self.only_there or self.changed)

    def arrow(self, part: Part) -> pa.Table:
        """Return the records of a part with all declared columns, in insertion order.

        They are read from the storage again, which must not have been changed since.

        Args:
            part: "only_here", "only_there", or "changed_here" and "changed_there", whose rows
                belong together if they have the same content.
        """
        return self._rows(_checked(part))

    def records(self, part: Part) -> list[Any]:
        """Return the records of a part as models; see `arrow`."""
        return self._models(_checked(part))

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as a dict that JSON can write."""
        names = ("here", "there", "kind", "both", "only_here", "only_there", "changed")
        return {"equal": self.equal, **{name: getattr(self, name) for name in names}}

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.kind}: {'equal' if self.equal else 'different'}",
                f"  in both: {self.both:,}, of which {self.changed:,} differ in metadata or scores",
                f"  only in {self.here}: {self.only_here:,}",
                f"  only in {self.there}: {self.only_there:,}",
            ]
        )


def _checked(part: Any) -> Part:
    if part not in ("only_here", "only_there", "changed_here", "changed_there"):
        raise InvalidQueryError(
            "part must be 'only_here', 'only_there', 'changed_here' or 'changed_there', not "
            f"{shown(part, 40)}"
        )
    return part  # type: ignore[no-any-return]
