"""Verify a database: checks by the engine, and validation of each record by its model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from afterimage.storage.engine.database import Database
from afterimage.storage.engine.statements import fetch_all, lacks_resources
from afterimage.storage.errors import (
    CorruptRecordError,
    DatabaseError,
    ReplacedFileError,
    shorten,
)
from afterimage.storage.query.figures.duplicates import repeated
from afterimage.storage.query.query import Query
from afterimage.storage.records.fields import DOCUMENTS
from afterimage.storage.reports.faults import FEW, Found, Place
from afterimage.storage.reports.progress import Progress, ignore, report, split
from afterimage.storage.reports.verification import Findings, Verification
from afterimage.storage.tables.checks import UNNUMBERED
from afterimage.storage.tables.schema.layout import Layout, StoredTable
from afterimage.storage.tables.select import count_unnumbered

__all__ = ["repair_columns", "verify_database"]


def verify_database(
    database: Database,
    layout: Layout,
    faults: Callable[[StoredTable, Progress], Iterator[CorruptRecordError]],
    progress: Progress | None,
) -> Verification:
    """Read all tables of a storage, and return the report.

    Args:
        database: the database.
        layout: the tables.
        faults: yields an error for each corrupt row of a table, and calls the progress with the
            number of rows read.
        progress: called with the number of rows read; None for no reports.
    """
    findings = Findings(database.name)
    path = Path(database.name)
    rows = [_row_count(database, stored) if progress else 0 for stored in layout.all]
    stages = split(progress or ignore, rows)
    for stored, stage, total in zip(layout.all, stages, rows, strict=True):
        with _damage_found(findings, path, stored):
            with database.reading() as connection:
                layout.refresh(connection)
                _verify_columns(connection, path, stored, findings)
                count = _counted(connection, stored)
            corrupt = count_unnumbered(database, stored, Query())
            place = Place(path, stored.name, None, None, UNNUMBERED)
            findings.tallies["corrupt"].add_all(Found(corrupt, (place,) * min(corrupt, FEW)))
            for error in faults(stored, _with_share(stage, total)):
                findings.tallies["corrupt"].add(Place.of(error))
                corrupt += 1
            findings.counts[stored.kind.name] = count - corrupt
    return findings.report()


def repair_columns(connection: sa.Connection, stored: StoredTable) -> int:
    """Set the metadata columns of the rows in which they differ; return how many rows those are."""
    if not stored.metadata_columns:
        return 0
    table = stored.rows
    values = stored.metadata_values(table.c["metadata"], stored.metadata_columns)
    differs = [table.c[name].is_distinct_from(value) for name, value in values.items()]
    stale = sa.select(sa.func.count()).select_from(table).where(sa.or_(*differs))
    [[count]] = fetch_all(connection, stale)
    if count:
        connection.execute(table.update().where(sa.or_(*differs)).values(values))
    return int(count)


def _row_count(database: Database, stored: StoredTable) -> int:
    """Return the number of rows of a table; 0 if the engine cannot read it (reported later)."""
    with suppress(DatabaseError), database.reading() as connection:
        return _counted(connection, stored)
    return 0


def _counted(connection: sa.Connection, stored: StoredTable) -> int:
    return int(fetch_all(connection, sa.select(sa.func.count()).select_from(stored.table))[0][0])


def _with_share(progress: Progress, total: int) -> Progress:
    """Return a progress for row counts that also reports the share of `total`."""
    read = 0

    def count(rows: int) -> None:
        nonlocal read
        read += rows
        report(progress, rows, min(1.0, read / total) if total else None)

    return count


@contextmanager
def _damage_found(findings: Findings, path: Path, stored: StoredTable) -> Iterator[None]:
    """Add a fault if the engine cannot read a table, for example because a block is damaged."""
    try:
        yield
    except ReplacedFileError:  # not a fault of the current file
        raise
    except DatabaseError as error:
        if lacks_resources(error):
            raise
        findings.tallies["corrupt"].add(Place(path, stored.name, None, None, shorten(error, 300)))


def _verify_columns(
    connection: sa.Connection, path: Path, stored: StoredTable, findings: Findings
) -> None:
    """Find duplicate numbers, duplicate ids and stale metadata columns with the engine."""
    table, sequence, tallies = stored.table, stored.sequence, findings.tallies
    tallies["duplicate_numbers"].add_all(repeated(connection, path, table, sequence, sequence))
    if stored.kind is DOCUMENTS:
        same_ids = repeated(connection, path, table, table.c["id"], sequence)
        tallies["duplicate_ids"].add_all(same_ids)
    for key in stored.metadata_columns:
        expected = stored.metadata_values(table.c["metadata"], [key])
        differs = sa.or_(
            *(table.c[name].is_distinct_from(value) for name, value in expected.items())
        )
        statement = sa.select(sa.func.count().over(), sequence).where(differs)
        rows = fetch_all(connection, statement.order_by(sequence).limit(FEW))
        fault = f"the columns of metadata field {shorten(repr(key), 60)} differ from the metadata"
        places = tuple(Place(path, stored.name, row[1], None, fault) for row in rows)
        tallies["stale_columns"].add_all(Found(rows[0][0] if rows else 0, places))
