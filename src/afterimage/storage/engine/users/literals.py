"""A statement of this package as text with its values in it, for users who go on in SQL."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from typing import Any

import duckdb_engine
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGCompiler

__all__ = ["literal_text"]


class _Compiler(PGCompiler):
    def render_literal_value(self, value: Any, type_: Any) -> str:
        del type_
        return _literal(value)


class _LiteralDialect(duckdb_engine.Dialect):
    statement_compiler = _Compiler
    supports_statement_cache = False


def literal_text(statement: sa.Select[Any]) -> str:
    """Return the text of a statement, in which each value is a literal of DuckDB.

    >>> text = literal_text(sa.select(sa.column("a")).where(sa.column("a") == "it's 100%"))
    >>> print(" ".join(text.split()))
    SELECT a WHERE a = 'it''s 100%'
    """
    dialect = _LiteralDialect(paramstyle="named")
    return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else f"'{value}'::DOUBLE"
        case dt.datetime():
            return f"TIMESTAMP {_text(str(value))}"
        case str():
            return _text(value)
        case Iterable():
            return f"[{', '.join(map(_literal, value))}]"
        case _:
            return _text(str(value))


def _text(value: str) -> str:
    """Return a string literal. A NUL, which the parser does not take, is a function call."""
    quoted = "'" + value.replace("'", "''") + "'"
    return "(" + quoted.replace("\0", "' || chr(0) || '") + ")" if "\0" in value else quoted
