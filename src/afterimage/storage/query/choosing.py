"""The keys that choose records, as SQL: of samples, shuffled orders, shards and parts of a split.

A key is the MD5 of `<use>:<seed>:<identity>` as 32 hexadecimal digits. The identity of a record is
its `content_hash`; of a group, the canonical hash of its value. `docs/choosing.md` defines them in
plain Python. The invariant: a key depends on nothing but that text, so a choice is the same in
every storage, on every machine and with every version of DuckDB and Python.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from afterimage.storage.query.computed import canonical
from afterimage.storage.query.query import IDENTITY, Share
from afterimage.storage.query.relations import Source
from afterimage.storage.records.fields import Text
from afterimage.storage.records.paths import FieldRef

__all__ = ["group_of", "is_in_share", "key_of"]


def key_of(use: str, seed: int, identity: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """Return the key of a record or a group for one use and seed."""
    prefix = sa.literal_column(f"'{use}:{seed:d}:'", sa.String)
    return sa.func.md5(sa.func.concat(prefix, identity))


def group_of(source: Source, field: FieldRef) -> sa.ColumnElement[Any]:
    """Return a text that two records share if the field has equal values; NULL without a value."""
    if field.path == IDENTITY.path and isinstance(field.type, Text):
        return source.identity
    value = source.json(field)
    text = sa.cast(value.text, sa.String)
    return sa.case(
        (value.is_a("string"), sa.func.concat('"', sa.func.md5(text), '"')),
        (value.kind.is_not(None), canonical(text)),
    )


def is_in_share(source: Source, share: Share) -> sa.ColumnElement[bool]:
    """Return whether the key of a record, or of its group, lies in the interval of a share."""
    identity = source.identity
    if share.by is not None:  # a record without a value is a group of its own
        identity = sa.func.coalesce(group_of(source, share.by), identity)
    # The key is computed once, also for two comparisons.
    key = key_of(share.use, share.seed, identity)
    if share.high is None:
        return key >= share.low
    return key.between(share.low, share.high)
