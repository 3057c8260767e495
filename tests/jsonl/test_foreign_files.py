"""A file that is not JSON lines is refused by saves and imports, and no byte of it changes."""

from __future__ import annotations

import gzip
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from afterimage.storage import Document, JSONLStorage, StorageError, verify_jsonl
from tests.support.records import conversations

RECORDS = [{"conversations": [], "metadata": {"n": n}} for n in range(3)]
LINES = "".join(f"{json.dumps(record)}\n" for record in RECORDS)


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": [1, 2]}), sink)
    return sink.getvalue()


FOREIGN: dict[str, bytes] = {
    "an array on one line": json.dumps(RECORDS).encode(),
    "an array with a line feed": json.dumps(RECORDS).encode() + b"\n",
    "an array over several lines": json.dumps(RECORDS, indent=2).encode(),
    "an indented array with a line feed": json.dumps(RECORDS, indent=2).encode() + b"\n",
    "an array with a record on each line": b"[\n" + ",\n".join(LINES.split("\n")).encode() + b"]\n",
    "a truncated array": json.dumps(RECORDS, indent=2).encode()[:-30],
    "an indented object": json.dumps(RECORDS[0], indent=2).encode() + b"\n",
    "an object with a list over several lines": b'{"data": [\n{"a": 1},\n{"a": 2}\n]}\n',
    "UTF-16": LINES.encode("utf-16"),
    "UTF-16 without a mark": LINES.encode("utf-16-le"),
    "UTF-16 without a last line feed": LINES.encode("utf-16-be")[:-2],
    "prose": b"Dear diary,\nnothing was saved today.\n",
    "one line of prose": b"nothing was saved today",
    "CSV": b"role,content\nuser,hello\n",
    "gzip": gzip.compress(LINES.encode()),
    "Zstandard": bytes(pa.compress(LINES.encode(), "zstd", asbytes=True)),
    "Parquet": _parquet(),
    "a string": b'"conversations"\n',
    "two records on the last line": LINES.encode() + b'{"a":1}{"a":2',
    "prose after records": LINES.encode() + b"the end",
}

SAVES: dict[str, Callable[[JSONLStorage, Path], Any]] = {
    "conversations": lambda store, _: store.save_conversations(conversations({"new": 1})),
    "documents": lambda store, _: store.save_documents([Document(text="new")]),
    "import": lambda store, source: store.import_jsonl(source),
}


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("name", FOREIGN)
def test_nothing_is_saved_into_a_file_that_is_not_json_lines(
    tmp_path: Path, name: str, save: str
) -> None:
    path, source = tmp_path / "store.jsonl", tmp_path / "source.jsonl"
    path.write_bytes(FOREIGN[name])
    source.write_text(LINES)
    other = tmp_path / "other.jsonl"
    store = JSONLStorage(other, path) if save == "documents" else JSONLStorage(path, other)
    with pytest.raises(StorageError, match=r"store\.jsonl is not a file of JSON lines") as caught:
        SAVES[save](store, source)
    assert len(str(caught.value)) < 300
    assert path.read_bytes() == FOREIGN[name]
    assert sorted(each.suffix for each in tmp_path.iterdir()) == [".jsonl", ".jsonl", ".lock"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf" + LINES.encode(),
        b"\n  \r\n" + LINES.encode(),
        LINES.replace("\n", "\r\n").encode(),
        b'{ "conversations" : [ ] }\n',
        b"{}\n",
        b'{"conversations": []}',
        b'{"conversations": [], "metadata": {"text": "' + b"x" * 100_000 + b'"}}\n',
        b"a damaged line\n" + LINES.encode(),
        b"a damaged line\n" + LINES.rstrip().encode(),
    ],
)
def test_json_lines_of_any_origin_are_appended_to(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.jsonl"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        JSONLStorage(path).save_conversations(conversations({"new": 1}))
    after = path.read_bytes()
    assert after.startswith(content)
    assert json.loads(after.removeprefix(content))["metadata"] == {"new": 1}


@pytest.mark.parametrize("name", ["prose after records", "two records on the last line"])
def test_verify_reports_a_last_line_that_no_save_began_as_corrupt(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "store.jsonl").write_bytes(FOREIGN[name])
    report = verify_jsonl(tmp_path / "store.jsonl")
    assert (report.conversations, report.corrupt.count, report.torn_tails.count) == (3, 1, 0)
