"""`RecordStorage`: the public methods that all storages share, implemented on a backend.

The methods are in `calls/`.
"""

from __future__ import annotations

from afterimage.storage.base import BaseStorage
from afterimage.storage.calls.conversations import ConversationCalls
from afterimage.storage.calls.documents import DocumentCalls
from afterimage.storage.calls.editing import EditingCalls
from afterimage.storage.calls.exports import ExportCalls
from afterimage.storage.calls.hub import HubCalls
from afterimage.storage.calls.imports import ImportCalls
from afterimage.storage.calls.looking import LookingCalls
from afterimage.storage.calls.records import RecordCalls
from afterimage.storage.calls.reports import ReportCalls
from afterimage.storage.calls.whole.compacting import CompactingCalls
from afterimage.storage.calls.whole.connecting import ConnectingCalls

__all__ = ["RecordStorage"]


class RecordStorage(  # type: ignore[misc]  # lists are invariant; both are documented
    ConversationCalls,
    DocumentCalls,
    RecordCalls,
    EditingCalls,
    ConnectingCalls,
    CompactingCalls,
    ImportCalls,
    LookingCalls,
    HubCalls,
    ExportCalls,
    ReportCalls,
    BaseStorage,
):
    """The public methods of a storage, implemented on a backend.

    All reads take the same arguments:

    - `limit`, `offset`: the maximum number of records to return, and the number of records to skip
      at the start.
    - `filters`: `{field: value}`, or `[(field, op, value), …]` (ANDed), or a list of such lists
      (ORed), with the operators `==` `=` `!=` `<` `<=` `>` `>=` `in` `contains` `icontains`
      `startswith` `matches` `has` and, for each of the words, its negation such as `not in`.
    - `order_by`: `"field"` or `"-field"` (descending), or a list of them, or
      `[(field, direction), …]` with direction 1, -1, "asc" or "desc". Null is sorted last in both
      directions. Ties are in insertion order, and so are all records without `order_by`.
    - `sample`, `seed`, `shuffle_seed`, `shard`, `distinct`: which of the matching records to read;
      see `Choice` and `docs/choosing.md`. `distinct="content_hash"` takes the first of equal
      records. `sample=200, seed=7` then takes 200 of them, the same in every storage.
      `shard=(rank, world)` takes the part of one of several workers. `shuffle_seed=7` sorts at
      random. `limit` and `offset` come last.
    - `on_error`: what to do with corrupt records, for example after a truncated write or an edit by
      hand. "raise" raises `CorruptRecordError`: loads, exports and scans reject the same records.
      If a scan or a Parquet export has only some columns, it checks only their values; counts
      fail only for a line that is not JSON. "skip" ignores all records that a load would reject,
      and issues a `SkippedRecordsWarning` at the end with their number and the places of the first
      ones. It validates every record, so a count or a scan then takes about as long as a load.

    Long calls take `progress`: a function that is called with the number of records since its last
    call, or True for a bar, which needs the package `tqdm` and is a widget in a notebook. Without
    that package, lines on stderr tell how far the call is.

    A field is a top-level field; a dotted path into a struct or into metadata; a field that follows
    from the record, such as `content_hash` or `message_count`; or, in filters, a field of the
    messages, such as `messages.content`. All reads raise
    `UnknownFieldError` for a field that does not exist, and `InvalidQueryError` for an argument
    that is not valid, before any data is read.
    """
