"""Load DuckDB's extensions for lakes: from installed wheels, or from DuckDB's own folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

import duckdb

from afterimage.storage.engine.instance import quoted
from afterimage.storage.errors import DatabaseError, shorten

__all__ = ["load_extension"]

_INSTALL: Final = "pip install 'afterimage-storage[lake]'"


def load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load an extension into the instance of a connection. Nothing is downloaded.

    Args:
        connection: any connection of the instance.
        name: `ducklake`, `postgres_scanner` or `httpfs`.

    Raises:
        DatabaseError: it is not installed, or not for this version of DuckDB.
    """
    file = _file_of_wheel(name)
    try:
        connection.execute(f"LOAD {quoted(file)}" if file is not None else f"LOAD {name}")
    except duckdb.Error as error:
        version = duckdb.__version__
        found = "" if file is None else f" {file.name} cannot be loaded: {shorten(error, 200)}."
        raise DatabaseError(
            f"a lake needs the extension {name} of DuckDB {version}, which is not installed."
            f"{found} Run {_INSTALL}, which also installs the version of DuckDB that the "
            f"extensions are made for. With access to the internet, `INSTALL {name}` in DuckDB "
            f"{version} does it too: python -c \"import duckdb; duckdb.sql('INSTALL {name}')\"."
        ) from None


def _file_of_wheel(name: str) -> Path | None:
    """Return the extension of this DuckDB version in an installed wheel, if there is one."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    for place in places:
        file = Path(place, "extensions", f"v{duckdb.__version__}", f"{name}.duckdb_extension")
        if file.is_file():
            return file
    return None
