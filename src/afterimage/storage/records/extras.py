"""What the declared fields do not know of a JSON object (`extra`), taken out and put back.

The invariant: a record is split into its declared fields and an overlay of the rest, and `restore`
gives the same object again. One exception: an optional field that a nested object lacked comes back
with its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afterimage.storage.records.fields import List, Struct

__all__ = ["overlay", "restore"]


def overlay(struct: Struct, record: Mapping[str, Any], *, top: bool = True) -> dict[str, Any]:
    """What `struct` does not know of a JSON object; empty where it knows all.

    Returns:
        A node `{"absent": [names], "fields": {name: value}, "children": {name or index: node}}`,
        each part only where it is not empty. `absent` names declared fields that the object
        lacks, and stands at the top only.
    """
    absent = [name for name in struct.fields if name not in record] if top else []
    fields = {name: value for name, value in record.items() if name not in struct.fields}
    children: dict[str, Any] = {}
    for name, kind in struct.fields.items():
        value = record.get(name)
        if isinstance(kind, Struct) and isinstance(value, dict):
            children[name] = overlay(kind, value, top=False)
        elif isinstance(kind, List) and isinstance(kind.of, Struct) and isinstance(value, list):
            of = kind.of
            nodes = {
                str(at): overlay(of, item, top=False)
                for at, item in enumerate(value)
                if isinstance(item, dict)
            }
            children[name] = _node(children={at: node for at, node in nodes.items() if node})
    return _node(
        absent=absent, fields=fields, children={at: node for at, node in children.items() if node}
    )


def _node(**parts: Any) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part}


def restore(record: Any, node: Mapping[str, Any]) -> Any:
    """Put an overlay back into the declared fields of an object, in place."""
    for at, child in node.get("children", {}).items():
        restore(record[int(at)] if isinstance(record, list) else record[at], child)
    if isinstance(record, dict):
        for name in node.get("absent", ()):
            del record[name]
        record.update(node.get("fields", {}))
    return record
