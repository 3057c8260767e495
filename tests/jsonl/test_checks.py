"""A file without its corrupt lines is the same file: every other line keeps its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from afterimage.storage import CorruptRecordError
from afterimage.storage.jsonl.checks import loadable, valid_chunks
from afterimage.storage.jsonl.lines import read_chunks
from afterimage.storage.records.fields import CONVERSATIONS
from afterimage.storage.reports.faults import Faults
from tests.conformance.queries.test_errors import BAD_LINES
from tests.support.records import conversation

GOOD = conversation("é").model_dump_json().encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "talks.jsonl"
    path.write_bytes(b"\n".join([GOOD, b"", *(line for bad in BAD_LINES for line in (bad, GOOD))]))
    return path


def test_good_lines_keep_their_numbers_and_offsets(path: Path) -> None:
    corrupt = Faults("skip")
    before = [line for chunk in read_chunks(path) for line in chunk.records()]
    sound = valid_chunks(read_chunks(path), loadable(CONVERSATIONS), corrupt)
    after = [line for chunk in sound for line in chunk.records()]
    assert corrupt.found().count == len(BAD_LINES)
    assert [line.text for line in after].count(GOOD) == len(BAD_LINES) + 1
    assert set(after) < set(before)
    data = path.read_bytes()
    for line in after:
        assert data[line.offset :].startswith(line.text)
        assert data[: line.offset].count(b"\n") == line.number - 1


def test_by_default_the_first_corrupt_line_is_raised(path: Path) -> None:
    chunks = valid_chunks(read_chunks(path), loadable(CONVERSATIONS), Faults("raise"))
    with pytest.raises(CorruptRecordError) as caught:
        next(chunks)
    assert (caught.value.line, caught.value.offset) == (3, len(GOOD) + 2)
