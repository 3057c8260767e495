"""The command line `afterimage-storage`: a thin layer over the library, with click and rich.

Importing this loads neither; `main` says what to install where they are missing.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; ends the process with its exit code."""
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
