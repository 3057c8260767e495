"""Files of new rows, and their registration with the catalog of a lake.

The invariant: the rows of a save are in the lake once, or not at all. DuckLake itself deletes the
files of a commit whose answer was lost, although the catalog may have them. So this package writes
the files, and gives each commit a key. After a lost answer, the catalog is searched for the key.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from afterimage.storage.engine.instance import quoted
from afterimage.storage.engine.lake.instance import LAKE
from afterimage.storage.system.interrupts import checkpoint

__all__ = ["FOLDER", "KeptFiles", "NewFiles", "name_commit"]

FOLDER: Final = "afterimage"
"""The folder in the data path that has the files of this package."""

# Small row groups: a page of a large file reads few rows.
_FORMAT: Final = "FORMAT parquet, ROW_GROUP_SIZE 2048, COMPRESSION zstd"


class NewFiles:
    """The files of one transaction.

    Args:
        data_path: the folder of the lake's data files.

    Attributes:
        key: the name of the commit in the catalog.
        may_be_committed: whether the answer to the commit was lost. The files must then stay.
    """

    def __init__(self, data_path: str) -> None:
        self.key = uuid.uuid4().hex
        self._folder = f"{data_path.rstrip('/')}/{FOLDER}"
        self._is_local = "://" not in data_path
        self._files: list[tuple[str, str]] = []
        self.may_be_committed = False

    def __bool__(self) -> bool:
        return bool(self._files)

    def write(self, connection: sa.Connection, table: str, rows: sa.Select[Any]) -> None:
        """Write the rows of a statement to a new file, in their order."""
        path = f"{self._folder}/{uuid.uuid4().hex}.parquet"
        if self._is_local:
            Path(self._folder).mkdir(exist_ok=True)
        self._files.append((table, path))
        connection.execute(_CopyTo(rows, path))
        if self._is_local:
            _store(Path(path))

    def register(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Add the files to their tables, in the transaction of a connection."""
        for table, path in self._files:
            checkpoint()
            cursor.execute(
                f"CALL ducklake_add_data_files({quoted(LAKE)}, {quoted(table)}, {quoted(path)})"
            )

    def discard(self) -> None:
        """Remove the files: they are not in the lake. On other systems, a clean-up finds them."""
        if self._is_local and not self.may_be_committed:
            for _, path in self._files:
                with suppress(OSError):
                    Path(path).unlink(missing_ok=True)


class KeptFiles:
    """A second name for each file that DuckLake writes in a transaction, until its end is known.

    If the answer to a commit is lost, DuckLake removes the files of the commit. Where the catalog
    has the commit, they are put back. Object storage has no second names.

    Args:
        data_path: the folder of the lake's data files.
    """

    def __init__(self, data_path: str) -> None:
        self._folder = Path(data_path)
        self._is_local = "://" not in data_path
        self._before = self._present()
        self._links: dict[Path, Path] = {}

    def keep(self) -> None:
        """Keep the files that are new; call it before the commit."""
        for file in self._present() - self._before:
            link = self._folder / FOLDER / f"{uuid.uuid4().hex}.kept"
            with suppress(OSError):  # a file system without links
                link.parent.mkdir(exist_ok=True)
                os.link(file, link)
                self._links[file] = link

    def put_back(self) -> None:
        """Put the files back that are not there any more."""
        for file, link in self._links.items():
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                os.link(link, file)

    def forget(self) -> None:
        """Remove the second names."""
        for link in self._links.values():
            with suppress(OSError):
                link.unlink()

    def _present(self) -> set[Path]:
        if not self._is_local:
            return set()
        own = self._folder / FOLDER
        return {file for file in self._folder.rglob("*.parquet") if file.parent != own}


def name_commit(cursor: duckdb.DuckDBPyConnection, key: str, what: str) -> None:
    """Give the commit of the current transaction a key, and say what it does."""
    cursor.execute(
        f"CALL ducklake_set_commit_message({quoted(LAKE)}, 'afterimage-storage', {quoted(what)}, "
        f"extra_info => {quoted(key)})"
    )


def _store(path: Path) -> None:
    """Make the system write a file to the disk: the catalog will be there too."""
    for each in (path, path.parent):
        with suppress(OSError):  # a system without it
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class _CopyTo(sa.Executable, sa.ClauseElement):
    inherit_cache = False

    def __init__(self, rows: sa.Select[Any], path: str) -> None:
        self.rows = rows
        self.path = path


@compiles(_CopyTo)
def _copy_to(element: _CopyTo, compiler: Any, **options: Any) -> str:
    rows = compiler.process(element.rows, **options)
    return f"COPY ({rows}) TO {quoted(element.path)} ({_FORMAT})"
