"""The group of all commands: their order, and the output of errors and warnings.

Exit codes: 0 for success; 1 for an error, which is printed on one line, or if `verify` found a
fault; 2 for invalid arguments.
"""

from __future__ import annotations

import warnings
from typing import Any

import click

from afterimage.storage._version import __version__
from afterimage.storage.cli.demo import demo_command
from afterimage.storage.cli.export import export_command
from afterimage.storage.cli.head import head_command
from afterimage.storage.cli.import_ import import_command
from afterimage.storage.cli.sql import sql_command
from afterimage.storage.cli.stats import stats_command
from afterimage.storage.cli.verify import verify_command
from afterimage.storage.errors import StorageError, shorten

__all__ = ["app", "run"]


class _App(click.Group):
    """A group that lists commands in the order they were added and prints errors on one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (StorageError, ModuleNotFoundError) as error:
            raise click.ClickException(shorten(error, 1000)) from error


@click.group(
    cls=_App,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.version_option(__version__, prog_name="afterimage-storage")
def app() -> None:
    """Import, query, export and verify conversations and documents.

    A STORE is a DuckDB file (talks.duckdb), a JSONL file (talks.jsonl, talks.jsonl.gz,
    talks.jsonl.zst) or a URL (duckdb:///talks.duckdb). A JSONL file contains conversations, or
    documents with --kind documents; a DuckDB file contains both.

    Commands that only read a store never create it.
    """


for _command in (
    import_command,
    export_command,
    head_command,
    stats_command,
    sql_command,
    verify_command,
    demo_command,
):
    app.add_command(_command)


def run() -> None:
    """Run the command line of this process."""
    warnings.showwarning = _show_warning
    app(prog_name="afterimage-storage")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {shorten(message, 1000)}", err=True)
