"""The counts of imports and exports are integers with attributes, and can be sent to a process."""

from __future__ import annotations

import pickle

import pytest

from afterimage.storage.reports.exports import ExportCount, Omissions
from afterimage.storage.reports.imports import ImportCount


def exported() -> ExportCount:
    omissions = Omissions()
    omissions.add(3, "no answer", "messages.1")
    omissions.drop(["tool calls"])
    return omissions.of(7)


@pytest.mark.parametrize(
    "count",
    [exported(), ExportCount(2), ImportCount(5, others=2)],
    ids=["lossy", "plain", "import"],
)
def test_counts_can_be_pickled(count: int) -> None:
    copy = pickle.loads(pickle.dumps(count))
    assert (copy, type(copy), vars(copy)) == (count, type(count), vars(count))
