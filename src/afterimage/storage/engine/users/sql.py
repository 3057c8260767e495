"""Run one read-only SQL statement of a user.

The invariant: exactly one statement is executed, and it only reads. DuckDB's own parser and planner
determine its kind; the text is never searched for words. These checks are independent of each
other:

- the parser must find exactly one statement, a SELECT (to the parser DESCRIBE, SHOW, SUMMARIZE and
  PIVOT are SELECTs too) or an EXPLAIN of a SELECT;
- its plan must have no operator that writes a file or a table or changes a setting;
- the database is opened read-only, in a DuckDB instance of its own, or is a copy in memory, and the
  transaction is read-only;
- settings are locked, Python variables are not tables, extensions are not loaded, and no other file
  can be read unless the caller allows it.
"""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import duckdb
import sqlalchemy as sa

from afterimage.storage.engine.attach import connect
from afterimage.storage.engine.instance import quoted
from afterimage.storage.engine.progress import PROGRESS_SETTINGS, followed_statement
from afterimage.storage.engine.statements import translated
from afterimage.storage.engine.users.values import Column
from afterimage.storage.errors import DatabaseError, InvalidQueryError, shorten
from afterimage.storage.reports.progress import ShareProgress
from afterimage.storage.system.atomic_files import temporary_name

__all__ = ["Column", "run_user_sql"]

_SETTINGS: Final = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}

# The last one locks all settings.
_CONNECTION_SETTINGS: Final = {
    "python_enable_replacements": "false",
    **PROGRESS_SETTINGS,
    "lock_configuration": "true",
}

# A plan of a SELECT can have these: from a WITH that writes (DuckDB 2.0), and from table functions
# that change the instance, which DuckDB 1.5 runs although settings are locked. `query('…')`, views
# and macros can hide them from the parser, but not from the planner.
_WRITING: Final = frozenset(
    {
        "BATCH_COPY_TO_FILE",
        "BATCH_CREATE_TABLE_AS",
        "BATCH_INSERT",
        "CHECKPOINT",
        "COPY_TO_FILE",
        "CREATE_TABLE_AS",
        "DELETE",
        "DISABLE_LOGGING",
        "DISABLE_PROFILING",
        "ENABLE_LOGGING",
        "ENABLE_PROFILING",
        "FORCE_CHECKPOINT",
        "INSERT",
        "MERGE_INTO",
        "TRUNCATE_DUCKDB_LOGS",
        "UPDATE",
    }
)

_BATCH_ROWS = 1024

_BEGIN: Final = "BEGIN TRANSACTION READ ONLY"

# Errors that DuckDB raises before it reads data: the text must be changed.
_INVALID: Final = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.SyntaxException,
)

# The line of a statement with an error, and a mark below it.
_DRAWING: Final = re.compile(r"\n\nLINE (?P<line>\d+): (?P<text>[^\n]*)\n(?P<blank> *)\^+")
_CUT: Final = "..."


Follow = Callable[[], AbstractContextManager[ShareProgress | None]]


def run_user_sql(
    sql: str,
    source: Path | Callable[[], sa.Engine],
    *,
    name: str,
    allow_files: bool = False,
    lock_timeout: float = 30,
    follow: Follow = nullcontext,
) -> tuple[list[Column], Iterator[tuple[Any, ...]]]:
    """Run a read-only statement. Return its columns, and an iterator over its rows.

    Args:
        sql: the statement, in DuckDB's dialect. It is checked before `source` is opened.
        source: a DuckDB file; or a function that returns the engine of a database in memory. The
            settings of that database stay locked, so nothing else should use it.
        name: name of the store, for messages.
        allow_files: whether the statement may read other files (`read_csv`, `'file.parquet'`).
        lock_timeout: seconds to wait while another process has the file open.
        follow: returns a context manager around the execution of the statement. It provides the
            progress to report to, or None.

    Raises:
        InvalidQueryError: it is not exactly one read-only statement, it is not valid, or it names
            what does not exist; nothing was executed.
        LockTimeoutError: another process held the file for all of `lock_timeout`.
        DatabaseError: DuckDB reported an error, perhaps only for a later row.

    >>> from afterimage.storage import SQLStorage
    >>> store = SQLStorage("duckdb:///:memory:")
    >>> columns, rows = run_user_sql("SELECT 1 AS n", lambda: store.engine, name="a store")
    >>> [column.name for column in columns], list(rows)
    (['n'], [(1,)])
    """

    def found() -> Iterator[Any]:
        with translated(name):
            with _located(name, sql):
                statement, selected = _reading_statement(sql)
            locked = _locked(source, allow_files=allow_files, lock_timeout=lock_timeout)
            with locked as connection:
                connection.execute(_BEGIN)
                with _located(name, sql, lines_before=1):
                    _check_plan(connection, selected)
                    columns, readable = _readable(connection, statement, selected)
                run: Any = statement if readable is None else readable
                with _located(name, sql, lines_before=0 if readable is None else 1):
                    with follow() as progress, followed_statement(connection, progress):
                        connection.execute(run)
                    described = connection.description or ()
                    yield columns or [Column(each[0], each[1]) for each in described]
                    while rows := connection.fetchmany(_BATCH_ROWS):
                        yield from rows

    rows = found()
    return next(rows), rows


@contextmanager
def _located(name: str, sql: str, lines_before: int = 0) -> Iterator[None]:
    """Raise an error of DuckDB with the place in the user's text, on one line.

    Args:
        name: name of the store.
        sql: the text of the user.
        lines_before: number of lines before this text in the statement that DuckDB sees.

    Raises:
        InvalidQueryError: the text is not valid SQL, or names what does not exist.
        DatabaseError: any other error.
    """
    try:
        yield
    except duckdb.Error as error:
        kind = InvalidQueryError if isinstance(error, _INVALID) else DatabaseError
        message = _placed(str(error), sql.split("\n"), lines_before)
        raise kind(f"{name}: {shorten(message, 600)}") from error


def _placed(message: str, lines: list[str], lines_before: int) -> str:
    """Return a message with line and column instead of DuckDB's drawing of them."""
    drawn = _DRAWING.search(message)
    if drawn is None:
        return message
    what = message[: drawn.start()] + message[drawn.end() :]
    number = int(drawn["line"]) - lines_before
    if not 0 < number <= len(lines):
        return what
    # A long line is cut at both ends. The mark is as many places from the left as the text is wide.
    text, place, width = drawn["text"], 0, 0
    space = len(drawn["blank"]) - len(f"LINE {drawn['line']}: ")
    while place < len(text) and width < space:
        width += 2 if unicodedata.east_asian_width(text[place]) in "WF" else 1
        place += 1
    near = text[place:]
    start = lines[number - 1].find(text.removeprefix(_CUT).removesuffix(_CUT))
    if start < 0:
        return f"{what} (line {number})"
    column = start + place - (len(_CUT) if text.startswith(_CUT) else 0) + 1
    return f"{what} (line {number}, column {column}" + (f": {shorten(near, 40)})" if near else ")")


def _readable(
    connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement, select: str
) -> tuple[list[Column] | None, str | None]:
    """Return the columns of a SELECT, and a statement with the same values that Python can read.

    Returns:
        None and None if it is not known; the second is None if the SELECT itself can be read.
    """
    if statement.type != duckdb.StatementType.SELECT:
        return None, None
    table = f"(\n{_without_semicolons(select)}\n)"
    try:
        # The statements are checked too, as they are not what the user wrote.
        connection.execute(_reading_statement(f"FROM {table} LIMIT 0")[0])
        columns = [Column(each[0], each[1]) for each in connection.description or ()]
        types = [column.read_as() for column in columns]
        if not any(types):
            return columns, None
        cast = (
            f"#{number}" if kind is None else f"#{number}::{kind}"
            for number, kind in enumerate(types, 1)
        )
        readable = f"SELECT {', '.join(cast)} FROM {table}"
        _check_plan(connection, _reading_statement(readable)[1])
    except (duckdb.Error, InvalidQueryError):  # a statement that cannot be a subquery
        connection.execute(f"ROLLBACK; {_BEGIN}")
        return None, None
    return columns, readable


def _without_semicolons(statement: str) -> str:
    text = bytearray(statement.encode())
    for start, _ in duckdb.tokenize(statement):
        if text[start : start + 1] == b";":
            text[start : start + 1] = b" "
    return text.decode()


def _reading_statement(sql: str) -> tuple[duckdb.Statement, str]:
    """Return the statement, and the SELECT that it is or explains at the same place of the text.

    Raises:
        InvalidQueryError: the text is not exactly one read-only statement.
    """
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise InvalidQueryError("the statement is not valid UTF-8.") from None
    # DuckDB 1.5 reads files while it parses (IMPORT DATABASE), so the parser has no access either.
    config: dict[str, Any] = {**_SETTINGS, "enable_external_access": "false"}
    with duckdb.connect(":memory:", config=config) as parser:
        statements = parser.extract_statements(sql)
        # A PIVOT that has to find its values first is one MULTI in DuckDB 2.0, and in 1.5 several
        # statements without a text. DuckDB does not say what else is among them, so none is run.
        if any(found.type.name == "MULTI" or not found.query for found in statements):
            raise InvalidQueryError(
                "DuckDB runs a PIVOT without its values as several statements, and only one is "
                "allowed. Name the values: PIVOT … ON column IN ('a', 'b')."
            )
        if len(statements) != 1:
            raise InvalidQueryError(
                f"the text has {len(statements)} statements. Give exactly one, a SELECT."
            )
        [statement] = statements
        kind = statement.type
        if kind == duckdb.StatementType.SELECT:
            return statement, statement.query
        if kind == duckdb.StatementType.EXPLAIN:
            kind, selected = _explained(parser, statement.query)
            if kind == duckdb.StatementType.SELECT:
                return statement, selected
    raise InvalidQueryError(
        f"{kind.name} is not a statement that only reads. Give a SELECT, DESCRIBE, SHOW, "
        "SUMMARIZE or EXPLAIN."
    )


def _explained(parser: duckdb.DuckDBPyConnection, explain: str) -> tuple[duckdb.StatementType, str]:
    """Return the kind of the statement that an EXPLAIN explains, and its text after blanks.

    Parses the text from each token to the end, in order. The first text that is one statement is
    the explained one. The options of the EXPLAIN cannot be the beginning of a statement: no
    statement has an unmatched bracket, or brackets followed by the beginning of another statement.
    """
    text = explain.encode()
    for start, _ in duckdb.tokenize(explain)[1:]:
        rest = text[start:].decode(errors="replace")
        try:
            found = parser.extract_statements(rest)
        except duckdb.Error:
            continue
        # If a comment precedes the EXPLAIN, the first statement is the EXPLAIN itself.
        if len(found) == 1 and found[0].type != duckdb.StatementType.EXPLAIN:
            before = re.sub(r"[^\n]", " ", text[:start].decode(errors="replace"))
            return found[0].type, before + rest
    return duckdb.StatementType.EXPLAIN, explain


def _check_plan(connection: duckdb.DuckDBPyConnection, select: str) -> None:
    [[_, plan]] = connection.execute(f"EXPLAIN (FORMAT json)\n{select}").fetchall()
    writing = _WRITING.intersection(_operators(json.loads(plan)))
    if writing:
        raise InvalidQueryError(
            f"the statement does not only read: its plan has {', '.join(sorted(writing))}. "
            "Remove that part; to write files, use the command `export`."
        )


def _operators(plan: Any) -> Iterator[str]:
    waiting = list(plan)
    while waiting:
        operator = waiting.pop()
        yield operator["name"].strip()
        waiting.extend(operator.get("children", ()))


@contextmanager
def _locked(
    source: Path | Callable[[], sa.Engine], *, allow_files: bool, lock_timeout: float
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with locked settings, which can read other files only if allowed."""
    # By default DuckDB writes its temporary files next to the store, or to the working folder.
    spill = temporary_name()
    settings = {**_SETTINGS, "temp_directory": str(spill or "")}
    # Set after the others: without access, `temp_directory` cannot be set.
    last = {} if allow_files else {"enable_external_access": "false"}
    try:
        if isinstance(source, Path):
            connection, release = connect(source, lock_timeout, read_only_settings=settings)
            try:
                _set(connection, {**last, **_CONNECTION_SETTINGS})
                yield connection
            finally:
                release()
        else:
            borrowed = source().raw_connection()
            try:
                driver: Any = borrowed.driver_connection
                _set(driver, {**settings, **last, **_CONNECTION_SETTINGS})
                yield driver
            finally:
                borrowed.close()
    finally:
        if spill is not None:
            shutil.rmtree(spill, ignore_errors=True)  # DuckDB 1.5 does not always remove it


def _set(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        connection.execute(f"SET {name} = {quoted(value)}")
