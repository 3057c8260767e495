"""Options that several commands have, written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from afterimage.storage.cli.conditions import parse_columns, parse_filter, parse_order
from afterimage.storage.cli.stores import Tables

__all__ = [
    "STORE",
    "as_json",
    "columns",
    "filters",
    "kind",
    "order_and_slice",
    "partition_by",
    "tables",
    "training_format",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Decorator = Callable[[_Command], _Command]

STORE = click.Path(path_type=str)
"""A file, for the shell to complete, or a URL."""


def _each(parse: Callable[[str], Any]) -> Callable[..., list[Any]]:
    return lambda _context, _parameter, values: [parse(value) for value in values]


def _if_given(parse: Callable[[str], Any]) -> Callable[..., Any]:
    return lambda _context, _parameter, value: None if value is None else parse(value)


filters = click.option(
    "--filter",
    "filters",
    multiple=True,
    callback=_each(parse_filter),
    metavar="'FIELD OP VALUE'",
    help="Only records that match: metadata.domain=Flights or 'final_score>=0.8'. OP is one of "
    "= == != < <= > >= in 'not in'. VALUE is read as JSON where it is JSON (null, true, 0.8, "
    '["a","b"]), else as a string. Of several filters, all must match.',
)

columns = click.option(
    "--columns",
    callback=_if_given(parse_columns),
    metavar="FIELD,FIELD,…",
    help="Fields to give, in this order: metadata.domain,final_score.",
)

partition_by = click.option(
    "--partition-by",
    callback=_if_given(parse_columns),
    metavar="FIELD,FIELD,…",
    help="Make OUT a folder of Parquet files, with a subfolder for each value of the fields.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

skip_corrupt = click.option(
    "--skip-corrupt",
    "on_error",
    is_flag=True,
    callback=lambda _context, _parameter, given: "skip" if given else "raise",
    help="Leave out what is no valid record, and say how many and where.",
)


def kind(*choices: str) -> _Decorator[Any]:
    """The option --kind; the first choice is the default."""
    others = " Those of other models are 'records'." if "records" in choices else ""
    return click.option(
        "--kind",
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        help=f"Which records.{others}",
    )


def order_and_slice(limit: int | None) -> _Decorator[Any]:
    """The options --order-by, --limit and --offset; `limit` is the default."""
    count = click.IntRange(min=0)
    by = click.option(
        "--order-by",
        multiple=True,
        callback=_each(parse_order),
        metavar="FIELD[:desc]",
        help="Sort by this field; given again, the next one settles ties. Null comes last.",
    )
    most = click.option(
        "--limit",
        type=count,
        default=limit,
        show_default=limit is not None,
        help="How many records at most.",
    )
    start = click.option("--offset", type=count, help="How many to leave out before them.")
    return lambda command: by(most(start(command)))


def tables(command: Callable[..., None]) -> Callable[..., None]:
    """The options --conversations-table and --documents-table, as the argument `tables`."""

    @wraps(command)
    def named(
        *args: Any, conversations_table: str | None, documents_table: str | None, **others: Any
    ) -> None:
        command(*args, tables=Tables(conversations_table, documents_table), **others)

    found: Callable[..., None] = _table("conversations")(_table("documents")(named))
    return found


def _table(kind: str) -> _Decorator[Any]:
    return click.option(
        f"--{kind}-table",
        metavar="NAME",
        help=f"The table of {kind} in a DuckDB file, if it is not {kind!r}.",
    )


def training_format(command: _Command) -> _Command:
    """The options --format, --system-prompt and --reasoning."""
    # The choices are written out, as where the library has them loads the engine.
    name = click.option(
        "--format",
        "line_format",
        type=click.Choice(["messages", "sharegpt", "alpaca"]),
        help="Write lines that trainers read, one for each conversation that has one.",
    )
    prompt = click.option(
        "--system-prompt",
        metavar="TEXT",
        help="What a system message at the start of each line says; not in alpaca.",
    )
    reasoning = click.option(
        "--reasoning",
        type=click.Choice(["field", "think"]),
        help="Keep reasoning: as the field reasoning_content, in messages only, or between <think> "
        "tags. Without it, reasoning is left out.",
    )
    return name(prompt(reasoning(command)))
