"""The command line `afterimage-storage`: one module per command, built with click and rich.

It may import everything else of this package, but loads click and rich only in `main`, which
explains what to install if they are missing.
The invariant: a command only reads its arguments, calls the library and prints the result.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    try:
        from afterimage.storage.cli.app import run  # noqa: PLC0415  click and rich are an extra
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("click", "rich"):
            raise
        sys.exit(
            f"Error: the command line needs {missing}, which is not installed: "
            "pip install 'afterimage-storage[cli]'"
        )
    run()
