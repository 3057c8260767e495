"""The URL of a lake: where its catalog is, and where its data files are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from afterimage.storage.errors import UnsupportedURLError, shorten
from afterimage.storage.system.targets import system_path

__all__ = ["LakeAddress"]

_SERVERS: Final = ("ducklake+postgresql", "ducklake+postgres")
_OPTIONS: Final = ("data_path", "metadata_schema")
# Options of the connection, which libpq understands.
_CONNECTION_OPTIONS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")

_HAS_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.I)

_EXAMPLES: Final = (
    "'ducklake+postgresql://user:password@host:5432/dbname?data_path=s3://bucket/folder' or "
    "'ducklake:///lake.ducklake?data_path=folder'"
)


@dataclass(frozen=True)
class LakeAddress:
    """The parts of the URL of a lake.

    Attributes:
        display_name: the URL without its password and its options.
        file: the file of the catalog; None if the catalog is in PostgreSQL.
        server: what PostgreSQL needs for a connection, by the name of the parameter.
        connection_options: further parameters of libpq.
        metadata_schema: the schema in PostgreSQL that has the catalog.
        data_path: the folder of the data files; None if the catalog says where it is.
    """

    display_name: str
    file: Path | None
    server: tuple[tuple[str, str], ...]
    connection_options: tuple[tuple[str, str], ...]
    metadata_schema: str
    data_path: str | None

    def __repr__(self) -> str:
        return f"LakeAddress({self.display_name!r})"

    @classmethod
    def of(cls, url: str) -> LakeAddress:
        """Return the parts of a URL.

        Raises:
            UnsupportedURLError: a part is missing, or is not understood.

        >>> LakeAddress.of("ducklake+postgresql://me:secret@db/talks?data_path=/data")
        LakeAddress('ducklake+postgresql://me:***@db/talks')
        """
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            # The text is not shown: it may contain a password.
            raise UnsupportedURLError(
                f"the URL of the lake cannot be read. Give {_EXAMPLES}. Write the characters "
                "@ : / ? # and % of a password as %40, %3A, %2F, %3F, %23 and %25."
            ) from None
        bare = parsed.set(query={})
        name = bare.render_as_string(hide_password=True)
        is_server = parsed.drivername in _SERVERS
        if not is_server and parsed.drivername != "ducklake":
            raise UnsupportedURLError(
                f"{shorten(name, 80)!r}: a lake has its catalog in PostgreSQL or in a file. Give "
                f"{_EXAMPLES}."
            )
        options = {
            key: value if isinstance(value, str) else value[-1]
            for key, value in parsed.query.items()
        }
        known = (*_OPTIONS, *_CONNECTION_OPTIONS) if is_server else _OPTIONS[:1]
        unknown = sorted(options.keys() - set(known))
        if unknown:
            raise UnsupportedURLError(
                f"{shorten(name, 80)!r}: option {shorten(unknown[0], 40)!r} is not supported. "
                f"Supported: {', '.join(known)}."
            )
        if not is_server and (parsed.host or parsed.username or not parsed.database):
            raise UnsupportedURLError(
                f"{shorten(name, 80)!r} does not name the file of a catalog. Give {_EXAMPLES}, "
                "with three slashes, or four for an absolute path."
            )
        if is_server and not parsed.database:
            raise UnsupportedURLError(
                f"{shorten(name, 80)!r} does not name a database of PostgreSQL. Give {_EXAMPLES}."
            )
        schema = options.get("metadata_schema") or "public"
        file = None if is_server else system_path(parsed.database or "").absolute()
        if is_server:
            hidden = {"metadata_schema": schema} if schema != "public" else {}
            name = bare.set(query=hidden).render_as_string(hide_password=True)
        else:
            name = f"ducklake:///{file}"
        server = {
            "HOST": parsed.host,
            "PORT": parsed.port,
            "DATABASE": parsed.database,
            "USER": parsed.username,
            "PASSWORD": parsed.password,
        }
        return cls(
            name,
            file,
            tuple((key, str(value)) for key, value in server.items() if value is not None)
            if is_server
            else (),
            tuple((key, options[key]) for key in _CONNECTION_OPTIONS if key in options),
            schema,
            _absolute(options.get("data_path")),
        )


def _absolute(data_path: str | None) -> str | None:
    if not data_path:
        return None
    if _HAS_SCHEME.match(data_path):
        return data_path
    return str(system_path(data_path).absolute())
