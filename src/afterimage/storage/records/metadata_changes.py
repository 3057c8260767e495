"""`MetadataChange`: a change of the metadata of records, which an update makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError, shown
from afterimage.storage.models import Conversation
from afterimage.storage.records.fields import CONVERSATIONS
from afterimage.storage.records.objects import stored_object
from afterimage.storage.records.plain import is_plain_metadata
from afterimage.storage.records.validation import reason

__all__ = ["Metadata", "MetadataChange", "metadata_text"]

Metadata = Mapping[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]
"""Keys to set (None removes one), or a function from the metadata of a record to the new one."""


class MetadataChange:
    """Returns the new metadata of records.

    Args:
        metadata: what to change.

    Raises:
        InvalidQueryError: `metadata` is neither a mapping nor a function.
        InvalidRecordError: a value cannot be stored.

    >>> MetadataChange({"topic": "trains", "draft": None})([{"draft": True, "day": 3}])
    [{'day': 3, 'topic': 'trains'}]
    """

    def __init__(self, metadata: Metadata) -> None:
        self._call = metadata if callable(metadata) else None
        if self._call is not None:
            return
        if not isinstance(metadata, Mapping):
            raise InvalidQueryError(
                "metadata must be a dict of the keys to set, or a function that returns the new "
                f"metadata, not {shown(metadata, 60)}"
            )
        values = {key: value for key, value in metadata.items() if value is not None}
        self._removed = [key for key, value in metadata.items() if value is None]
        self._values = _stored(values)

    def __call__(self, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the new metadata for each metadata, which may be changed in place.

        Raises:
            InvalidRecordError: the function returned something that cannot be stored.
        """
        if self._call is None:
            for metadata in found:
                metadata.update(self._values)
                for key in self._removed:
                    metadata.pop(key, None)
            return [*found]
        changed = [self._call(metadata) for metadata in found]
        for metadata in changed:
            if not isinstance(metadata, dict):
                raise InvalidRecordError(
                    "the function for metadata must return a dict, the new metadata, not "
                    f"{shown(metadata, 60)}. Nothing was changed."
                )
        if is_plain_metadata(changed):
            return changed
        return [_stored(metadata) for metadata in changed]


def metadata_text(metadata: dict[str, Any]) -> bytes:
    """Return metadata as JSON text.

    Raises:
        InvalidRecordError: a string in it is not valid Unicode.
    """
    try:
        return to_json(metadata, inf_nan_mode="constants")
    except ValueError as error:
        raise InvalidRecordError(f"the metadata cannot be written as JSON: {error}") from None


def _stored(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as a save keeps it."""
    try:
        record = Conversation(conversations=[], metadata=metadata)
    except ValidationError as error:
        raise InvalidRecordError(f"the metadata cannot be stored: {reason(error)}") from None
    found: dict[str, Any] = stored_object(CONVERSATIONS, record)["metadata"]
    return found
