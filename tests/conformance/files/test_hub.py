"""`export_hub` writes a folder that the Hugging Face Hub takes as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from afterimage.storage import ChatConversation, InvalidQueryError, MissingFileError
from tests.support.records import conversation

CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
CHAT = [
    {"role": "user", "content": "Find it."},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "tool_call_id": "1"},
    {"role": "assistant", "content": "Three."},
]


def front_matter(folder: Path) -> list[str]:
    text = (folder / "README.md").read_text("utf-8")
    return text.split("---\n")[1].splitlines()


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_the_folder_has_the_rows_and_a_card(storage: Any, tmp_path: Path) -> None:
    storage.save_conversations([conversation("Hi"), ChatConversation(conversations=CHAT)])
    folder = tmp_path / "talks"
    assert storage.export_hub(folder, license="cc-by-4.0", title="My talks") == 2
    assert files(folder) == ["README.md", "data/train-00000-of-00001.parquet"]
    rows = pq.read_table(folder / "data").to_pylist()
    assert [row["messages"][0]["content"] for row in rows] == ["Hi", "Find it."]
    front = front_matter(folder)
    assert 'license: "cc-by-4.0"' in front
    assert '    path: "data/train-*"' in front
    assert "    num_examples: 2" in front
    [features] = [json.loads(line.split(":", 1)[1]) for line in front if "features:" in line]
    assert [each["name"] for each in features] == ["messages"]
    assert {"name": "role", "dtype": "string"} in features[0]["list"]
    text = (folder / "README.md").read_text("utf-8")
    assert "# My talks" in text
    assert "| conversations | 2 |" in text


def test_whole_records(storage: Any, tmp_path: Path) -> None:
    storage.save_conversations([conversation("Hi", {"n": 1})])
    assert storage.export_hub(tmp_path / "talks", format=None) == 1
    [row] = pq.read_table(tmp_path / "talks" / "data").to_pylist()
    assert json.loads(row["metadata"]) == {"n": 1}
    assert any("features:" in line for line in front_matter(tmp_path / "talks"))


def test_a_new_export_replaces_an_earlier_one_only(storage: Any, tmp_path: Path) -> None:
    folder = tmp_path / "talks"
    for count in (1, 2):
        storage.save_conversations([conversation("Hi")])
        assert storage.export_hub(folder) == count
        assert len(pq.read_table(folder / "data")) == count
    (tmp_path / "own").mkdir()
    assert storage.export_hub(tmp_path / "own") == 2  # an empty folder
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("other", "file"):
        with pytest.raises(InvalidQueryError, match="was not written by"):
            storage.export_hub(tmp_path / name)
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"
    with pytest.raises(MissingFileError):
        storage.export_hub(tmp_path / "none" / "talks")


def test_nothing_is_left_of_an_export_that_fails(storage: Any, tmp_path: Path) -> None:
    storage.save_conversations([ChatConversation(conversations=CHAT)])
    for folder in (tmp_path / "new", tmp_path / "old"):
        if folder.name == "old":
            storage.export_hub(folder)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InvalidQueryError, match="unknown format"):
            storage.export_hub(folder, format="chatty")
        with pytest.raises(InvalidQueryError, match="license"):
            storage.export_hub(folder, license="")
        assert sorted(tmp_path.rglob("*")) == before
