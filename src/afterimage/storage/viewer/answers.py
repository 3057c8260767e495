"""The answers of the server: what a page asks for, from the public methods of a storage."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, cast

from pydantic import BaseModel

from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.looking.records import record_html
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    RecordKind,
    dotted_paths,
    kind_named,
)
from afterimage.storage.records.objects import to_line
from afterimage.storage.reports.faults import OnError
from afterimage.storage.viewer.search import Condition, filters_of

__all__ = ["Answers", "Asked"]

_MOST_RECORDS: Final = 100
_MOST_VALUES: Final = 30
_HASH: Final = re.compile("[0-9a-f]{1,32}")
_SORTS: Final = {
    CONVERSATIONS.name: ["final_score", "message_count", "character_count"],
    DOCUMENTS.name: ["id", "character_count"],
}

Shown = Literal["conversations", "documents"]


class Asked(NamedTuple):
    """The parameters of a request, as they came.

    Attributes:
        values: the last value of each parameter.
        facets: the values of the parameter `facet`: JSON arrays of a field and a value.
    """

    values: Mapping[str, str]
    facets: Sequence[str] = ()


@dataclass(frozen=True)
class Answers:
    """The answers about one store.

    Attributes:
        store: the storage.
        kinds: names of the kinds of records that it shows; the first one is the default.
        parse: returns the condition of a text `FIELD OP VALUE`.
        on_error: what to do with corrupt records.
    """

    store: RecordStorage
    kinds: Sequence[str]
    parse: Callable[[str], Condition]
    on_error: OnError = "raise"

    def records(self, asked: Asked) -> dict[str, Any]:
        """Return some records as HTML and as JSON."""
        kind, query, offset = self._page(asked)
        found = self._load(kind, query)
        return {
            "records": [
                {
                    "html": record_html(record, number, 'tabindex="0"'),
                    "json": _json_of(kind, record),
                }
                for number, record in enumerate(found, offset + 1)
            ]
        }

    def calls(self, asked: Asked) -> dict[str, Any]:
        """Return the call and the statement that give the same records."""
        kind, query, _ = self._page(asked)
        sql = self.store.as_sql(**query, kind=_shown(kind))
        return {"python": _python(kind, query), "sql": sql}

    def count(self, asked: Asked) -> dict[str, Any]:
        """Return the number of matching records."""
        kind, query, _ = self._query(asked)
        return {"count": self._call("count", kind)(query["filters"], on_error=self.on_error)}

    def facets(self, asked: Asked) -> dict[str, Any]:
        """Return the menus of the records that match the search, and the fields of all of them.

        The menus do not depend on what is chosen in them, so that another value can be chosen.
        """
        kind, query, _ = self._query(Asked({**asked.values, "hash": ""}))
        found = self.store.facets(
            query["filters"], kind=_shown(kind), most_values=_MOST_VALUES, on_error=self.on_error
        )
        menus = [
            {"field": field, "values": list(values.items())}
            for field, values in found.items()
            if values is not None and len(values) > 1
        ]
        keys = [field for field in found if field.startswith("metadata.")]
        fields = dict.fromkeys([*dotted_paths(kind.queried), *keys])
        return {"menus": menus, "fields": [*fields], "sorts": [*_SORTS[kind.name], *keys]}

    def hash(self, asked: Asked) -> dict[str, Any]:
        """Return the content hash of one record, and the record that is there now."""
        kind, query, offset = self._query(asked)
        query |= {"limit": 1, "offset": offset}
        scan = self._call("scan", kind)
        hashes = [
            row["content_hash"]
            for batch in scan(["content_hash"], **query, on_error=self.on_error)
            for row in batch.to_pylist()
        ]
        records = self._load(kind, query)
        if not (hashes and records):
            raise InvalidQueryError("there is no such record")
        return {"hash": hashes[0], "json": _json_of(kind, records[0])}

    def _load(self, kind: RecordKind, query: Mapping[str, Any]) -> Sequence[BaseModel]:
        load = self._call("load", kind)
        return cast("Sequence[BaseModel]", load(**query, on_error=self.on_error))

    def _call(self, verb: str, kind: RecordKind) -> Callable[..., Any]:
        """Return a method of the store, such as `count_documents`."""
        return cast("Callable[..., Any]", getattr(self.store, f"{verb}_{kind.name}"))

    def _page(self, asked: Asked) -> tuple[RecordKind, dict[str, Any], int]:
        """Return the kind, the whole query and the offset."""
        kind, query, offset = self._query(asked)
        limit = _number(asked, "limit", 20, _MOST_RECORDS)
        return kind, {**query, "limit": limit, "offset": offset}, offset

    def _query(self, asked: Asked) -> tuple[RecordKind, dict[str, Any], int]:
        """Return the kind, the filters and the order, and the offset."""
        values = asked.values
        name = values.get("kind") or self.kinds[0]
        if name not in self.kinds:
            raise InvalidQueryError("the store does not show records of this kind")
        kind = kind_named(name)
        groups: list[list[Condition]]
        if wanted := values.get("hash"):
            if not _HASH.fullmatch(wanted):
                raise InvalidQueryError("a content hash has hexadecimal digits")
            op = "==" if len(wanted) == 32 else "startswith"
            groups = [[("content_hash", op, wanted)]]
        else:
            chosen = [_facet(each) for each in asked.facets]
            typed = filters_of(values.get("q", ""), kind, self.parse)
            groups = [[*group, *chosen] for group in typed or [[]]]
        filters: Any = groups if groups != [[]] else None
        if filters is not None and len(groups) == 1:
            [filters] = groups
        query = {"filters": filters, "order_by": values.get("sort") or None}
        return kind, query, _number(asked, "offset", 0, 2**62)


def _shown(kind: RecordKind) -> Shown:
    return "documents" if kind is DOCUMENTS else "conversations"


def _json_of(kind: RecordKind, record: BaseModel) -> str:
    return to_line(kind, record).decode().rstrip("\n")


def _facet(text: str) -> Condition:
    try:
        field, value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        field = value = None
    if not isinstance(field, str) or isinstance(value, list | dict):
        raise InvalidQueryError("a facet must be a JSON array of a field and a value")
    return field, "==", value


def _number(asked: Asked, name: str, default: int, most: int) -> int:
    text = asked.values.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidQueryError(f"{name} must be a whole number, 0 or more")
    return min(int(text), most)


def _python(kind: RecordKind, query: Mapping[str, Any]) -> str:
    """Return the call that loads the records."""
    given = (f"{name}={value!r}" for name, value in query.items() if value not in (None, 0))
    return f"store.load_{kind.name}({', '.join(given)})"
