"""Run the notebooks, each in a new kernel and an empty folder, and keep what comes out in them.

python notebooks/run.py             all of them
python notebooks/run.py 2           those whose names begin so

`tests/interop/test_notebooks.py` runs them the same way and keeps nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.font_manager  # noqa: F401  makes its list of fonts now, not within a notebook
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path) -> Any:
    """The notebook as a run leaves it, with nothing in it of the machine that it ran on.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook: Any = nbformat.read(path, as_version=4)
    # The commands of the environment, such as `duckdb`, also where it is not activated.
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Sockets that are files of that folder, where there are such: nobody else can reach them.
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
