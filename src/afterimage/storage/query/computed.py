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

__all__ = ["COMPUTED_FROM", "canonical", "computed_value", "other_keys_of_messages"]

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
            each = sa.func.list_aggr(_each(_PLAIN_MESSAGE, messages), "string_agg", "")
            plain = sa.func.coalesce(each, "")
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


# DuckDB's `array_to_string` is a macro that evaluates its list twice.
def _joined(items: str, separator: str = "") -> str:
    """Return the SQL of the joined texts of a list; NULL if it is empty."""
    return f"list_aggr({items}, 'string_agg', '{separator}')"


# The number of bytes of a text, a colon and the text; `-` for null. So no two lists of texts are
# joined to the same text.
_LENGTH_AND_TEXT: Final = "coalesce(strlen({0}) || ':' || {0}, '-')"

_PLAIN_MESSAGE: Final = " || ".join(
    _LENGTH_AND_TEXT.format(f"m.{name}") for name in ("role", "content", "reasoning_content")
)

# The number at the start of the text `t`, or the text if it has none, in its only form.
_NUMBER: Final = r"""
    CASE
        WHEN regexp_full_match(t, '-?[0-9]+') THEN if(t = '-0', '0', t)
        WHEN t = 'NaN' OR NOT regexp_matches(t, '^[-0-9I]') THEN t
        WHEN abs(CAST(t AS DOUBLE)) < 9007199254740992
            AND CAST(t AS DOUBLE) = trunc(CAST(t AS DOUBLE))
        THEN CAST(CAST(CAST(t AS DOUBLE) AS BIGINT) AS VARCHAR)
        ELSE CAST(CAST(CAST(t AS DOUBLE) AS BIT) AS VARCHAR)
    END"""
_NUMBERS: Final = _joined(
    "list_transform(regexp_extract_all(s, '-?[0-9][0-9.eE+-]*|-?Infinity|NaN|[^0-9NI-]+'), "
    f"lambda t: {_NUMBER})"
)

# The JSON text `{0}` with the MD5 of each string in its place, and with numbers in their only form.
# Parts between quotes are strings, once the escapes with quotes are characters that no JSON has.
_SCALARS_HASHED: Final = _joined(
    rf"""list_transform(
        string_split(replace(replace({{0}}, '\\', chr(1)), '\"', chr(2)), '"'),
        lambda s, i: CASE
            WHEN i % 2 = 0 THEN '"' || md5(
                CASE WHEN contains(s, chr(1)) OR contains(s, chr(2)) OR contains(s, '\') THEN CAST(
                    '"' || replace(replace(s, chr(2), '\"'), chr(1), '\\') || '"' AS JSON
                ) ->> '$' ELSE s END
            ) || '"'
            WHEN regexp_matches(s, '[0-9NI]') THEN {_NUMBERS}
            ELSE s
        END
    )"""
)


def _innermost_hashed(text: str, opening: str, closing: str, other: str, hashed: str) -> str:
    """Return the SQL of JSON text with a hash in place of each array, or object, without others.

    Args:
        text: the JSON text.
        opening: the opening bracket.
        closing: the closing bracket.
        other: the opening bracket of the other kind.
        hashed: the SQL of the hash; `{0}` is what is between the brackets.
    """
    between = f"substr(s, 1, instr(s, '{closing}') - 1)"
    return _joined(
        f"""list_transform(string_split({text}, '{opening}'), lambda s, i: CASE
            WHEN i = 1 THEN s
            WHEN contains(s, '{closing}') AND NOT contains({between}, '{other}')
            THEN {hashed.format(between)} || substr(s, instr(s, '{closing}') + 1)
            ELSE '{opening}' || s
        END)"""
    )


_ENTRIES_SORTED: Final = _joined("list_sort(string_split({0}, ','))", ",")


def _one_level_hashed(text: str) -> str:
    """Return the SQL of JSON text with a hash in place of its innermost arrays and objects."""
    text = _innermost_hashed(text, "[", "]", "{", "'(' || md5({0}) || ')'")
    return _innermost_hashed(text, "{", "}", "[", f"'<' || md5({_ENTRIES_SORTED}) || '>'")


# Levels for which there is SQL of its own: those of messages, their keys and tool calls. A loop
# takes the others. Few lambdas are inside others: DuckDB 2.0 takes long to plan those.
_USUAL_LEVELS: Final = 5


def _canonical_text(text: str) -> str:
    """Return the SQL of the canonical form of JSON text."""
    text = _SCALARS_HASHED.format(text)
    for _ in range(_USUAL_LEVELS):
        text = _one_level_hashed(text)
    # A step for each bracket is enough, and JSON that can be loaded has at most 200 levels.
    steps = "CAST(least(200, length(t) - length(translate(t, '[{', ''))) AS INT)"
    return f"""list_transform([{text}], lambda t: CASE
        WHEN contains(t, '{{') OR contains(t, '[') THEN list_reduce(
            list_prepend(t, string_split(repeat(',', {steps}), ',')),
            lambda a, x: {_one_level_hashed("a")}
        )
        ELSE t
    END)[1]"""


# The JSON text of the entries of the object `o`, without keys that are null, and without the texts
# that are hashed with the plain messages. NULL if there are none.
_OTHER_ENTRIES: Final = _joined(
    """list_transform(
        list_filter(
            list_zip(json_keys(o), json_extract(o, '$.*')),
            lambda f: json_type(f[2]) <> 'NULL' AND NOT (
                f[1] IN ('role', 'content', 'reasoning_content') AND json_type(f[2]) = 'VARCHAR'
            )
        ),
        lambda f: CAST(to_json(f[1]) AS VARCHAR) || ':' || CAST(f[2] AS VARCHAR)
    )""",
    ",",
)


def _others_of(pairs: str) -> str:
    """Return the SQL of the JSON text of an object with entries for messages.

    Args:
        pairs: the SQL of pairs of the number of a message and a JSON object with its other keys. A
            pair without other keys is left out.
    """
    message = f"""'"' || p[1] || '":{{' ||
        list_transform([p[2]], lambda o: {_OTHER_ENTRIES})[1] || '}}'"""
    return _joined(f"list_transform({pairs}, lambda p: {message})", ",")


def _canonical_others(pairs: str) -> str:
    """Return the SQL of the canonical form of that object; an empty text if it has no entries."""
    text = f"'{{' || {_others_of(pairs)} || '}}'"
    return f"coalesce({_canonical_text(text)}, '')"


_NUMBERED_EXTRA: Final = """list_transform(
    list_zip(json_keys(v), json_extract(v, '$.*')),
    lambda n: [n[1], CAST(json_extract(n[2], '$.fields') AS VARCHAR)]
)"""
_NUMBERED_LINE: Final = """list_transform(
    json_extract(v, '$[*]'), lambda m, i: [CAST(i - 1 AS VARCHAR), CAST(m AS VARCHAR)]
)"""
_NOTHING: Final[sa.ColumnElement[str]] = sa.literal_column("''")


def _nodes(extra: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the part of `extra` about the other keys of messages; NULL if there are none."""
    return JsonPath(extra, ("children", "conversations", "children")).json


def canonical(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the canonical form of JSON text, in which equal values are equal texts."""
    return _apply(_canonical_text("v"), text)


def _others_of_extra(extra: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the canonical form of the other keys of messages, which `extra` has."""
    nodes = _nodes(extra)
    hashed = _apply(_canonical_others(_NUMBERED_EXTRA), nodes)
    return sa.case((nodes.is_not(None), hashed), else_=_NOTHING)


_PLAIN_KEYS: Final = "['role', 'content', 'reasoning_content']"


def _others_of_line(line: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the canonical form of the other keys of messages of a conversation in JSON."""
    text = JsonPath(line, ("conversations",)).json
    # The keys of the line itself, because that takes less time than those of the text.
    keys = sa.func.flatten(sa.func.json_keys(line, sa.literal_column("'$.conversations[*]'")))
    has_others = sa.or_(
        sa.func.contains(sa.cast(text, sa.String), '"content":['),
        sa.not_(sa.func.list_has_all(sa.literal_column(_PLAIN_KEYS), keys)),
    )
    hashed = _apply(_canonical_others(_NUMBERED_LINE), text)
    return sa.case((has_others, hashed), else_=_NOTHING)


def other_keys_of_messages(
    extra: sa.ColumnElement[Any], messages: sa.ColumnElement[Any]
) -> sa.ColumnElement[Any]:
    """Return the other keys of messages, which `extra` has by their numbers.

    Returns:
        A list of a JSON object, or NULL, for each message. It is empty if no message has other
        keys.
    """
    nodes = _nodes(extra)
    found = sa.func.struct_pack(
        sa.literal_column("nodes").op(":=")(nodes),
        sa.literal_column("count").op(":=")(sa.func.len(messages)),
    )
    others = sa.case((nodes.is_not(None), _apply(_OTHERS_IN_ORDER, found)))
    return sa.func.coalesce(others, sa.literal_column("CAST([] AS JSON[])"))


# Lists of all keys and of all objects: a path to each of them would parse `extra` each time.
_OTHERS_IN_ORDER: Final = """
    list_transform(
        [struct_pack(
            keys := json_keys(v.nodes),
            fields := list_transform(
                json_extract(v.nodes, '$.*'), lambda n: json_extract(n, '$.fields')
            ),
            count := v.count
        )],
        lambda w: list_transform(
            range(w.count),
            lambda i: list_extract(w.fields, list_position(w.keys, CAST(i AS VARCHAR)))
        )
    )[1]"""
