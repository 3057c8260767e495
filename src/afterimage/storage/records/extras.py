"""Extra fields: the part of a JSON object that is not declared, separated and restored.

The invariant: `overlay` returns everything that the declared fields do not hold, and `restore`
rebuilds the same object from both. There is one exception: an optional field that is missing in a
nested object comes back with its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afterimage.storage.records.fields import List, Struct, Text

__all__ = ["overlay", "restore"]


def overlay(struct: Struct, record: Mapping[str, Any], *, top: bool = True) -> dict[str, Any]:
    """Return the parts of a JSON object that `struct` does not declare; {} if there are none.

    A list in place of a text, such as the parts of a content, is also one of them.

    Returns:
        A node `{"absent": [names], "fields": {name: value}, "children": {name or index: node}}`
        without its empty parts. `absent` names the declared fields that the object lacks; only
        the top node has it.
    """
    absent = [name for name in struct.fields if name not in record] if top else []
    declared = struct.fields
    fields = {
        name: value
        for name, value in record.items()
        if name not in declared or (type(value) is list and isinstance(declared[name], Text))
    }
    children: dict[str, Any] = {}
    for name, kind in struct.fields.items():
        value = record.get(name)
        if isinstance(kind, Struct) and isinstance(value, dict):
            children[name] = overlay(kind, value, top=False)
        elif isinstance(kind, List) and isinstance(kind.of, Struct) and isinstance(value, list):
            item_type = kind.of
            nodes = {
                str(index): overlay(item_type, item, top=False)
                for index, item in enumerate(value)
                if isinstance(item, dict) and not _is_declared(item_type, item)
            }
            children[name] = _node(children={key: node for key, node in nodes.items() if node})
    return _node(
        absent=absent,
        fields=fields,
        children={key: node for key, node in children.items() if node},
    )


def _is_declared(struct: Struct, record: Mapping[str, Any]) -> bool:
    """Return whether a quick check shows that an object has no parts for an overlay."""
    if not record.keys() <= struct.fields.keys():
        return False
    return {*map(type, record.values())}.isdisjoint((dict, list))


def _node(**parts: Any) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part}


def restore(record: Any, node: Mapping[str, Any]) -> Any:
    """Merge an overlay into an object with the declared fields, in place, and return it."""
    for key, child in node.get("children", {}).items():
        restore(record[int(key)] if isinstance(record, list) else record[key], child)
    if isinstance(record, dict):
        for name in node.get("absent", ()):
            del record[name]
        record.update(node.get("fields", {}))
    return record
