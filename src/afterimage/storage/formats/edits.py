"""The edits from one JSON object to another, as a small JSON object.

Places are JSON Pointers (RFC 6901) into the first object. The invariant:
`applied(made, difference(made, given)) == given`, if null counts as an absent key; with `nulls`,
null is a value. Numbers are compared as in Python: 1, 1.0 and true are equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["applied", "difference", "json_text", "parsed_json"]

Edits = dict[str, Any]

# A pointer is about as long, so shorter text is kept itself.
_SHORT: Final = 24


def json_text(value: Any) -> str:
    """Return a value as JSON text, as the tools of this field write it.

    >>> json_text({"city": "Köln", "days": [1, 2]})
    '{"city": "Köln", "days": [1, 2]}'
    """
    return json.dumps(value, ensure_ascii=False)


def parsed_json(text: str) -> Any:
    """Return the value of JSON text.

    Raises:
        ValueError: the text is not JSON, or is nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def difference(made: dict[str, Any], given: dict[str, Any], *, nulls: bool = False) -> Edits:
    """Return the edits from `made` to `given`; an empty object if there are none.

    Args:
        made: the first object.
        given: the second object.
        nulls: whether null is more than an absent key.

    Returns:
        An object with some of these keys:
        `values`: new values by their place;
        `absent`: places that are left out;
        `moved`: places whose text is at another place in `made`;
        `text`: places with a value whose JSON text is given;
        `parsed`: places with JSON text whose value is given.

    >>> difference({"from": "human", "n": None}, {"from": "user"})
    {'values': {'/from': 'user'}}
    >>> difference({"tools": [{"name": "f"}]}, {"tools": '[{"name": "f"}]'})
    {'text': ['/tools']}
    """
    search = _Search(nulls=nulls)
    search.compare("", made, given)
    return search.edits()


class _Search:
    def __init__(self, *, nulls: bool) -> None:
        self.nulls = nulls
        self.absent: list[str] = []
        self.text: list[str] = []
        self.parsed: list[str] = []
        self.changed: list[tuple[str, Any]] = []
        self.unused: dict[str, str] = {}  # text of `made` that is not in `given`, and its place

    def compare(self, place: str, made: Any, given: Any) -> None:
        if made is given or (type(made) is type(given) and made == given):
            return
        if isinstance(made, dict) and isinstance(given, dict):
            self._compare_objects(place, made, given)
        elif isinstance(made, list) and isinstance(given, list) and len(made) >= len(given):
            extra = len(made) - len(given)
            for index in range(extra):
                self._leave_out(f"{place}/{index}", made[index])
            for index, item in enumerate(given, extra):
                self.compare(f"{place}/{index}", made[index], item)
        else:
            self._change(place, made, given)

    def _compare_objects(self, place: str, made: dict[str, Any], given: dict[str, Any]) -> None:
        absent = object() if self.nulls else None
        for key, value in made.items():
            if value is not absent and given.get(key, absent) is absent:
                self._leave_out(place + _step(key), value)
        for key, value in given.items():
            if value is absent:
                continue
            if made.get(key, absent) is absent:
                self.changed.append((place + _step(key), value))
            else:
                self.compare(place + _step(key), made[key], value)

    def _leave_out(self, place: str, made: Any) -> None:
        self.absent.append(place)
        self.unused.update(_texts(place, made))

    def _change(self, place: str, made: Any, given: Any) -> None:
        if isinstance(given, str) and isinstance(made, list | dict) and json_text(made) == given:
            self.text.append(place)
        elif isinstance(made, str) and not isinstance(given, str) and _reads_as(made, given):
            self.parsed.append(place)
        else:
            self.unused.update(_texts(place, made))
            self.changed.append((place, given))

    def edits(self) -> Edits:
        moved: dict[str, str] = {}
        values: dict[str, Any] = {}
        for place, value in self.changed:
            if isinstance(value, str) and len(value) > _SHORT and value in self.unused:
                moved[place] = self.unused[value]
            else:
                values[place] = value
        found = {
            "values": values,
            "absent": self.absent,
            "moved": moved,
            "text": self.text,
            "parsed": self.parsed,
        }
        return {name: edits for name, edits in found.items() if edits}


def _reads_as(text: str, value: Any) -> bool:
    try:
        return bool(json_text(parsed_json(text)) == json_text(value))
    except ValueError:
        return False


def _texts(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield value, place
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(place + _step(key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(f"{place}/{index}", inner)


def applied(made: dict[str, Any], edits: Edits) -> dict[str, Any]:
    """Return `made` with the edits. `made` itself is not changed.

    Raises:
        LookupError, TypeError, ValueError: `made` has no such place.

    >>> applied({"from": "human"}, {"values": {"/from": "user"}})
    {'from': 'user'}
    """
    found: dict[str, Any] = _copied(made)
    for place in edits.get("text", ()):
        _put(found, place, json_text(_at(made, _steps(place))))
    for place in edits.get("parsed", ()):
        _put(found, place, parsed_json(_at(made, _steps(place))))
    for place, source in edits.get("moved", {}).items():
        _put(found, place, _at(made, _steps(source)))
    for place, value in edits.get("values", {}).items():
        _put(found, place, value)
    for place in reversed(edits.get("absent", ())):  # the last item of a list first
        holder, step = _holder(found, place)
        del holder[step]
    return found


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value


def _put(whole: Any, place: str, value: Any) -> None:
    holder, step = _holder(whole, place)
    holder[step] = value


def _holder(whole: Any, place: str) -> tuple[Any, Any]:
    *before, last = _steps(place)
    holder = _at(whole, before)
    return holder, int(last) if isinstance(holder, list) else last


def _at(whole: Any, steps: list[str]) -> Any:
    for step in steps:
        whole = whole[int(step) if isinstance(whole, list) else step]
    return whole


def _step(key: str) -> str:
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _steps(place: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in place.split("/")[1:]]
