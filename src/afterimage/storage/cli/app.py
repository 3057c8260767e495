"""The group of all commands: their order, and how errors and warnings are told.

Exit codes: 0 is success; 1 an error, told in one line, or a `verify` that found something; 2 a
command that makes no sense as it was typed.
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
    """Lists the commands as they were added; an error of the library is one line."""

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
    """Conversations and documents in DuckDB files and JSON lines.

    A STORE is a DuckDB file (talks.duckdb), a file of JSON lines (talks.jsonl, talks.jsonl.gz,
    talks.jsonl.zst) or a URL (duckdb:///talks.duckdb). A file of JSON lines holds conversations,
    or documents with --kind documents; a DuckDB file holds both.

    Commands that read never make a store that is not there.
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
