"""Field paths: `final_score`, `evaluation.coherence.score`, `metadata.domain`, `metadata."k.l"`.

A path is split on dots. A step that itself holds a dot is put in double quotes, in which a quote
is written twice. Text ↔ steps is exact both ways: `parse(render(steps)) == steps`.
"""

from __future__ import annotations

from afterimage.storage.errors import InvalidQueryError, shorten, shown

__all__ = ["parse", "render"]


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
