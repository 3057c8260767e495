"""JSON values become values of a declared Arrow type, exactly or not at all."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Generator
from typing import Any

import pyarrow as pa
import pytest

from afterimage.storage import InvalidQueryError
from afterimage.storage.arrow.declared import DeclaredTypes
from afterimage.storage.records.fields import CONVERSATIONS
from afterimage.storage.records.paths import resolve


def converted(kind: Any, *values: Any) -> pa.Array:
    field = resolve(CONVERSATIONS.stored, "metadata.n")
    texts = pa.array([json.dumps(value) for value in values], pa.large_string())

    def batches() -> Generator[pa.RecordBatch, None, None]:
        yield pa.RecordBatch.from_arrays([texts], names=["metadata.n"])

    [batch] = DeclaredTypes.of({"metadata.n": kind}, [field]).batches(batches())
    return batch.column(0)


TEN = dt.datetime(2026, 2, 1, 10, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("int64", [1, -(2**63), None, 3.0], [1, -(2**63), None, 3]),
        ("uint64", [2**64 - 1], [2**64 - 1]),
        ("double", [1, 0.1, None, 2**53], [1.0, 0.1, None, float(2**53)]),
        ("float", [0.5, 1, None], [0.5, 1.0, None]),
        ("bool", [True, False, None], [True, False, None]),
        ("string", ["a", "", None, "é\n", "null", "1"], ["a", "", None, "é\n", "null", "1"]),
        ("date32", ["2026-02-01"], [dt.date(2026, 2, 1)]),
        ("timestamp[us]", ["2026-02-01T10:00:00"], [TEN.replace(tzinfo=None)]),
        ("timestamp[us, UTC]", ["2026-02-01T10:00:00Z", None], [TEN, None]),
        ("timestamp[ms, tz=UTC]", ["2026-02-01T12:00:00+02:00"], [TEN]),
        (pa.int16(), [1, 2], [1, 2]),
        (pa.large_string(), [], []),
    ],
)
def test_values_that_fit(kind: Any, values: list[Any], expected: list[Any]) -> None:
    assert converted(kind, *values).to_pylist() == expected


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("int64", "1", '"1", which is not int64'),
        ("int64", 1.5, "1.5, which is not int64"),
        ("int64", float("nan"), "NaN, which is not int64"),
        ("int64", float("inf"), "Infinity, which is not int64"),
        ("int64", True, "true, which is not int64"),
        ("int64", 2**63, "9223372036854775808, which is not int64"),
        ("int8", 128, "128, which is not int8"),
        ("double", 2**53 + 1, "9007199254740993, which is not double"),
        ("double", True, "true, which is not double"),
        ("float", 1e300, "which is not float"),
        ("bool", 1, "1, which is not bool"),
        ("string", 1, "1, which is not string"),
        ("string", ["a"], '["a"], which is not string'),
        ("date32", 5, "5, which is not date32[day]"),
        ("date32", "soon", '"soon", which is not date32[day]'),
        ("timestamp[us]", "2026-02-01T10:00:00Z", "timestamp[us] (expected no zone offset)."),
    ],
)
def test_values_that_do_not_fit_are_named(kind: str, value: Any, shown: str) -> None:
    with pytest.raises(InvalidQueryError) as error:
        converted(kind, None, value)
    assert str(error.value).startswith("record 1 of the result: metadata.n is ")
    assert shown in str(error.value)
