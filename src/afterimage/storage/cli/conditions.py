"""Filters, sort keys and columns as they are typed: text to the arguments of a load.

A filter is `FIELD OP VALUE`. The value is read as JSON if it is JSON, else it is a string as it
stands; so `0.8`, `true`, `null` and `["a","b"]` are values, `Flights` is a string, and `'"0.8"'`
is a string of digits. What a field is called, and what a filter means, is checked by the library.
"""

from __future__ import annotations

import json
import re
from typing import Any

import click

__all__ = ["parse_columns", "parse_filter", "parse_order"]

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
