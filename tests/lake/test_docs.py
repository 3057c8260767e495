"""The examples of docs/scale.md run and print what is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import SQLStorage
from tests.project.test_readme import ROOT, blocks, run_python, run_session
from tests.support.postgres import Server

DOCS = ROOT / "docs"


def test_the_example_without_a_server(
    file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "scale.md").read_text(encoding="utf-8")
    _, *examples = [each for each in blocks(page) if each.language == "python"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    assert len(examples) == 5
    for example in examples:
        is_session = example.text.startswith(">>>")
        (run_session if is_session else run_python)(example, namespace)


@pytest.mark.process
def test_three_generators_save_to_one_lake(server: Server, tmp_path: Path) -> None:
    url = server.url(tmp_path / "data")
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "LAKE": url, "BATCHES": "3", "PYTHONPATH": paths}
    command = [sys.executable, str(DOCS / "lake" / "generate.py")]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert all("conversations in the lake" in each for each in told)
    storage = SQLStorage(url)
    assert storage.count_conversations() == 3 * 3 * 60
    assert storage.verify().ok
