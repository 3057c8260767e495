"""Field paths: `final_score`, `evaluation.coherence.score`, `metadata.domain`, `metadata."k.l"`.

A path is split on dots. A step that itself holds a dot is put in double quotes, in which a quote
is written twice. The invariant: `parse(render(steps)) == steps`. `resolve` binds a path to the
declared fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from afterimage.storage.errors import InvalidQueryError, UnknownFieldError, shorten, shown
from afterimage.storage.records.fields import FieldType, Json, Struct, dotted_paths

__all__ = ["FieldRef", "is_text", "parse", "render", "resolve"]


@dataclass(frozen=True)
class FieldRef:
    """A field path bound to the declared fields.

    Attributes:
        path: the path as the user wrote it.
        column: the top-level field.
        inner: steps into declared structs below it.
        keys: steps into JSON below that; () unless `type` is `Json`.
        type: type of what `column` and `inner` lead to.
    """

    path: str
    column: str
    inner: tuple[str, ...]
    keys: tuple[str, ...]
    type: FieldType


def resolve(fields: Mapping[str, FieldType], path: str) -> FieldRef:
    """Bind `path` to `fields`.

    Raises:
        UnknownFieldError: there is no such field; names the nearest ones.
        InvalidQueryError: it is not a path.
    """
    column, *rest = parse(path)
    kind = fields.get(column)
    inner: list[str] = []
    while rest and isinstance(kind, Struct):
        inner.append(rest.pop(0))
        kind = kind.fields.get(inner[-1])
    if kind is None or (rest and not isinstance(kind, Json)):
        raise UnknownFieldError.of(path, dotted_paths(fields))
    if not is_text(path):
        raise InvalidQueryError(f"field {path!a} holds a lone surrogate, which no data holds")
    return FieldRef(path, column, tuple(inner), tuple(rest), kind)


def parse(path: object) -> tuple[str, ...]:
    """The steps of `path`.

    Raises:
        InvalidQueryError: it is no string, is empty, or has an empty step or an open quote.

    >>> parse('metadata."k.l".m')
    ('metadata', 'k.l', 'm')
    """
    if not isinstance(path, str):
        raise InvalidQueryError(f"a field is named by a string, not {shown(path, 60)}")
    steps: list[str] = []
    at = 0
    while True:
        if path[at : at + 1] == '"':
            step, at = _quoted(path, at)
        else:
            end = path.find(".", at)
            end = len(path) if end < 0 else end
            step, at = path[at:end], end
            if not step:
                raise InvalidQueryError(
                    f"field {shorten(path, 80)!r} has an empty step; write an empty key as "
                    '"" in double quotes'
                )
        steps.append(step)
        if at == len(path):
            return tuple(steps)
        if path[at] != ".":
            raise InvalidQueryError(
                f"field {shorten(path, 80)!r} goes on after a closing quote; "
                "write a quote inside a quoted key twice"
            )
        at += 1


def _quoted(path: str, start: int) -> tuple[str, int]:
    """The quoted step that opens at `start`, and the position behind its closing quote."""
    step, at = "", start + 1
    while True:
        end = path.find('"', at)
        if end < 0:
            raise InvalidQueryError(f"field {shorten(path, 80)!r} has a quote that never closes")
        step += path[at:end]
        if path[end + 1 : end + 2] != '"':
            return step, end + 1
        step, at = step + '"', end + 2


def render(steps: tuple[str, ...]) -> str:
    """The path that `parse` splits into `steps`.

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
    """Whether a string can be written as UTF-8; one with a lone surrogate cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
