"""From an older layout of a table to this one: one step a version, in the caller's transaction.

The invariant: a table is as the version beside its name in `afterimage_schema` says, or nothing of
it has changed. A step that fails, or a process that is killed in it, leaves the older layout whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from afterimage.storage.errors import SchemaMismatchError

__all__ = ["MIGRATIONS", "Migration", "migrate", "must_migrate"]

Migration = Callable[[sa.Connection, str, str], None]
"""Turns a table into its next layout. It is called with a connection in a transaction, the table's
kind ("conversations", "documents" or "records") and its name. DuckDB 1.5 alters no table of which
the same transaction has changed rows: alter first, fill after."""

MIGRATIONS: Final[dict[int, Migration]] = {}
"""By the version that a step starts from; empty, as the first layout is the only one so far."""


def must_migrate(table: str, found: int, known: int) -> bool:
    """Whether `table` has an older layout than `known`, the one that this package writes.

    Raises:
        SchemaMismatchError: it has a newer one.
    """
    if found > known:
        raise SchemaMismatchError(
            f"table {table!r} was written by a newer afterimage-storage (layout {found}, this one "
            f"knows {known}). Upgrade this package; nothing was changed."
        )
    return found < known


def migrate(connection: sa.Connection, kind: str, table: str, found: int, known: int) -> None:
    """Take the steps from layout `found` to layout `known`.

    Raises:
        SchemaMismatchError: a step is missing, as for a layout that never was.
    """
    for version in range(found, known):
        if version not in MIGRATIONS:
            raise SchemaMismatchError(
                f"table {table!r} has layout {version}, which this afterimage-storage cannot "
                f"upgrade to {known}; nothing was changed. Use the version that wrote it."
            )
        MIGRATIONS[version](connection, kind, table)
