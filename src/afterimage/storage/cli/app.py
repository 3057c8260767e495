"""The group of all commands: their order, and the output of errors and warnings.

Exit codes: 0 for success, also if the reader of the output has closed the pipe; 2 for wrong usage,
such as an invalid argument or a file that is missing, cannot be opened or is of another kind; 1 for
any other error, or if `verify` found a fault or `diff` a difference. An error is printed on one
line.
"""

from __future__ import annotations

import errno
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
from afterimage.storage.cli.edit.compact import compact_command
from afterimage.storage.cli.edit.dedupe import dedupe_command
from afterimage.storage.cli.edit.delete import delete_command
from afterimage.storage.cli.edit.diff import diff_command
from afterimage.storage.cli.edit.update import update_command
from afterimage.storage.cli.export import export_command
from afterimage.storage.cli.head import head_command
from afterimage.storage.cli.import_ import import_command
from afterimage.storage.cli.look.count import count_command
from afterimage.storage.cli.look.show import show_command
from afterimage.storage.cli.look.tail import tail_command
from afterimage.storage.cli.look.view import view_command
from afterimage.storage.cli.render import say
from afterimage.storage.cli.sql import sql_command
from afterimage.storage.cli.stats import stats_command
from afterimage.storage.cli.verify import verify_command
from afterimage.storage.errors import (
    InvalidQueryError,
    LockTimeoutError,
    MissingFileError,
    SchemaMismatchError,
    StorageError,
    UnsupportedFileError,
    UnsupportedURLError,
    shorten,
    visible,
)
from afterimage.storage.system.targets import unicode_path

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
        except LockTimeoutError as error:
            message = str(error).replace("raise lock_timeout", "raise --lock-timeout")
            raise _Failure(message, error) from error
        except (StorageError, ModuleNotFoundError) as error:
            raise _Failure(str(error), error) from error
        except OSError as error:
            name = "" if error.filename is None else f"{error.filename}: "
            raise _Failure(f"{name}{error.strerror or error}", error) from error
        except MemoryError as error:
            raise _Failure("out of memory", error) from error
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


# What the user gave is wrong: nothing was read or changed.
_WRONG_USE = (
    InvalidQueryError,
    MissingFileError,
    SchemaMismatchError,
    UnsupportedFileError,
    UnsupportedURLError,
)
_WRONG_PATH = frozenset(
    {
        errno.EACCES,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
_LONGEST_MESSAGE = 1000


class _Failure(click.ClickException):
    """An error of a command, as its message on one line and its exit code."""

    def __init__(self, message: str, error: BaseException) -> None:
        super().__init__(_one_line(message))
        self.exit_code = 2 if _is_wrong_use(error) else 1  # type: ignore[misc]


def _is_wrong_use(error: BaseException) -> bool:
    if isinstance(error, _WRONG_USE):
        return True
    cause = error.__cause__ if isinstance(error, StorageError) else error
    return isinstance(cause, OSError) and cause.errno in _WRONG_PATH


def _one_line(message: str) -> str:
    """Return a message on one line. A long one is cut in the middle, as names can be long."""
    line = shorten(message, 20 * _LONGEST_MESSAGE)
    if len(line) <= _LONGEST_MESSAGE:
        return line
    half = _LONGEST_MESSAGE // 2 - 1
    return f"{line[:half]}…{line[-half:]}"


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
    usage: invalid arguments, or a file that is missing, cannot be opened or is of another kind.
    """


for _command in (
    import_command,
    export_command,
    head_command,
    tail_command,
    show_command,
    view_command,
    count_command,
    stats_command,
    sql_command,
    verify_command,
    delete_command,
    update_command,
    dedupe_command,
    compact_command,
    diff_command,
    demo_command,
):
    app.add_command(_command)


def run() -> None:
    """Run the command line of this process."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else a character may not exist in its encoding
            stream.reconfigure(errors="replace")
    given = sys.argv[1:]
    arguments = [_as_text(each) for each in given]
    # Without arguments, click takes those of the process, and expands patterns on Windows.
    app(None if arguments == given else arguments, prog_name="afterimage-storage")


def _as_text(argument: str) -> str:
    """Return an argument as text. In a locale without UTF-8, Python has other characters for it."""
    try:
        return unicode_path(argument)
    except UnicodeError:
        return argument


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"Warning: {shorten(message, 1000)}", err=True)


def _drop_output() -> None:
    """Send what is still buffered to nowhere: the end of the process would fail to write it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
