"""Names that are not ASCII, in a locale in which Python knows only ASCII."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name != "posix", reason="needs locales as Unix has them"),
]

ROOT = Path(__file__).resolve().parents[2]
ASCII = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))},
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONPATH": str(ROOT / "src"),
    "PYTHONIOENCODING": "utf-8",
}
FOLDER = "Gespräche 日本"

USES = """
import os, sys
from pathlib import Path
from afterimage.storage import Conversation, ConversationEntry, Document, JSONLStorage, SQLStorage
from afterimage.storage import verify_jsonl
assert sys.getfilesystemencoding() in ("ascii", "utf-8")
entry = ConversationEntry(role="user", content="\\u00e9")
record = Conversation(conversations=[entry], metadata={"d": "\\u00e9"})
for name, folder in (("listed", os.listdir()[0]), ("typed", "Gespr\\u00e4che \\u65e5\\u672c")):
    lines = JSONLStorage(f"{folder}/{name}.jsonl", f"{folder}/{name}-texts.jsonl")
    for store in (
        lines,
        SQLStorage(Path(folder) / f"{name}.duckdb"),
        SQLStorage(f"duckdb:///{folder}/{name}-url.duckdb", metadata_fields=["d"]),
    ):
        store.save_conversations([record])
        store.save_documents([Document(id="a")])
        out = f"{folder}/{name}-{type(store).__name__}-out"
        for suffix in (".jsonl", ".jsonl.gz"):
            assert store.export_jsonl(out + suffix) == 1
        assert store.export_parquet(out + ".parquet") == 1
        if isinstance(store, JSONLStorage):
            assert store.export_parquet(out, partition_by=["metadata.d"]) == 1
        assert store.import_jsonl(out + ".jsonl.gz") == 1
        assert store.import_jsonl([Path(out + ".jsonl")]) == 1
        assert [each.metadata for each in store.load_conversations()] == [record.metadata] * 3
        assert store.verify().ok
        assert store.count_conversations({"metadata.d": "\\u00e9"}) == 3
        assert store.stats().conversations == 3
    assert verify_jsonl(f"{folder}/{name}.jsonl").conversations == 3
"""


@pytest.mark.slow
def test_python(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", USES],
        cwd=tmp_path,
        env=ASCII,
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stderr.decode()) == (0, "")
    names = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert {"typed.jsonl", "typed.duckdb", "typed-url.duckdb", "listed.duckdb.lock"} <= names
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    line = {"conversations": [{"role": "user", "content": "é"}], "metadata": {"ü": "é"}}
    (tmp_path / FOLDER / "ä.jsonl").write_text(json.dumps(line) + "\n", "utf-8")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "afterimage.storage", *map(os.fsencode, arguments)],
            cwd=tmp_path,
            env=ASCII,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr.decode()) == (0, ""), done
        return done.stdout.decode()

    lines, base = f"{FOLDER}/ä.jsonl", f"{FOLDER}/ö.duckdb"
    told = json.loads(run("import", lines, base, "--metadata-field", "ü", "--json"))
    assert told["path"] == base
    for store in (lines, base, f"duckdb:///{base}"):
        found = json.loads(run("head", store, "--filter", "metadata.ü=é", "--json"))
        assert found["metadata"] == {"ü": "é"}
        assert json.loads(run("sql", store, "SELECT 'é' AS ö", "--json")) == {"ö": "é"}
    run("verify", base)
    assert "ü" in run("stats", base)
    run("export", base, f"{FOLDER}/é.parquet", "--columns", "metadata.ü")
    run("export", lines, f"{FOLDER}/é", "--partition-by", "metadata.ü")
    run("export", base, f"{FOLDER}/é.jsonl.zst")
    names = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert {"ä.jsonl", "ö.duckdb", "é", "é.parquet", "é.jsonl.zst"} <= names
