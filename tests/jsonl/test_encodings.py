"""A store with another encoding converts what it saves, imports, reads and exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document, JSONLStorage, SQLStorage
from tests.support.records import Note, conversation

TEXT = "é ß 日本 😀 \u2028 ~ \\ x"
ENCODINGS = ["latin-1", "cp1252", "shift_jis", "gbk"]
KINDS = ["conversations", "documents", "records"]


def opened(folder: Path, encoding: str) -> JSONLStorage:
    return JSONLStorage(folder / "c.jsonl", folder / "d.jsonl", encoding=encoding)


def source_of(tmp_path: Path) -> SQLStorage:
    store = SQLStorage(f"duckdb:///{tmp_path / 's.duckdb'}")
    store.save_conversations([conversation(TEXT, {TEXT: [TEXT]}), Note(title=TEXT)])
    store.save_documents([Document(id=TEXT, text=TEXT, metadata={TEXT: TEXT})])
    return store


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_imports_are_converted(tmp_path: Path, encoding: str) -> None:
    source, target = source_of(tmp_path), opened(tmp_path, encoding)
    for kind in KINDS:
        exported: Any = kind
        source.export_jsonl(tmp_path / f"{kind}.jsonl", kind=exported)
        saved_as: Any = "documents" if kind == "documents" else "conversations"
        assert target.import_jsonl(tmp_path / f"{kind}.jsonl", kind=saved_as) == 1
    (tmp_path / "no-id.jsonl").write_text(json.dumps({"text": TEXT}, ensure_ascii=False), "utf-8")
    assert target.import_jsonl(tmp_path / "no-id.jsonl", kind="documents") == 1
    for name in ("c.jsonl", "d.jsonl"):
        for line in (tmp_path / name).read_bytes().splitlines():
            json.loads(line.decode(encoding))
    assert target.load_conversations() == source.load_conversations()
    assert target.load_records(Note) == source.load_records(Note)
    document, unnamed = target.load_documents()
    assert [document] == source.load_documents()
    assert unnamed.text == TEXT
    assert target.verify().ok


@pytest.mark.parametrize("encoding", ["latin-1", "shift_jis", "gbk"])
def test_lines_of_other_programs_are_read_exported_and_filtered(
    tmp_path: Path, encoding: str
) -> None:
    word = {"latin-1": "é ß", "shift_jis": "日本 表", "gbk": "漢字 俓"}[encoding]
    messages = [{"role": role, "content": word} for role in ("user", "assistant")]
    talk, document = {"conversations": messages, "metadata": {word: word}}, {"text": word}
    for name, record in (("c.jsonl", talk), ("d.jsonl", document)):
        text = json.dumps(record, ensure_ascii=False)
        (tmp_path / name).write_bytes(f"{text}\n".encode(encoding))
    store = opened(tmp_path, encoding)
    assert store.load_conversations(filters={f'metadata."{word}"': word})[0].metadata[word] == word
    assert store.load_documents(filters={"text": word})[0].text == word
    assert store.scan_documents(["text"]).read_all()["text"].to_pylist() == [word]
    for kind, field in (("conversations", "metadata"), ("documents", "text")):
        exported: Any = kind
        store.export_jsonl(tmp_path / "out.jsonl", kind=exported)
        line = json.loads((tmp_path / "out.jsonl").read_text("utf-8"))
        assert line[field] == {**talk, **document}[field]
    store.export_jsonl(tmp_path / "out.jsonl", format="messages")
    line = json.loads((tmp_path / "out.jsonl").read_text("utf-8"))
    assert line["messages"][0]["content"] == word
    assert store.verify().ok
