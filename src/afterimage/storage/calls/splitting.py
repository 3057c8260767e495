"""The parts of an export that is split: the share of the records that each of them gets.

The invariant: the part of a record follows from the value of its group and the seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.query.arguments import Choice
from afterimage.storage.query.query import DEFAULT_SEED, Share, seed_value, share_of
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import FieldType
from afterimage.storage.records.paths import resolve
from afterimage.storage.reports.progress import split as stages
from afterimage.storage.system.atomic_files import replaced

__all__ = ["new_folder", "parts_of", "reads_of", "seed_of"]

_ROUNDING = Fraction(1, 10**9)


def seed_of(choice: Choice, split: Any) -> tuple[int, Choice]:
    """Return the seed of a split, and the choice without it if it is not also for a sample."""
    seed = choice.get("seed")
    if split is None or seed is None:
        return DEFAULT_SEED, choice
    rest: Choice = {**choice, "seed": None} if choice.get("sample") is None else choice
    return seed_value(seed), rest


def parts_of(
    split: Any, split_by: Any, seed: int, fields: Mapping[str, FieldType]
) -> dict[str, Share]:
    """Return the share of each part; {} without a split.

    Raises:
        InvalidQueryError: the shares do not sum to 1, or a name cannot name a file.
        UnknownFieldError: there is no field `split_by`.
    """
    if split is None:
        if split_by is not None:
            raise InvalidQueryError("split_by requires split, such as {'train': 0.9, 'test': 0.1}")
        return {}
    if not isinstance(split, Mapping) or not split:
        raise InvalidQueryError(
            f"split must be like {{'train': 0.9, 'test': 0.1}}, not {shown(split, 80)}"
        )
    by = None if split_by is None else resolve(fields, split_by)
    shares = {_name(name): _fraction(name, share) for name, share in split.items()}
    if len({name.lower() for name in shares}) < len(shares):
        raise InvalidQueryError("split has two names that differ only in case")
    total = sum(shares.values(), Fraction(0))
    if abs(total - 1) > _ROUNDING:
        raise InvalidQueryError(
            f"the shares of a split must sum to 1, not to {float(total):g}: {shown(split, 100)}"
        )
    parts, start = {}, Fraction(0)
    for index, (name, share) in enumerate(shares.items(), 1):
        end = Fraction(1) if index == len(shares) else start + share
        parts[name] = share_of("split", seed, start, end, by)
        start = end
    return parts


def _name(name: Any) -> str:
    if isinstance(name, str) and name.replace("-", "").replace("_", "").isalnum():
        return name
    raise InvalidQueryError(
        f"the part {shown(name, 40)} of a split cannot name a file; use letters, digits, - and _"
    )


def _fraction(name: Any, share: Any) -> Fraction:
    if isinstance(share, int | float | Fraction | Decimal) and share > 0 and share < 2:
        return Fraction(str(float(share)))  # the decimal number that was written
    raise InvalidQueryError(
        f"the share of {shown(name, 40)} must be a number above 0, not {shown(share, 40)}"
    )


def reads_of(read: Read, parts: Mapping[str, Share]) -> Iterator[tuple[str, Read]]:
    """Yield the read of each part. Only the first one reports corrupt records."""
    faults = read.faults
    for (name, share), stage in zip(
        parts.items(), stages(read.progress, [1] * len(parts)), strict=True
    ):
        query = replace(read.query, shares=(*read.query.shares, share))
        yield name, replace(read, query=query, faults=faults, progress=stage)
        faults = read.faults.without_report()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Provide a folder that appears under its name at the end, or not at all.

    Raises:
        InvalidQueryError: `path` is a file, or a folder that is not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InvalidQueryError(f"{path} already exists. Give a new folder, or remove it first.")
    with replaced(path) as folder:
        folder.mkdir()
        yield folder
