"""Runs the published `afterimage` package in its own environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Its command line, without the scripts folder of the environment.
COMMAND = "import sys; from afterimage.cli import main; sys.argv[0] = 'afterimage'; main()"


def run(python: str, code: str, *arguments: Path | str, **options: str | Path) -> str:
    """Run a program in that environment and return its output; it must succeed.

    Args:
        python: the environment's interpreter.
        code: the program.
        arguments: what it finds in `sys.argv`.
        options: environment variables, and `cwd`.
    """
    # Without our PYTHONPATH, the program imports the packages of that environment.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    folder = options.pop("cwd", None)
    done = subprocess.run(
        [python, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**environment, **{name: str(value) for name, value in options.items()}},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
