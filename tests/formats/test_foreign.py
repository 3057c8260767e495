"""Files of other tools: every row comes back.

They are the examples of LLaMA-Factory. Their folder is in `FOREIGN_FILES`.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage.formats.registry import detect
from tests.formats.examples import assert_round_trip

FOLDER = os.environ.get("FOREIGN_FILES")
FILES = {
    "alpaca_zh_demo.json.gz": ("alpaca", 1000),
    "glaive_toolcall_zh_demo.json.gz": ("sharegpt", 300),
    "v1_multimodal_demo.jsonl.gz": ("messages", 24),
    "mllm_demo.json.gz": ("messages", 6),
    "kto_en_demo.json.gz": ("messages", 300),
    "dpo_zh_demo.json.gz": ("preference", 300),
}


def rows_of(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()).decode()
    if text.startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.skipif(not FOLDER, reason="FOREIGN_FILES names no folder with files of other tools")
class TestEveryRow:
    @pytest.mark.parametrize("file", FILES)
    def test_comes_back_in_its_format(self, file: str) -> None:
        name, count = FILES[file]
        rows = rows_of(Path(str(FOLDER)) / file)
        assert len(rows) == count
        assert detect(rows).name == name
        for row in rows:
            assert_round_trip(name, row)
