"""The published `afterimage` package, run in an environment of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Its command line, whatever the environment's folder of scripts is called.
COMMAND = "import sys; from afterimage.cli import main; sys.argv[0] = 'afterimage'; main()"


def run(python: str, code: str, *arguments: Path | str, **options: str | Path) -> str:
    """What a program prints in that environment; it must succeed.

    Args:
        python: the environment's interpreter.
        code: the program.
        arguments: what it finds in `sys.argv`.
        options: environment variables, and `cwd`.
    """
    # Not our folder: what that environment has installed is what is wanted.
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
