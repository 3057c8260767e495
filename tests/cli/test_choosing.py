"""The command `export` chooses and splits as the library does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from afterimage.storage import JSONLStorage, open_storage
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


@pytest.mark.parametrize(
    "name", ["talks.jsonl", pytest.param("talks.duckdb", marks=pytest.mark.slow)]
)
def test_head_and_count_choose_as_the_library_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_storage(name, create=True)
    store.save_conversations(conversations(*({"n": n // 3} for n in range(30))))

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [arguments[0], name, *arguments[1:]])
        assert (done.exit_code, done.stderr) == (0, ""), done.output
        return done.stdout

    def told(*arguments: str) -> list[str]:
        lines = run("head", *arguments, "--json", "--limit", "99").splitlines()
        return [json.loads(line)["conversations"][0]["content"] for line in lines]

    assert told("--sample", "7", "--seed", "5") == firsts(
        store.load_conversations(sample=7, seed=5)
    )
    assert told("--shuffle-seed", "2", "--shard", "1", "3") == firsts(
        store.load_conversations(shuffle_seed=2, shard=(1, 3))
    )
    assert told("--distinct", "metadata.n", "--shuffle") == firsts(
        store.load_conversations(distinct="metadata.n", shuffle_seed=42)
    )
    for view in (["--view", "full"], ["--columns", "metadata.n"], []):
        assert run("head", "--sample", "2", *view)
    assert run("head", "--sample", "0") is not None
    assert run("count", "--distinct", "metadata.n") == "10\n"
    assert run("count", "--sample", "7", "--shuffle") == "7\n"
    shards = [int(run("count", "--shard", str(rank), "3")) for rank in range(3)]
    assert sum(shards) == 30
