"""Both storages: a document whose line has no id has the same id in every read and import."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document, JSONLStorage, SQLStorage, verify_jsonl

LINES = [
    '{"text":"a"}',
    "",
    '  { "text" : "b", "metadata": {"id": "inner", "n": 1} }  ',
    '{"text":"own","id":"x"}',
    '{"\\u0069d":"escaped"}',
    "{}",
    '{"text":"a"}',
    '{"id":"y"}',
]
OWN = {3: "x", 4: "escaped", 7: "y"}
"""The ids that lines have, by the index of the line."""


def write(path: Path, encoding: str = "utf-8") -> Path:
    path.write_bytes("\n".join(LINES).encode(encoding))
    return path


def opened(path: Path, **options: Any) -> JSONLStorage:
    return JSONLStorage(path.with_name("talks.jsonl"), path, **options)


def ids_of(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


def test_every_read_gives_the_same_ids(tmp_path: Path) -> None:
    store = opened(write(tmp_path / "d.jsonl"))
    ids = ids_of(store.load_documents())
    assert len({*ids}) == len(ids) == 7
    assert [ids[2], ids[3], ids[6]] == [*OWN.values()]
    assert ids_of(opened(tmp_path / "d.jsonl").load_documents()) == ids
    assert ids_of(list(store.iter_documents(batch_size=2))) == ids
    assert store.scan_documents(["id"]).read_all()["id"].to_pylist() == ids
    assert store.scan_documents().read_all()["id"].to_pylist() == ids
    assert ids_of(store.load_documents(order_by=[("id", 1)])) == sorted(ids)
    for id_ in ids:
        [found] = store.load_documents(filters={"id": id_})
        assert found.id == id_
    assert store.count_documents([("id", "==", None)]) == 0
    assert ids_of(store.load_documents(limit=2, offset=1)) == ids[1:3]
    assert store.export_jsonl(tmp_path / "out.jsonl", kind="documents") == 7
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in written] == ids


@pytest.mark.parametrize("skip", [False, True])
def test_an_import_stores_the_ids_that_reads_of_the_file_give(
    storage: Any, tmp_path: Path, skip: bool
) -> None:
    path = write(tmp_path / "source.jsonl")
    expected = opened(path).load_documents()
    on_error: Any = "skip" if skip else "raise"
    assert storage.import_jsonl(path, kind="documents", on_error=on_error) == 7
    assert storage.load_documents() == expected
    assert storage.export_jsonl(tmp_path / "out.jsonl", kind="documents") == 7
    assert opened(tmp_path / "out.jsonl").load_documents() == expected


@pytest.mark.parametrize("make", ["latin-1", "gzip", "appended"])
def test_ids_depend_on_the_content_and_the_number_of_the_line(tmp_path: Path, make: str) -> None:
    path = write(tmp_path / "d.jsonl")
    ids = ids_of(opened(path).load_documents())
    if make == "latin-1":
        other = opened(write(tmp_path / "o.jsonl", "latin-1"), encoding="latin-1")
    elif make == "gzip":
        packed = tmp_path / "o.jsonl.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        other = opened(packed)
    else:
        other = opened(path)
        other.save_documents([Document(id="new")])
        ids.append("new")
    assert ids_of(other.load_documents()) == ids
    assert verify_jsonl(path, "documents").duplicate_ids.count == 0


def test_verify_and_errors_keep_the_places_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text":"a"}\n{"text":1}\n{"id":"x"}\n{"text":"b","id":"x"}\nbroken\n')
    report = opened(path).verify()
    assert report.documents == 3
    assert [(at.line, at.offset) for at in report.corrupt.first] == [(2, 13), (5, 57)]
    assert [(at.line, at.offset) for at in report.duplicate_ids.first] == [(3, 24)]
    with pytest.warns(match="skipped"):
        assert len(opened(path).load_documents(on_error="skip")) == 3


def test_sql_on_a_file_finds_documents_by_the_same_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl")
    store = SQLStorage("duckdb:///:memory:")
    store.import_jsonl(path, kind="documents")
    [first, *_] = opened(path).load_documents()
    assert store.count_documents({"id": first.id}) == 1
