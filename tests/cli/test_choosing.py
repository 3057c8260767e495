"""The command `export` chooses and splits as the library does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from afterimage.storage import JSONLStorage
from afterimage.storage.cli.app import app
from tests.support.records import conversations, firsts


def test_export_samples_shuffles_shards_and_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with JSONLStorage("talks.jsonl", "none.jsonl") as store:
        store.save_conversations(conversations(*({"n": n} for n in range(30))))

    def export(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["export", "talks.jsonl", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    def read(name: str) -> list[str]:
        return firsts(JSONLStorage(name, "none.jsonl").load_conversations())

    export("a.jsonl", "--sample", "9", "--seed", "5", "--shuffle", "--distinct", "content_hash")
    assert read("a.jsonl") == firsts(store.load_conversations(sample=9, seed=5, shuffle_seed=5))
    export("b.jsonl", "--shard", "1", "3", "--shuffle-seed", "2")
    assert read("b.jsonl") == firsts(store.load_conversations(shard=(1, 3), shuffle_seed=2))
    said = export("out", "--split", "0.2", "--split-by", "metadata.n", "--seed", "3")
    count = store.export_jsonl(
        "same", split={"train": 0.8, "validation": 0.2}, split_by="metadata.n", seed=3
    )
    for name, number in count.parts.items():
        assert read(f"out/{name}.jsonl") == read(f"same/{name}.jsonl")
        assert f"{name} {number}" in said
    export("hub.parquet", "--split", "train=0.5,test=0.5", "--json")
    assert (tmp_path / "hub.parquet" / "test-00000-of-00001.parquet").is_file()
    assert json.loads(Path("a.jsonl").read_text().splitlines()[0])
