"""Sound lines to damage, packed or not, and what plain Python says of lines that are damaged."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from contextlib import suppress
from typing import Any

import pyarrow as pa
from pydantic_core import from_json

from afterimage.storage import (
    Conversation,
    Document,
    EvaluatedConversationWithContext,
    PersonaEntry,
)
from tests.support.records import ALL_SORTS, Note, TaggedDocument, conversation, evaluation

__all__ = [
    "SOUND_LINES",
    "holds_a_conversation",
    "is_nested_to_the_limit",
    "names_twice",
    "packed",
    "parsed",
    "unpacked",
]


def parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        return {}
    except ValueError as error:
        if "integer string conversion" in str(error):
            return {}
        raise AssertionError(f"a record out of what is no JSON: {error}") from None


def holds_a_conversation(text: bytes) -> bool:
    """Known: a load takes one for a document without text, as an import and `verify` do not."""
    return b'"conversations"' in text


def is_nested_to_the_limit(text: bytes) -> bool:
    """Known: of the last few levels a save, an import and `verify` take less than a load reads."""
    for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        with suppress(ValueError):
            from_json(line)
            try:
                from_json(b"[" * 6 + line + b"]" * 6)
            except ValueError:
                return True
    return False


def names_twice(text: bytes) -> bool:
    found = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        found.append(len(made) < len(pairs))
        return made

    for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        try:
            json.loads(line, object_pairs_hook=note)
        except (ValueError, RecursionError):
            continue
    return any(found)


# -- packing --------------------------------------------------------------------------------------


def packed(text: bytes, suffix: str, rng: random.Random) -> bytes:
    """In one member or, as of a file that others append to, in two."""
    cut = rng.choice([len(text), len(text) // 2])
    parts = [part for part in (text[:cut], text[cut:]) if part] or [b""]
    if suffix == ".gz":
        return b"".join(gzip.compress(part, mtime=0) for part in parts)
    return b"".join(pa.compress(part, "zstd", asbytes=True) for part in parts)


def unpacked(data: bytes, suffix: str) -> tuple[bytes, bool]:
    """All that can be unpacked, a byte at a time, and whether that is the whole file."""
    if suffix == "":
        return data, True
    return _gunzipped(data) if suffix == ".gz" else _unzstd(data)


def _gunzipped(data: bytes) -> tuple[bytes, bool]:
    text = b""
    while data.lstrip(b"\x00") or not text:
        if text:
            data = data.lstrip(b"\x00")  # padding, as tapes have it
        member = zlib.decompressobj(wbits=31)
        try:
            for at in range(len(data)):
                text += member.decompress(data[at : at + 1])
                if member.eof:
                    break
        except zlib.error:
            return text, False
        if not member.eof:
            return text, not data and not text
        data = data[at + 1 :]
        if not data:
            break
    return text, True


def _unzstd(data: bytes) -> tuple[bytes, bool]:
    import zstandard

    text = b""
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            for at in range(len(data)):
                text += frame.decompress(data[at : at + 1])
                if frame.eof:
                    break
        except zstandard.ZstdError:
            return text, False
        if not frame.eof:
            return text, False
        data = data[at + 1 :]
    return text, True


# -- what is in the files -------------------------------------------------------------------------


def _lines_of(records: list[Any], model: Any) -> dict[bytes, Any]:
    """Each record's line, and what a load must give for it: None where it is of another kind."""
    lines = {}
    for record in records:
        text = json.dumps(record.model_dump(mode="json"), ensure_ascii=False)
        line = text.encode("utf-8")
        is_one = isinstance(record, (Conversation, Document))
        lines[line] = model.model_validate_json(line) if is_one else None
    return lines


_METADATA: list[dict[str, Any]] = [
    {"n": 1, "domain": "Trains", "tags": ["a", {"b": None}]},
    {"n": 2**53 + 1, "k.l": {"deep": [[[1.5, -0.0]]]}},
    {"n": "a", "": "é\u2028😀", "big": 10**40},
    {"n": None, "other": 1e300},
    {},
]

SOUND_LINES: dict[str, dict[bytes, Any]] = {
    "conversations": _lines_of(
        [
            *ALL_SORTS[:1], *ALL_SORTS[2:],
            *(conversation(f"talk {at}", each) for at, each in enumerate(_METADATA)),
            conversation("rated", {"n": 3.5}, evaluation=evaluation(), final_score=0.25),
            Note(title="of another model", body=[1, {"n": 2}]),
        ],
        EvaluatedConversationWithContext,
    ),
    "documents": _lines_of(
        [
            *(Document(id=f"d{at}", text="x\ny", metadata=m) for at, m in enumerate(_METADATA)),
            Document(id="p", personas=[PersonaEntry(descriptions=["é"], metadata={"n": 1})]),
            TaggedDocument(id="t", text=None, tags=["a"]),
        ],
        Document,
    ),
}  # fmt: skip
