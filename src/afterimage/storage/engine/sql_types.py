"""DuckDB types by their name, for SQLAlchemy, which knows none of the nested ones."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

__all__ = ["SqlType"]


class SqlType(sa.types.UserDefinedType[Any]):
    """A type by its name in DuckDB; values pass as they are.

    >>> str(sa.cast(sa.column("n"), SqlType("HUGEINT")))
    'CAST(n AS HUGEINT)'
    """

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name
