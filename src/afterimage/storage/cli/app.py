"""The group of all commands: their order, and the output of errors and warnings.

Exit codes: 0 for success, also if the reader of the output has closed the pipe; 1 for an error,
which is printed on one line, or if `verify` found a fault; 2 for invalid arguments.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from afterimage.storage._version import __version__
from afterimage.storage.cli.demo import demo_command
from afterimage.storage.cli.export import export_command
from afterimage.storage.cli.head import head_command
from afterimage.storage.cli.import_ import import_command
from afterimage.storage.cli.render import say
from afterimage.storage.cli.sql import sql_command
from afterimage.storage.cli.stats import stats_command
from afterimage.storage.cli.verify import verify_command
from afterimage.storage.errors import StorageError, shorten, visible

__all__ = ["app", "run"]


class _App(click.Group):
    """A group that lists commands in the order they were added and prints errors on one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()
            raise click.exceptions.Exit(0) from None
        except (StorageError, ModuleNotFoundError) as error:
            raise click.ClickException(shorten(error, 1000)) from error
        except OSError as error:
            name = "" if error.filename is None else f"{error.filename}: "
            raise click.ClickException(shorten(f"{name}{error.strerror or error}")) from error
        except MemoryError as error:
            raise click.ClickException("out of memory") from error
        return result

    def main(self, *args: Any, **options: Any) -> Any:
        run_group: Callable[..., Any] = super().main
        if not options.pop("standalone_mode", True):
            return run_group(*args, standalone_mode=False, **options)
        try:
            code = run_group(*args, standalone_mode=False, **options)
        except click.ClickException as error:
            # Arguments can contain anything.
            error.message = visible(error.message, keep="\n\t")  # type: ignore[misc]
            error.show()
            code = error.exit_code
        except click.Abort:
            say("Aborted!", err=True)
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


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

    The exit code is 0 for success, 1 for an error or if `verify` found faults, and 2 for wrong
    usage.
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else a character may not exist in its encoding
            stream.reconfigure(errors="replace")
    app(prog_name="afterimage-storage")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"Warning: {shorten(message, 1000)}", err=True)


def _drop_output() -> None:
    """Send what is still buffered to nowhere: the end of the process would fail to write it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
