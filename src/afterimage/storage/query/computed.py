r"""The SQL of computed fields: values that follow from the messages of a record, or from its text.

The invariant: a field has the same value in every storage, with every version of DuckDB and on
every machine. `docs/query-language.md` defines `content_hash` in plain Python. That definition
never changes, because users keep hashes. So the SQL here uses nothing whose result depends on the
version: no text of a float, no escapes of JSON, no order of keys.

The bytes that are hashed have two parts. The first is the role, the content and the reasoning of
each message, each with its length. The second is about the other keys of messages, such as tool
calls and content parts; it is empty if there are none. Most conversations have none, so their hash
needs no JSON.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from afterimage.storage.query.json_values import JsonPath

__all__ = ["COMPUTED_FROM", "canonical", "computed_value"]

COMPUTED_FROM: Final = {
    "content_hash": ("conversations", "text"),
    "message_count": ("conversations",),
    "first_role": ("conversations",),
    "last_role": ("conversations",),
    "character_count": ("conversations", "text"),
}
"""The stored fields that each computed field is computed from; a record has one of them."""


def computed_value(
    name: str,
    *,
    messages: sa.ColumnElement[Any] | None,
    text: sa.ColumnElement[Any] | None = None,
    extra: sa.ColumnElement[Any] | None = None,
    line: sa.ColumnElement[Any] | None = None,
) -> sa.ColumnElement[Any]:
    """Return a computed field as an expression of its type.

    Args:
        name: the field.
        messages: the messages of a conversation as structs; None for a document.
        text: the text of a document.
        extra: the column `extra` of a conversation in a table.
        line: the whole conversation as JSON, instead of `extra`.
    """
    if messages is None:
        assert text is not None
        if name == "content_hash":
            return sa.func.md5(_apply(_LENGTH_AND_TEXT.format("v"), text))
        return sa.func.coalesce(sa.func.length(text), 0)
    match name:
        case "content_hash":
            plain = sa.func.array_to_string(_each(_PLAIN_MESSAGE, messages), "")
            if line is not None:
                others = _others_of_line(line)
            else:
                assert extra is not None
                others = _others_of_extra(extra)
            return sa.func.md5(plain.concat(others))
        case "message_count" if line is not None:
            return JsonPath(line, ("conversations",)).length
        case "message_count":
            return sa.func.len(messages)
        case "first_role" | "last_role":
            at = 1 if name == "first_role" else -1
            last = sa.func.list_extract(messages, sa.literal_column(str(at)))
            return sa.func.struct_extract(last, sa.literal_column("'role'"))
        case _:
            lengths = sa.func.list_sum(_each("length(m.content)", messages))
            return sa.cast(sa.func.coalesce(lengths, 0), sa.BigInteger)


def _each(body: str, items: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the values of an expression over each item `m` of a list."""
    return sa.func.list_transform(items, sa.literal_column(f"lambda m: {body}"))


def _apply(body: str, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the value of an expression over `v`, which is evaluated once."""
    found = sa.func.list_transform(
        sa.func.list_value(value), sa.literal_column(f"lambda v: {body}")
    )
    return sa.func.list_extract(found, 1)


# The number of bytes of a text, a colon and the text; `-` for null. So no two lists of texts are
# joined to the same text.
_LENGTH_AND_TEXT: Final = "coalesce(strlen({0}) || ':' || {0}, '-')"

_PLAIN_MESSAGE: Final = " || ".join(
    _LENGTH_AND_TEXT.format(f"m.{name}") for name in ("role", "content", "reasoning_content")
)

# The JSON text of an object `o` without keys that are null, and without the texts that are hashed
# with the plain messages.
_OTHER_KEYS: Final = """
    '{' || array_to_string(list_transform(
        list_filter(
            list_zip(json_keys(o), json_extract(o, '$.*')),
            lambda f: json_type(f[2]) <> 'NULL' AND NOT (
                f[1] IN ('role', 'content', 'reasoning_content') AND json_type(f[2]) = 'VARCHAR'
            )
        ),
        lambda f: CAST(to_json(f[1]) AS VARCHAR) || ':' || CAST(f[2] AS VARCHAR)
    ), ',') || '}'"""


def _entries(pairs: str) -> str:
    """Return the JSON text of an object with an entry for each pair of a number and an object.

    Objects without other keys are left out.
    """
    return f"""
        '{{' || array_to_string(list_transform(
            list_filter(
                list_transform({pairs}, lambda p: [p[1], list_transform([p[2]],
                    lambda o: {_OTHER_KEYS})[1]]),
                lambda e: e[2] <> '{{}}'
            ),
            lambda e: '"' || e[1] || '":' || e[2]
        ), ',') || '}}'"""


# A text, a number or another part of JSON text.
_TOKENS: Final = r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|-?Infinity|NaN|[^"0-9NI-]+'

# A part of JSON text in the only form that it has in a hash.
_TOKEN: Final = r"""
    CASE
        WHEN starts_with(t, '"') THEN '"' || md5(CAST(t AS JSON) ->> '$') || '"'
        WHEN regexp_full_match(t, '-?[0-9]+') THEN if(t = '-0', '0', t)
        WHEN t = 'NaN' OR NOT regexp_matches(t, '^[-0-9I]') THEN t
        WHEN abs(CAST(t AS DOUBLE)) < 9007199254740992
            AND CAST(t AS DOUBLE) = trunc(CAST(t AS DOUBLE))
        THEN CAST(CAST(CAST(t AS DOUBLE) AS BIGINT) AS VARCHAR)
        ELSE CAST(CAST(CAST(t AS DOUBLE) AS BIT) AS VARCHAR)
    END"""

# JSON text with a hash in place of each object or array that has no other one in it.
_INNERMOST_HASHED: Final = r"""
    array_to_string(list_transform(
        regexp_extract_all(a, '\{[^{}\[\]]*\}|\[[^{}\[\]]*\]|[^{}\[\]]+|.'),
        lambda p: CASE
            WHEN starts_with(p, '{') AND ends_with(p, '}') THEN
                '<' || md5(array_to_string(
                    list_sort(string_split(substr(p, 2, length(p) - 2), ',')), ','
                )) || '>'
            WHEN starts_with(p, '[') AND ends_with(p, ']') THEN
                '(' || md5(substr(p, 2, length(p) - 2)) || ')'
            ELSE p
        END
    ), '')"""

# One step for each bracket is enough. No JSON that can be loaded is nested deeper than 200 levels.
_HASHED: Final = f"""
    list_transform(
        [array_to_string(
            list_transform(regexp_extract_all(v, '{_TOKENS}'), lambda t: {_TOKEN}), ''
        )],
        lambda s: list_reduce(
            list_prepend(s, string_split(
                repeat(',', CAST(least(200, length(s) - length(translate(s, '[{{', ''))) AS INT)),
                ','
            )),
            lambda a, x: {_INNERMOST_HASHED}
        )
    )[1]"""


def canonical(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the canonical form of JSON text, in which equal values are equal texts."""
    return _apply(_HASHED, text)


def _hashed_if_any(entries: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return _apply(f"CASE WHEN v = '{{}}' THEN '' ELSE {_HASHED} END", entries)


def _others_of_extra(extra: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the hash of the other keys of messages, which `extra` has by their numbers."""
    nodes = JsonPath(extra, ("children", "conversations", "children")).json
    pairs = (
        "list_transform(list_zip(json_keys(v), json_extract(v, '$.*')), "
        "lambda n: [n[1], CAST(json_extract(n[2], '$.fields') AS VARCHAR)])"
    )
    return sa.case(
        (nodes.is_not(None), _hashed_if_any(_apply(_entries(pairs), nodes))),
        else_=sa.literal_column("''"),
    )


_PLAIN_KEYS: Final = "['role', 'content', 'reasoning_content']"


def _others_of_line(line: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the hash of the other keys of messages of a conversation in JSON."""
    text = JsonPath(line, ("conversations",)).json
    pairs = (
        "list_transform(json_extract(v, '$[*]'), "
        "lambda m, i: [CAST(i - 1 AS VARCHAR), CAST(m AS VARCHAR)])"
    )
    # The keys of the line itself, because that takes less time than those of the text.
    keys = sa.func.flatten(sa.func.json_keys(line, sa.literal_column("'$.conversations[*]'")))
    has_others = sa.or_(
        sa.func.contains(sa.cast(text, sa.String), '"content":['),
        sa.not_(sa.func.list_has_all(sa.literal_column(_PLAIN_KEYS), keys)),
    )
    return sa.case(
        (has_others, _hashed_if_any(_apply(_entries(pairs), text))),
        else_=sa.literal_column("''"),
    )
