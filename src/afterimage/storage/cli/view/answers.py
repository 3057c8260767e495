"""The answers of the viewer, as values that JSON can hold. Each is one call of the store or two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from pydantic_core import from_json, to_jsonable_python

from afterimage import storage
from afterimage.storage.cli.view.search import FIELDS, filters_of, order_of
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.looking.records import record_html
from afterimage.storage.query.arguments import Filters
from afterimage.storage.record_storage import RecordStorage

__all__ = [
    "MOST_RECORDS",
    "Asked",
    "code",
    "count",
    "facets",
    "fields",
    "hash_at",
    "json_at",
    "page",
]

MOST_RECORDS: Final = 100
"""Records of one page, at most."""

# The records whose metadata shows which keys have few values, and the most values of such a key.
_SAMPLE: Final = 500
_MOST_VALUES: Final = 40
_MOST_FACETS: Final = 8
_LONGEST_VALUE: Final = 60


class Asked(NamedTuple):
    """What a request asks for.

    Attributes:
        kind: "conversations" or "documents".
        text: the text of the search box.
        values: fields with the values that menus have chosen.
        order: a field, with `:desc` after it for the descending order; "" for insertion order.
        offset: number of records before the page.
        limit: number of records of the page.
    """

    kind: str = "conversations"
    text: str = ""
    values: tuple[tuple[str, Any], ...] = ()
    order: str = ""
    offset: int = 0
    limit: int = 20

    @property
    def filters(self) -> Filters:
        return filters_of(self.text, self.kind, self.values)


def page(store: RecordStorage, asked: Asked) -> dict[str, Any]:
    """Return the records of a page as HTML."""
    load = store.load_conversations if asked.kind == "conversations" else store.load_documents
    records = load(asked.limit, asked.offset, asked.filters, order_of(asked.order))
    numbers = range(asked.offset + 1, asked.offset + len(records) + 1)
    return {
        "articles": [
            record_html(record, number, 'tabindex="0"')
            for record, number in zip(records, numbers, strict=True)
        ]
    }


def count(store: RecordStorage, asked: Asked) -> dict[str, Any]:
    """Return the number of matching records."""
    counted = store.count_conversations if asked.kind == "conversations" else store.count_documents
    return {"count": counted(asked.filters)}


def facets(store: RecordStorage, asked: Asked) -> dict[str, Any]:
    """Return the metadata keys with few values, and the number of matching records of each value.

    The first records of the store show which keys these are.
    """
    scan = _scan(store, asked.kind)
    first = scan(["metadata"], limit=_SAMPLE).read_all().column(0).to_pylist()
    menus = _menus(first)
    found: dict[str, list[list[Any]]] = {}
    if menus:
        table = scan([*menus], filters=asked.filters).read_all()
        for path, is_text in menus.items():
            counts = Counter(table.column(path).to_pylist())
            del counts[None]
            if len(counts) <= _MOST_VALUES:
                values = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
                found[path] = [[text if is_text else from_json(text), n] for text, n in values]
    return {"facets": found}


def _menus(texts: Sequence[str | None]) -> dict[str, bool]:
    """Return the paths of keys with few values, and whether the values are texts."""
    values: dict[str, list[Any]] = {}
    for text in texts:
        for key, value in from_json(text or "{}").items():
            values.setdefault(key, []).append(value)
    menus: dict[str, bool] = {}
    for key, found in values.items():
        types = {*map(type, found)} - {type(None)}
        if types in ({str}, {bool}, {int}) and 1 < len({*found}) <= min(
            _MOST_VALUES, len(found) - 1
        ):
            texts_of = [value for value in found if isinstance(value, str)]
            if all(0 < len(text) <= _LONGEST_VALUE for text in texts_of):
                menus[_path(key)] = types == {str}
    return dict(islice(menus.items(), _MOST_FACETS))


def _path(key: str) -> str:
    quoted = key.replace('"', '""')
    return f"metadata.{key}" if key.isidentifier() else f'metadata."{quoted}"'


def fields(store: RecordStorage, kind: str) -> list[str]:
    """Return the fields that the search box completes."""
    first = _scan(store, kind)(["metadata"], limit=_SAMPLE).read_all().column(0).to_pylist()
    keys = {key: None for text in first for key in from_json(text or "{}")}
    return [*FIELDS[kind], *map(_path, keys)]


def json_at(store: RecordStorage, asked: Asked) -> dict[str, Any]:
    """Return the record at the offset as JSON."""
    load = store.load_conversations if asked.kind == "conversations" else store.load_documents
    records = load(1, asked.offset, asked.filters, order_of(asked.order))
    if not records:
        raise InvalidQueryError("the record is not there any more; reload the page")
    return {"record": to_jsonable_python(records[0], inf_nan_mode="constants")}


def hash_at(store: RecordStorage, asked: Asked) -> dict[str, Any]:
    """Return the content hash of the record at the offset."""
    found = _scan(store, asked.kind)(
        ["content_hash"],
        limit=1,
        offset=asked.offset,
        filters=asked.filters,
        order_by=order_of(asked.order),
    ).read_all()
    if not len(found):
        raise InvalidQueryError("the record is not there any more; reload the page")
    return {"hash": found.column(0)[0].as_py()}


def code(store: RecordStorage, asked: Asked) -> dict[str, Any]:
    """Return the call in Python that gives the page, and the SQL."""
    arguments: dict[str, Any] = {"filters": asked.filters, "order_by": order_of(asked.order)}
    arguments |= {"limit": asked.limit, "offset": asked.offset}
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if value)
    sql = None
    if isinstance(store, storage.SQLStorage):
        sql = store.as_sql(**{"kind": asked.kind, **arguments})
    return {"python": f"store.load_{asked.kind}({given})", "sql": sql}


def _scan(store: RecordStorage, kind: str) -> Callable[..., Any]:
    return store.scan_conversations if kind == "conversations" else store.scan_documents
