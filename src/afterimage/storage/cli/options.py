"""Options that several commands share, and the parsers of their values.

A filter is `FIELD OP VALUE`. The value is parsed as JSON if it is valid JSON, otherwise it is a
string: `0.8`, `true`, `null` and `["a","b"]` are JSON values, `Flights` is a string, and `'"0.8"'`
is the string 0.8. The library checks the fields and the values.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from afterimage.storage.cli.stores import USUAL, Opening
from afterimage.storage.system.targets import system_name
from afterimage.storage.transfer.remote import is_url

__all__ = [
    "FILE",
    "FILE_OR_URL",
    "FOLDER",
    "NAME",
    "STORE",
    "as_json",
    "choice",
    "choice_of_reads",
    "columns",
    "filters",
    "kind",
    "limit",
    "opening",
    "order_and_slice",
    "order_by",
    "parse_columns",
    "parse_filter",
    "parse_order",
    "parse_split",
    "partition_by",
    "skip_corrupt",
    "split",
    "training_format",
    "view",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Decorator = Callable[[_Command], _Command]


class _Named(click.Path):
    """A path that the shell can complete. It is not empty: that would be the working folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty.", param, ctx)
        return super().convert(system_name(os.fspath(value)), param, ctx)


class _FileOrUrl(_Named):
    """A file, or the URL of a remote one, which is no path: a path has no `//`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        given = super().convert(value, param, ctx)
        return given if is_url(given) else Path(given)


class _Name(click.types.StringParamType):
    """A name that is not empty."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("the name is empty.", param, ctx)
        return super().convert(value, param, ctx)


STORE = _Named(path_type=str)
"""A file, or a URL."""

FILE = _Named(path_type=Path)
FILE_OR_URL = _FileOrUrl(path_type=str)
FOLDER = _Named(file_okay=False, path_type=Path)
NAME = _Name()


# A step of a field in double quotes may contain any character.
_FIELD = r'(?:"(?:[^"]|"")*"|[^"=!<>])+?'
_TEXT_OPERATORS: Final = ("contains", "icontains", "startswith", "matches")
_WORDS: Final = "|".join(("in", *_TEXT_OPERATORS, "has"))
_OPERATOR = rf"==|!=|<=|>=|=|<|>|(?<=\s)(?:not\s+)?(?:{_WORDS})(?=\s)"
_OPERATORS: Final = (
    "= == != < <= > >= in contains icontains startswith matches has, or one of these words after "
    "not"
)
_FILTER = re.compile(rf"\s*(?P<field>{_FIELD})\s*(?P<op>{_OPERATOR})\s*(?P<value>.*)", re.DOTALL)
_COLUMN = re.compile(r'((?:"(?:[^"]|"")*"|[^",])*)(?:,|$)')


def parse_filter(text: str) -> tuple[str, str, Any]:
    """Return a filter as `(field, op, value)`.

    Raises:
        click.BadParameter: the text is not a filter.

    >>> parse_filter("final_score>=0.8")
    ('final_score', '>=', 0.8)
    >>> parse_filter('metadata."a=b" not in ["x", 1]')
    ('metadata."a=b"', 'not in', ['x', 1])
    >>> parse_filter("metadata.domain=Night trains"), parse_filter('metadata.zip = "01067"')
    (('metadata.domain', '=', 'Night trains'), ('metadata.zip', '=', '01067'))
    >>> parse_filter("messages.content contains 42"), parse_filter("metadata.tags not has 42")
    (('messages.content', 'contains', '42'), ('metadata.tags', 'not has', 42))
    """
    match = _FILTER.fullmatch(text)
    if match is None:
        raise click.BadParameter(
            f"{text!r} is not FIELD OP VALUE, as in metadata.domain=Flights; OP is one of "
            f"{_OPERATORS}."
        )
    field, op = match["field"], " ".join(match["op"].split())
    value = _json_or_text(match["value"].strip())
    if op.removeprefix("not ") in _TEXT_OPERATORS and not isinstance(value, str):
        value = match["value"].strip()  # these operators take a text
    if op in ("in", "not in") and not isinstance(value, list):
        raise click.BadParameter(f'{op!r} requires a JSON list: \'{field} {op} ["a", "b"]\'.')
    return field, op, value


def parse_order(text: str) -> tuple[str, str]:
    """Return a sort key as `(field, direction)`.

    >>> parse_order("final_score:desc"), parse_order("metadata.n")
    (('final_score', 'desc'), ('metadata.n', 'asc'))
    """
    field, _, direction = text.rpartition(":")
    return (field, direction) if direction in ("asc", "desc") else (text, "asc")


def parse_columns(text: str) -> list[str]:
    """Return comma-separated fields as a list. A comma in double quotes is part of a field.

    Raises:
        click.BadParameter: a field is empty.

    >>> parse_columns('metadata.domain, metadata."a,b"')
    ['metadata.domain', 'metadata."a,b"']
    """
    fields = [column.strip() for column in _COLUMN.findall(text)]
    if text and not text.endswith(","):
        fields.pop()  # the empty match at the end
    if not all(fields):
        raise click.BadParameter(f"{text!r} is not FIELD,FIELD,…: a field is empty.")
    return fields


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _each(parse: Callable[[str], Any]) -> Callable[..., list[Any]]:
    return lambda _context, _parameter, values: [parse(value) for value in values]


def _if_given(parse: Callable[[str], Any]) -> Callable[..., Any]:
    return lambda _context, _parameter, value: None if value is None else parse(value)


filters = click.option(
    "--filter",
    "--where",
    "filters",
    multiple=True,
    callback=_each(parse_filter),
    metavar="'FIELD OP VALUE'",
    help="Select matching records: metadata.domain=Flights, 'final_score>=0.8' or "
    f"'messages.content contains refund'. OP is one of {_OPERATORS}. VALUE is parsed as JSON if it "
    'is valid JSON (null, true, 0.8, ["a","b"]), otherwise it is a string. If repeated, all '
    "filters must match.",
)

columns = click.option(
    "--columns",
    callback=_if_given(parse_columns),
    metavar="FIELD,FIELD,…",
    help="Fields to output, in this order: metadata.domain,final_score.",
)

partition_by = click.option(
    "--partition-by",
    callback=_if_given(parse_columns),
    metavar="FIELD,FIELD,…",
    help="Write a folder of Parquet files with one subfolder for each value of the fields.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON output for scripts.")

skip_corrupt = click.option(
    "--skip-corrupt",
    "on_error",
    is_flag=True,
    callback=lambda _context, _parameter, given: "skip" if given else "raise",
    help="Skip corrupt records, and print their number and places.",
)


def kind(*choices: str) -> _Decorator[Any]:
    """Return the option --kind; the first choice is the default."""
    others = " Records of other models are 'records'." if "records" in choices else ""
    return click.option(
        "--kind",
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        help=f"Kind of the records.{others}",
    )


order_by = click.option(
    "--order-by",
    multiple=True,
    callback=_each(parse_order),
    metavar="FIELD[:desc]",
    help="Sort by this field. If repeated, later fields break ties. Null is sorted last.",
)

view = click.option(
    "--view",
    type=click.Choice(["table", "full"]),
    default="table",
    show_default=True,
    help="Show one row per record, or whole records with all messages.",
)


def limit(default: int | None) -> _Decorator[Any]:
    """Return the option --limit."""
    return click.option(
        "--limit",
        type=click.IntRange(min=0),
        default=default,
        show_default=default is not None,
        help="Maximum number of records.",
    )


def order_and_slice(most: int | None) -> _Decorator[Any]:
    """Return the options --order-by, --limit and --offset; `most` is the default limit."""
    start = click.option(
        "--offset", type=click.IntRange(min=0), help="Number of records to skip at the start."
    )
    return lambda command: order_by(limit(most)(start(command)))


def _choice(seeded_options: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what adds the options that choose among the records, as the argument `choice`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def named(
            *args: Any,
            sample: int | None,
            seed: int,
            shuffle: bool,
            shuffle_seed: int | None,
            shard: tuple[int, int] | None,
            distinct: str | None,
            **others: Any,
        ) -> None:
            chosen: dict[str, Any] = {"sample": sample, "shard": shard, "distinct": distinct}
            chosen["shuffle_seed"] = seed if shuffle and shuffle_seed is None else shuffle_seed
            if sample is not None or others.get("split") is not None:
                chosen["seed"] = seed
            command(*args, choice=chosen, **others)

        number = click.IntRange(min=0)
        taken = click.option("--sample", type=number, help="Number of records to take at random.")
        seeded = click.option(
            "--seed",
            type=int,
            default=42,
            show_default=True,
            help=f"Seed of {seeded_options}.",
        )
        mixed = click.option("--shuffle/--no-shuffle", help="Sort at random, by --seed.")
        other = click.option("--shuffle-seed", type=int, help="Sort at random, by another seed.")
        part = click.option(
            "--shard",
            type=(int, int),
            metavar="RANK WORLD",
            help="Take the part of worker RANK, from 0, of WORLD workers.",
        )
        first = click.option(
            "--distinct",
            metavar="FIELD",
            help="Of records with equal values, such as of content_hash, take only the first one.",
        )
        decorated: Callable[..., None] = first(taken(seeded(mixed(other(part(named))))))
        return decorated

    return decorate


choice = _choice("--sample, --shuffle and --split")
choice_of_reads = _choice("--sample and --shuffle")


def parse_split(text: str) -> dict[str, float]:
    """Return the parts of a split with their shares.

    Raises:
        click.BadParameter: the text is not a split.

    >>> parse_split("train=0.9,validation=0.1"), parse_split("0.1")
    ({'train': 0.9, 'validation': 0.1}, {'train': 0.9, 'validation': 0.1})
    """
    try:
        if "=" not in text:
            return {"train": float(1 - Decimal(text)), "validation": float(text)}
        pairs = (part.partition("=") for part in text.split(","))
        return {name.strip(): float(share) for name, _, share in pairs}
    except (ValueError, ArithmeticError):
        raise click.BadParameter(
            f"{text!r} is neither NAME=SHARE,… nor a share of the validation, such as 0.1."
        ) from None


def split(command: _Command) -> _Command:
    """Add the options of an export that is split."""
    parts = click.option(
        "--split",
        callback=_if_given(parse_split),
        metavar="NAME=SHARE,…",
        help="Write a folder with one file for each part: train=0.9,validation=0.1; 0.1 is short "
        "for that.",
    )
    by = click.option(
        "--split-by",
        metavar="FIELD",
        help="Records with the same value of this field are in the same part.",
    )
    return parts(by(command))


def opening(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how the store is opened, as the argument `opening`."""

    @wraps(command)
    def named(
        *args: Any,
        conversations_table: str | None,
        documents_table: str | None,
        lock_timeout: float | None,
        **others: Any,
    ) -> None:
        chosen = Opening(conversations_table, documents_table)
        if lock_timeout is not None:
            chosen = chosen._replace(lock_timeout=lock_timeout)
        command(*args, opening=chosen, **others)

    wait = click.option(
        "--lock-timeout",
        type=click.FloatRange(min=0),
        callback=_finite,
        metavar="SECONDS",
        help="Seconds to wait while another process uses the store. "
        f"[default: {USUAL.lock_timeout}]",
    )
    decorated: Callable[..., None] = _table("conversations")(_table("documents")(wait(named)))
    return decorated


def _finite(_context: click.Context, _parameter: click.Parameter, value: float | None) -> Any:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number of seconds.")
    return value


def _table(kind: str) -> _Decorator[Any]:
    return click.option(
        f"--{kind}-table",
        type=NAME,
        metavar="NAME",
        help=f"Name of the table of {kind} in a DuckDB file, if it is not {kind!r}.",
    )


# The choices are repeated here: importing them from the library would load the engine.
_FORMATS: Final = (
    *("messages", "openai", "sharegpt", "alpaca", "gemini", "prompt-completion", "preference"),
    *("dpo", "llama_factory", "oumi"),
)


def source_format(command: _Command) -> _Command:
    """Add the options --format, --field, --group-by and --order-by of an import."""
    name = click.option(
        "--format",
        "source_format",
        type=click.Choice(["auto", "native", *_FORMATS, "agent-trace"]),
        help="Format of the conversations. native is that of this package. auto, the default, is "
        "the format that the keys of the first records show.",
    )
    field = click.option(
        "--field",
        "fields",
        multiple=True,
        callback=_pairs,
        metavar="KEY=NAME",
        help="The name that the format has for a key, such as question=instruction. Can be "
        "repeated.",
    )
    group = click.option(
        "--group-by",
        callback=_key,
        metavar="KEY",
        help="The rows have one message each, and this key names the conversation. Rows of one "
        "conversation must follow each other.",
    )
    order = click.option(
        "--order-by",
        callback=_key,
        metavar="KEY",
        help="With --group-by, the key by which messages are sorted. [default: position]",
    )
    return name(field(group(order(command))))


def _key(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("a key cannot be empty.")
    return value


def _pairs(_context: click.Context, _parameter: click.Parameter, value: Sequence[str]) -> Any:
    pairs = [text.partition("=") for text in value]
    for key, sign, name in pairs:
        if not (key and sign and name):
            raise click.BadParameter(f"{key + sign + name!r} must have the form KEY=NAME.")
    return {key: name for key, _, name in pairs}


def training_format(command: _Command) -> _Command:
    """Add the options of an export in a format of training tools."""
    name = click.option(
        "--format",
        "line_format",
        type=click.Choice(_FORMATS),
        help="Write conversations in a format of training tools. Conversations that the format "
        "has no line for are left out and counted.",
    )
    prompt = click.option(
        "--system-prompt",
        metavar="TEXT",
        help="Content of a system message before conversations that have none; not for alpaca.",
    )
    reasoning = click.option(
        "--reasoning",
        type=click.Choice(["field", "think"]),
        help="Include reasoning: as the field reasoning_content (format messages only), or between "
        "<think> tags. Without this option, reasoning is omitted.",
    )
    lossy = click.option(
        "--lossy",
        is_flag=True,
        help="Leave out what the format has no place for, such as tool calls. Otherwise, it is an "
        "error.",
    )
    trim = click.option(
        "--trim", is_flag=True, help="End each conversation at its last assistant message."
    )
    return name(prompt(reasoning(lossy(trim(command)))))
