"""Field paths: `final_score`, `evaluation.coherence.score`, `metadata.domain`, `metadata."k.l"`.

A path is split on dots. A step that contains a dot is written in double quotes; a double quote
inside it is written twice. The invariant: `parse(render(steps)) == steps`. `resolve` binds a path
to the declared fields.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from afterimage.storage.errors import InvalidQueryError, UnknownFieldError, shorten, shown
from afterimage.storage.records.fields import FieldType, Json, Messages, Struct, dotted_paths

__all__ = ["FieldRef", "as_json", "is_text", "parse", "render", "resolve"]


@dataclass(frozen=True)
class FieldRef:
    """A field path bound to the declared fields.

    Attributes:
        path: the path as the user wrote it.
        column: name of the top-level field.
        inner: names of the nested fields in declared structs.
        keys: keys inside the JSON value; () unless `type` is `Json`.
        type: type of the field that `column` and `inner` name.
        of_message: whether `inner` and `keys` lead into one of the messages.
        as_json: whether a projection returns the JSON of a value inside JSON, not its text.
    """

    path: str
    column: str
    inner: tuple[str, ...]
    keys: tuple[str, ...]
    type: FieldType
    of_message: bool = False
    as_json: bool = False


def as_json(columns: Iterable[FieldRef], paths: Container[str]) -> tuple[FieldRef, ...]:
    """Return columns, of which those with these paths are returned as JSON by a projection."""
    return tuple(
        replace(field, as_json=True) if field.path in paths else field for field in columns
    )


def resolve(fields: Mapping[str, FieldType], path: str) -> FieldRef:
    """Bind `path` to `fields`.

    Raises:
        UnknownFieldError: no field has that path; the message suggests similar ones.
        InvalidQueryError: `path` is not a valid path.
    """
    column, *rest = parse(path)
    kind = fields.get(column)
    inner: list[str] = []
    of_message = isinstance(kind, Messages)
    if isinstance(kind, Messages):
        declared = kind.fields.get(rest[0]) if rest else None
        if declared is not None:
            inner.append(rest.pop(0))
        kind = declared or (Json() if rest else None)
    while rest and isinstance(kind, Struct):
        inner.append(rest.pop(0))
        kind = kind.fields.get(inner[-1])
    if kind is None or (rest and not isinstance(kind, Json)):
        raise UnknownFieldError.of(path, dotted_paths(fields))
    if not is_text(path):
        raise InvalidQueryError(
            f"field {path!a} contains a lone surrogate; no stored field name can contain one"
        )
    return FieldRef(path, column, tuple(inner), tuple(rest), kind, of_message)


def parse(path: object) -> tuple[str, ...]:
    """Return the steps of `path`.

    Raises:
        InvalidQueryError: `path` is not a string, is empty, or has an empty step, an unclosed
            quote or text after a closing quote.

    >>> parse('metadata."k.l".m')
    ('metadata', 'k.l', 'm')
    """
    if not isinstance(path, str):
        raise InvalidQueryError(f"a field name must be a string, not {shown(path, 60)}")
    steps: list[str] = []
    position = 0
    while True:
        if path[position : position + 1] == '"':
            step, position = _quoted(path, position)
        else:
            end = path.find(".", position)
            end = len(path) if end < 0 else end
            step, position = path[position:end], end
            if not step:
                raise InvalidQueryError(
                    f"field {shorten(path, 80)!r} has an empty step; write an empty key as "
                    '"" in double quotes'
                )
        steps.append(step)
        if position == len(path):
            return tuple(steps)
        if path[position] != ".":
            raise InvalidQueryError(
                f"field {shorten(path, 80)!r} has text after a closing quote; "
                "write a quote inside a quoted key twice"
            )
        position += 1


def _quoted(path: str, start: int) -> tuple[str, int]:
    """Return the quoted step that opens at `start`, and the position after its closing quote."""
    step, position = "", start + 1
    while True:
        end = path.find('"', position)
        if end < 0:
            raise InvalidQueryError(f"field {shorten(path, 80)!r} has an unclosed quote")
        step += path[position:end]
        if path[end + 1 : end + 2] != '"':
            return step, end + 1
        step, position = step + '"', end + 2


def render(steps: tuple[str, ...]) -> str:
    """Return the path that `parse` splits into `steps`.

    >>> render(('metadata', 'k.l'))
    'metadata."k.l"'
    """
    return ".".join(
        step if step and "." not in step and not step.startswith('"') else _quote(step)
        for step in steps
    )


def _quote(step: str) -> str:
    return '"' + step.replace('"', '""') + '"'


def is_text(value: str) -> bool:
    """Return whether a string can be encoded as UTF-8: it has no lone surrogate."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
