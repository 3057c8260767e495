"""Upgrade a table from an older layout: one step per version, in the caller's transaction.

The invariant: a table has the layout of its version in `afterimage_schema`. If a step fails or the
process is killed, the transaction is rolled back and the table keeps the older layout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from afterimage.storage.errors import SchemaMismatchError

__all__ = ["MIGRATIONS", "Migration", "migrate", "must_migrate"]

Migration = Callable[[sa.Connection, str, str], None]
"""Upgrades a table to the next layout. It is called with a connection in a transaction, the kind of
the table ("conversations", "documents" or "records") and its name. DuckDB 1.5 cannot alter a table
after the same transaction has changed its rows: alter first, then fill."""

MIGRATIONS: Final[dict[int, Migration]] = {}
"""Migrations by the version that they start from. It is empty: there is only one layout so far."""


def must_migrate(table: str, found: int, known: int) -> bool:
    """Return whether a table needs an upgrade.

    Args:
        table: name of the table, for the message.
        found: the version of its layout.
        known: the version that this package writes.

    Raises:
        SchemaMismatchError: the table has a newer layout.
    """
    if found > known:
        raise SchemaMismatchError(
            f"table {table!r} was written by a newer version of afterimage-storage (layout "
            f"{found}; this version supports {known}). Upgrade this package; no data was changed."
        )
    return found < known


def migrate(connection: sa.Connection, kind: str, table: str, found: int, known: int) -> None:
    """Run the migrations from layout `found` to layout `known`.

    Raises:
        SchemaMismatchError: there is no migration from a version, as for an unknown layout.
    """
    for version in range(found, known):
        if version not in MIGRATIONS:
            raise SchemaMismatchError(
                f"table {table!r} has layout {version}, which this version of afterimage-storage "
                f"cannot upgrade to {known}; no data was changed. Use the version that wrote it."
            )
        MIGRATIONS[version](connection, kind, table)
