"""Options that several commands have, and the texts that are typed for them.

A filter is `FIELD OP VALUE`. The value is read as JSON if it is valid JSON, else as a string:
`0.8`, `true`, `null` and `["a","b"]` are JSON values, `Flights` is a string, and `'"0.8"'` is a
string of digits. The library checks fields and the meaning of filters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from afterimage.storage.cli.stores import Tables

__all__ = [
    "STORE",
    "as_json",
    "columns",
    "filters",
    "kind",
    "order_and_slice",
    "parse_columns",
    "parse_filter",
    "parse_order",
    "partition_by",
    "skip_corrupt",
    "tables",
    "training_format",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Decorator = Callable[[_Command], _Command]

STORE = click.Path(path_type=str)
"""A file, for the shell to complete, or a URL."""


# Steps of a field may be in double quotes, and then hold anything.
_FIELD = r'(?:"(?:[^"]|"")*"|[^"=!<>])+?'
_OPERATOR = r"==|!=|<=|>=|=|<|>|(?<=\s)not\s+in(?=\s)|(?<=\s)in(?=\s)"
_FILTER = re.compile(rf"\s*(?P<field>{_FIELD})\s*(?P<op>{_OPERATOR})\s*(?P<value>.*)", re.DOTALL)
_COLUMN = re.compile(r'((?:"(?:[^"]|"")*"|[^",])*)(?:,|$)')


def parse_filter(text: str) -> tuple[str, str, Any]:
    """A filter as `(field, op, value)`.

    Raises:
        click.BadParameter: it is none.

    >>> parse_filter("final_score>=0.8")
    ('final_score', '>=', 0.8)
    >>> parse_filter('metadata."a=b" not in ["x", 1]')
    ('metadata."a=b"', 'not in', ['x', 1])
    >>> parse_filter("metadata.domain=Night trains"), parse_filter('metadata.zip = "01067"')
    (('metadata.domain', '=', 'Night trains'), ('metadata.zip', '=', '01067'))
    """
    found = _FILTER.fullmatch(text)
    if found is None:
        raise click.BadParameter(
            f"{text!r} is not FIELD OP VALUE, as in metadata.domain=Flights; OP is one of "
            "= == != < <= > >= in 'not in'."
        )
    field, op, value = found["field"], " ".join(found["op"].split()), found["value"].strip()
    wanted = _json_or_text(value)
    if op in ("in", "not in") and not isinstance(wanted, list):
        raise click.BadParameter(f'{op!r} takes a JSON list, as in \'{field} {op} ["a", "b"]\'.')
    return field, op, wanted


def parse_order(text: str) -> tuple[str, str]:
    """A sort key as `(field, direction)`.

    >>> parse_order("final_score:desc"), parse_order("metadata.n")
    (('final_score', 'desc'), ('metadata.n', 'asc'))
    """
    field, _, direction = text.rpartition(":")
    return (field, direction) if direction in ("asc", "desc") else (text, "asc")


def parse_columns(text: str) -> list[str]:
    """Fields between commas; a comma inside double quotes is part of a field.

    Raises:
        click.BadParameter: one of them is empty.

    >>> parse_columns('metadata.domain, metadata."a,b"')
    ['metadata.domain', 'metadata."a,b"']
    """
    found = [column.strip() for column in _COLUMN.findall(text)]
    if not text.endswith(","):
        found.pop()  # the empty match at the end
    if not all(found):
        raise click.BadParameter(f"{text!r} is not FIELD,FIELD,…: a field is empty.")
    return found


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON


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
