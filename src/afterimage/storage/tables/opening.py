"""Open the tables of a storage in the database of a catalog."""

from __future__ import annotations

from collections.abc import Sequence

from afterimage.storage.engine.catalog import Catalog
from afterimage.storage.engine.database import open_database
from afterimage.storage.tables.backend import TablesBackend
from afterimage.storage.tables.schema.layout import Layout
from afterimage.storage.tables.schema.opening import StorageTables

__all__ = ["open_tables"]


def open_tables(
    catalog: Catalog,
    conversations: str = "conversations",
    documents: str = "documents",
    keys: Sequence[str] = (),
    create: bool = True,  # noqa: FBT001, FBT002  the options in the order of `SQLStorage`
) -> TablesBackend:
    """Return the tables of a database; make or upgrade them if `create` allows it.

    Args:
        catalog: the location of the database.
        conversations: name of the table of conversations.
        documents: name of the table of documents.
        keys: metadata keys with columns of their own.
        create: whether the database and the tables may be created.
    """
    layout = Layout(
        conversations,
        documents,
        compress=catalog.column_compression,
        numbered=catalog.numbers_rows,
    )
    tables = StorageTables(layout, list(keys), may_create=create)
    return TablesBackend(open_database(catalog, tables, create=create), layout, None)
