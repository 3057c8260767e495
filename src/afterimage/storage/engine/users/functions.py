"""Call a Python function in an SQL statement, as a scalar function of one connection."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.arrow.arrays import integers
from afterimage.storage.engine.statements import driver_of
from afterimage.storage.system.interrupts import current_operation

__all__ = ["number_of_texts"]

Number = Callable[[sa.ColumnElement[Any]], sa.ColumnElement[int]]


@contextmanager
def number_of_texts(
    connection: sa.Connection, count: Callable[[list[str | None]], int]
) -> Iterator[Number]:
    """Provide `count` as a function from an SQL list of strings to an integer.

    DuckDB calls it in threads of its own, but never twice at a time. An exception of `count` is
    raised unchanged. DuckDB would replace it with an error that has only its message.
    """
    driver: Any = driver_of(connection)  # its types name enums where it takes strings
    name = f"number_of_texts_{uuid.uuid4().hex}"
    errors: list[BaseException] = []
    operation = current_operation()
    lock = Lock()

    def counted(lists: Any) -> pa.Array:
        with lock:
            try:
                if operation is not None:
                    operation.checkpoint()
                return integers(map(count, lists.to_pylist()))
            except BaseException as error:
                errors.append(error)
                raise

    driver.create_function(  # without an answer for null, DuckDB would not call it
        name, counted, ["VARCHAR[]"], "BIGINT", type="arrow", null_handling="special"
    )
    try:
        yield getattr(sa.func, name)
    except Exception:
        if errors:
            raise errors.pop() from None  # `pop` avoids a reference cycle with this frame
        raise
    finally:
        with suppress(Exception):  # a failed transaction removes it itself
            driver.remove_function(name)
