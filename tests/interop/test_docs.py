"""The examples of the docs on other tools, files and formats print what is shown."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.project.test_readme import ROOT, blocks, run_python, run_session

# Each page with the libraries that its examples import and the extra `test` does not have.
PAGES = {
    "bring-your-conversations.md": (),
    "check-a-dataset.md": (),
    "choosing.md": (),
    "cookbook.md": (),
    "hugging-face.md": ("datasets",),
    "import-and-export.md": ("fsspec",),
    "interoperability.md": ("datasets", "ibis"),
    "looking.md": (),
    "training-formats.md": (),
}

# Blocks that import one of these are left out where it is missing.
OPTIONAL = ("rensa",)


# ibis uses a call that DuckDB has deprecated.
@pytest.mark.filterwarnings("ignore:fetch_:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run_and_print_what_they_show(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging-face"))
    for library in PAGES[page]:
        pytest.importorskip(library, reason=f"{library} is in the extra `libraries`")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    missing = [name for name in OPTIONAL if find_spec(name) is None]
    run = 0
    for block in blocks(text):
        if any(f"from {name} import" in block.text for name in missing):
            run += 1
            continue
        if block.language == "python":
            run_python(block, namespace)
        elif block.language == "pycon":
            run_session(block, namespace)
        else:
            continue
        run += 1
    assert run == len(re.findall("^```py", text, re.MULTILINE)) > 0
