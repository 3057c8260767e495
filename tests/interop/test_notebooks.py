"""The notebooks run from a clean state, and their stored output is what they print."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.project.test_readme import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# These differ between runs: times, file sizes, and a plot of times.
VARYING = re.compile(r"\d[\d,]*(?:\.\d+)? (?:ms|MB)\b")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(cell: Any) -> list[str]:
    """The output of a cell as plain text, without the parts that vary."""
    found = [
        output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
        for output in cell["outputs"]
    ]
    joined = ("".join(text) for text in found)  # a notebook file has lists of lines
    return [" ".join(VARYING.sub("…", text).split()) for text in joined]


def kinds(cell: Any) -> list[Any]:
    return [(o["output_type"], o.get("name"), sorted(o.get("data", ()))) for o in cell["outputs"]]


def test_there_are_some() -> None:
    assert len(NOTEBOOKS) >= 4


@pytest.mark.slow
def test_runs_and_gives_what_is_kept(notebook: Path) -> None:
    for library in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(library, reason=f"{library} is in the extra `notebooks`")
    run = runpy.run_path(str(ROOT / "notebooks" / "run.py"))["executed"](notebook)
    kept = json.loads(notebook.read_text("utf-8"))
    for fresh, known in zip(code_cells(run), code_cells(kept), strict=True):
        # Warnings are printed on stderr.
        told = [output["text"] for output in fresh["outputs"] if output.get("name") == "stderr"]
        assert told == [], fresh["source"]
        assert kinds(fresh) == kinds(known), fresh["source"]
        assert texts(fresh) == texts(known), fresh["source"]


class TestKept:
    def test_every_cell_was_run_in_order(self, notebook: Path) -> None:
        counts = [cell["execution_count"] for cell in code_cells(json.loads(notebook.read_bytes()))]
        assert counts == [*range(1, len(counts) + 1)]

    def test_has_plots(self, notebook: Path) -> None:
        assert '"image/png"' in notebook.read_text("utf-8")

    def test_is_small(self, notebook: Path) -> None:
        assert notebook.stat().st_size < 400_000

    def test_names_no_machine(self, notebook: Path) -> None:
        kept = json.loads(notebook.read_bytes())
        assert kept["metadata"] == {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        assert all(set(cell["metadata"]) <= {"tags"} for cell in kept["cells"])
        for cell in code_cells(kept):
            for output in cell["outputs"]:
                output.get("data", {}).pop("image/png", None)
        told = json.dumps(kept)
        assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users|private|var)/", told)
