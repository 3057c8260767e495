"""`demo`: a demonstration on real data."""

from __future__ import annotations

from pathlib import Path

import click

from afterimage.storage.cli import options

__all__ = ["demo_command"]


@click.command("demo")
@click.option(
    "--dir",
    "directory",
    type=options.FOLDER,
    default=Path("chitchat-demo"),
    show_default=True,
    help="Folder for the files. Files of an earlier run are replaced.",
)
def demo_command(directory: Path) -> None:
    """Run a demonstration on 7,168 real conversations.

    It saves them to JSONL and DuckDB, reads them with filters, as Arrow, with SQL and as Parquet,
    and writes a page to look at. Requires the package chitchat-dataset: pip install
    'afterimage-storage[demo]'.
    """
    from afterimage.storage.demo import run  # noqa: PLC0415  heavy

    run(directory)
