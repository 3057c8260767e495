"""The report of skipped records stays small for any number of them."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from pathlib import Path

import pytest

from afterimage.storage import CorruptRecordError, SkippedRecordsWarning
from afterimage.storage.reports.faults import Faults


@pytest.mark.slow
def test_of_a_hundred_thousand_corrupt_records_the_first_few_are_kept() -> None:
    corrupt = Faults("skip")
    tracemalloc.start()
    try:
        for line in range(1, 100_001):
            corrupt.handle(CorruptRecordError("talks.jsonl", line, 10 * line, "x" * 500))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
    with pytest.warns(SkippedRecordsWarning) as caught:
        corrupt.warn()
    text = str(caught[0].message)
    assert len(text) < 1500
    assert len(text.splitlines()) == 7


def test_a_warning_goes_through_pickle_and_copy() -> None:
    corrupt = Faults("skip")
    corrupt.handle(CorruptRecordError(Path("talks.jsonl"), 3, 17, "no JSON"))
    with pytest.warns(SkippedRecordsWarning) as caught:
        corrupt.warn()
    warning = caught[0].message
    assert isinstance(warning, SkippedRecordsWarning)
    for again in (pickle.loads(pickle.dumps(warning)), copy.copy(warning)):
        assert (again.report, str(again)) == (warning.report, str(warning))
