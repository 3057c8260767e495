"""How a database is verified: in the engine what it can tell, and every record by its model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from afterimage.storage.engine.database import Database, fetch_all
from afterimage.storage.engine.held_files import ReplacedFileError
from afterimage.storage.errors import CorruptRecordError, DatabaseError, shorten
from afterimage.storage.query.duplicates import repeated
from afterimage.storage.records.fields import DOCUMENTS
from afterimage.storage.reports.faults import FEW, Found, Place
from afterimage.storage.reports.progress import Progress, parts, tell, unseen
from afterimage.storage.reports.verification import Findings, Verification
from afterimage.storage.tables.layout import Layout, StoredTable

__all__ = ["verify_database"]


def verify_database(
    database: Database,
    layout: Layout,
    faults: Callable[[str, Progress], Iterator[CorruptRecordError]],
    progress: Progress | None,
) -> Verification:
    """Read again all tables of a storage.

    Args:
        database: the database.
        layout: its tables.
        faults: gives an error for each row of a kind that holds no valid record; is given what to
            tell of rows as they are read.
        progress: is told of rows as they are read.
    """
    findings = Findings(database.name)
    path = Path(database.name)
    rows = [_row_count(database, stored) if progress else 0 for stored in layout.all]
    followed = parts(progress or unseen, rows)
    for stored, part, total in zip(layout.all, followed, rows, strict=True):
        with _damage_found(findings, path, stored):
            with database.reading() as connection:
                layout.refresh(connection)
                _verify_columns(connection, path, stored, findings)
                count = _counted(connection, stored)
            bad = 0
            for error in faults(stored.kind, _telling(part, total)):
                findings.corrupt.add(Place.of(error))
                bad += 1
            findings.counts[stored.kind] = count - bad
    return findings.report()


def _row_count(database: Database, stored: StoredTable) -> int:
    """The rows of a table; 0 where the engine cannot read it, which is told of later."""
    with suppress(DatabaseError), database.reading() as connection:
        return _counted(connection, stored)
    return 0


def _counted(connection: sa.Connection, stored: StoredTable) -> int:
    return int(fetch_all(connection, sa.select(sa.func.count()).select_from(stored.table))[0][0])


def _telling(progress: Progress, total: int) -> Progress:
    """What is to be told of rows as they are read, of `total` in all."""
    read = 0

    def told(rows: int) -> None:
        nonlocal read
        read += rows
        tell(progress, rows, min(1.0, read / total) if total else None)

    return told


@contextmanager
def _damage_found(findings: Findings, path: Path, stored: StoredTable) -> Iterator[None]:
    """Note that the engine cannot read a table, as where a block of the file is damaged."""
    try:
        yield
    except ReplacedFileError:  # nothing is known of the file that is there now
        raise
    except DatabaseError as error:
        findings.corrupt.add(Place(path, stored.name, None, None, shorten(error, 300)))


def _verify_columns(
    connection: sa.Connection, path: Path, stored: StoredTable, findings: Findings
) -> None:
    """What the engine finds without a record being read."""
    table = stored.table
    sequence = table.c[stored.sequence]
    findings.duplicate_numbers.take(repeated(connection, path, table, sequence, sequence))
    if stored.record_table is DOCUMENTS:
        findings.duplicate_ids.take(repeated(connection, path, table, table.c["id"], sequence))
    if not stored.metadata_columns:
        return
    for key in stored.metadata_columns:
        expected = stored.metadata_values(table.c["metadata"], [key])
        differs = sa.or_(*(table.c[name].is_distinct_from(of) for name, of in expected.items()))
        statement = sa.select(sa.func.count().over(), sequence).where(differs)
        rows = fetch_all(connection, statement.order_by(sequence).limit(FEW))
        fault = f"the columns of metadata field {shorten(repr(key), 60)} differ from the metadata"
        places = tuple(Place(path, stored.name, row[1], None, fault) for row in rows)
        findings.stale_columns.take(Found(rows[0][0] if rows else 0, places))
