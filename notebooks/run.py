"""Run the notebooks, each in a new kernel and an empty folder, and store their output.

python notebooks/run.py             all notebooks
python notebooks/run.py 2           notebooks whose names start with 2

`tests/interop/test_notebooks.py` runs them the same way and stores nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.font_manager  # noqa: F401  builds the font cache before any notebook runs
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path) -> Any:
    """Run a notebook and return it with its output, without details of this machine.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook: Any = nbformat.read(path, as_version=4)
    # Find the commands of the environment, such as `duckdb`, even if it is not activated.
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Unix sockets in that folder cannot be reached by other users. Windows has none.
        sockets = {} if os.name == "nt" else {"transport": "ipc", "ip": f"{folder}/kernel"}
        NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
            config=Config(KernelManager=sockets),
        ).execute(env={**os.environ, "PATH": commands, "IPYTHONDIR": folder})
    notebook.metadata.language_info = {"name": "python"}
    return notebook


if __name__ == "__main__":
    for path in NOTEBOOKS:
        if path.name.startswith(tuple(sys.argv[1:]) or ""):
            nbformat.write(executed(path), path)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)
