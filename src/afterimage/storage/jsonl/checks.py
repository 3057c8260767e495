"""Read the models of lines, find the corrupt lines of a file, and remove them from its chunks.

A corrupt line is replaced with blanks of the same length, because readers skip blank lines. All
other lines keep their numbers and offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from afterimage.storage.errors import CorruptRecordError, InvalidRecordError
from afterimage.storage.jsonl.lines import Chunk, Line, objects_of, parse, parse_exact
from afterimage.storage.query.read import Read
from afterimage.storage.records.chat import loaded_text, strict_reader
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    OTHERS,
    Double,
    FieldType,
    List,
    RecordKind,
    Struct,
    Text,
)
from afterimage.storage.records.validation import as_declared, is_conversation, reason
from afterimage.storage.reports.faults import Faults
from afterimage.storage.system.gc_pause import paused_collector

__all__ = [
    "importable",
    "importable_chunks",
    "loadable",
    "loaded",
    "loads_all",
    "models_of_chunk",
    "models_of_lines",
    "objects_of_chunk",
    "until_damage",
    "valid_chunks",
]


# Lines that are checked together: their objects stay in the cache of a processor core.
_LINES_AT_ONCE: Final = 256


def loaded(kind: RecordKind, chunk: Chunk, line: Line) -> Any | None:
    """Return the model of a line; None if the line is a record of another model.

    Raises:
        CorruptRecordError: the line is not a valid record.
    """
    record = parse(chunk, line)
    if kind is CONVERSATIONS and not is_conversation(record):
        return None
    try:
        return loaded_text(kind, record, line.text)
    except ValidationError as error:
        raise chunk.corrupt(line, reason(error)) from None


def loadable(kind: RecordKind) -> Callable[[Chunk, Line], object]:
    """Return a function that raises `CorruptRecordError` for a line that cannot be loaded."""
    if kind is OTHERS:
        return parse
    return lambda chunk, line: loaded(kind, chunk, line)


def loads_all(kind: RecordKind, objects: Sequence[dict[str, Any]]) -> bool:
    """Return whether a load accepts all these objects, which are of the kind.

    The types of all values are compared first. Only other objects are validated by the model, which
    may convert their values.
    """
    if kind is OTHERS or _has_types(kind.exact, objects):
        return True
    try:
        for record in objects:
            loaded_text(kind, record, to_json(record))
    except ValidationError:
        return False
    return True


def _has_types(struct: Struct, objects: Sequence[Any]) -> bool:
    """Return whether all objects have the required fields, and all values their declared types."""
    for name, field_type in struct.fields.items():
        try:
            values = [*map(itemgetter(name), objects)]
        except KeyError:
            if name not in struct.defaults:
                return False
            values = [record[name] for record in objects if name in record]
        types = {*map(type, values)}
        if name in struct.nullable and type(None) in types:
            values = [value for value in values if value is not None]
            types.remove(type(None))
        if not _are_of(field_type, values, types):
            return False
    return True


def _are_of(field_type: FieldType, values: Sequence[Any], types: set[type]) -> bool:
    match field_type:
        case Text():
            return types <= {str} and not (field_type.enum and {*values} - {*field_type.choices})
        case Double():
            return types <= {float, int}
        case List(item_type):
            if not types <= {list}:
                return False
            items = [*chain.from_iterable(values)]
            return _are_of(item_type, items, {*map(type, items)})
        case Struct():
            return types <= {dict} and _has_types(field_type, values)
        case _:
            return types <= {dict}


def importable(kind: RecordKind) -> Callable[[Chunk, Line], dict[str, Any]]:
    """Return a function that returns the JSON object of a line.

    It raises `CorruptRecordError` for a line that cannot be imported.
    """

    def check(chunk: Chunk, line: Line) -> dict[str, Any]:
        record = parse_exact(chunk, line)
        if kind is DOCUMENTS or is_conversation(record):
            try:
                as_declared(kind, record)
            except InvalidRecordError as error:
                raise chunk.corrupt(line, str(error)) from None
        return record

    return check


def valid_chunks(
    chunks: Iterable[Chunk], check: Callable[[Chunk, Line], object], faults: Faults
) -> Generator[Chunk, None, None]:
    """Yield the chunks with blanks instead of the lines that fail `check`.

    Raises:
        CorruptRecordError: a line fails `check`, and `faults` does not skip corrupt records.
    """
    for chunk in until_damage(chunks, faults):
        corrupt: list[Line] = []
        with paused_collector():
            for line in chunk.unread():
                try:
                    check(chunk, chunk.read(line))
                except CorruptRecordError as error:
                    faults.handle(error)
                    corrupt.append(line)
        yield chunk.without(corrupt) if corrupt else chunk


def importable_chunks(
    kind: RecordKind,
    chunks: Iterable[Chunk],
    other: Callable[[Chunk, Line, dict[str, Any]], object],
    faults: Faults,
) -> Iterator[tuple[Chunk, int]]:
    """Yield chunks without the lines that cannot be imported, and the number of other records.

    The types of the values of many lines are compared at once, which is quick. Only if some differ,
    each record is validated.

    Args:
        kind: the kind of the records.
        chunks: the chunks.
        other: called with the chunk, the line and the JSON object of each record of another model.
        faults: the policy for lines that cannot be imported.

    Raises:
        CorruptRecordError: a line cannot be imported, and `faults` does not skip corrupt records.
    """
    check = importable(kind)

    def checked(chunk: Chunk, line: Line) -> None:
        record = check(chunk, line)
        if not _is_of(kind, record):
            other(chunk, line, record)
            others.append(line)

    for chunk in until_damage(chunks, faults):
        others: list[Line] = []
        if (records := _all_importable(kind, chunk)) is None:
            [valid] = valid_chunks([chunk], checked, faults)
            yield valid, len(others)
        else:
            for line, record in records:
                other(chunk, line, record)
            yield chunk, len(records)


def _all_importable(kind: RecordKind, chunk: Chunk) -> list[tuple[Line, dict[str, Any]]] | None:
    """Return the records of other models in a chunk; None if a line may not be importable."""
    others: list[tuple[Line, dict[str, Any]]] = []
    lines = chunk.records()
    with paused_collector(), suppress(CorruptRecordError, InvalidRecordError):
        while part := [*islice(lines, _LINES_AT_ONCE)]:
            parsed = [(line, parse_exact(chunk, line)) for line in part]
            declared = [record for _, record in parsed if _is_of(kind, record)]
            if len(declared) < len(parsed):
                others += [each for each in parsed if not _is_of(kind, each[1])]
            if not _has_types(kind.exact, declared):
                for record in declared:
                    as_declared(kind, record)
        return others
    return None


def until_damage(chunks: Iterable[Chunk], faults: Faults) -> Iterator[Chunk]:
    """Yield the chunks; stop at damage in a compressed file if `faults` skips corrupt records."""
    try:
        yield from chunks
    except CorruptRecordError as error:
        faults.handle(error)


def models_of_lines(kind: RecordKind, lines: list[bytes]) -> list[Any]:
    """Return the models of lines that the engine accepted.

    Raises:
        ValueError: a line is not a valid record.
    """
    quick = strict_reader(kind)
    with suppress(ValueError):
        return [*map(quick, lines)]
    return [loaded_text(kind, from_json(line), line) for line in lines]


def models_of_chunk(read: Read, chunk: Chunk, limit: int | None) -> list[Any]:
    """Return the models of a chunk's lines, at most `limit`, without records of other models."""
    quick = strict_reader(read.kind)
    with suppress(ValueError, CorruptRecordError):
        return [quick(text) for text in chunk.texts()[:limit]]
    models: list[Any] = []
    for unread in chunk.unread():
        if limit is not None and len(models) >= limit:
            break
        try:
            line = chunk.read(unread)
            with suppress(ValueError):  # the quick way, which most lines pass
                models.append(quick(line.text))
                continue
            model = loaded(read.kind, chunk, line)
        except CorruptRecordError as error:
            read.faults.handle(error)
        else:
            models += [model] if model is not None else []
    return models


def objects_of_chunk(read: Read, chunk: Chunk, limit: int | None) -> list[dict[str, Any]]:
    """Return a chunk's records of the kind of the read as JSON objects, at most `limit`."""
    kind, checked = read.kind, read.valid or read.faults.skip
    with suppress(InvalidRecordError, CorruptRecordError):
        objects = [each for each in objects_of(chunk.texts()) if _is_of(kind, each)][:limit]
        if not checked or loads_all(kind, objects):
            return objects
    check = loadable(kind) if checked else parse
    objects = []
    for unread in chunk.unread():
        if limit is not None and len(objects) >= limit:
            break
        try:
            line = chunk.read(unread)
            record = parse(chunk, line)
            if _is_of(kind, record):
                check(chunk, line)
                objects.append(record)
        except CorruptRecordError as error:
            read.faults.handle(error)
    return objects


def _is_of(kind: RecordKind, record: dict[str, Any]) -> bool:
    return kind is DOCUMENTS or is_conversation(record) == (kind is CONVERSATIONS)
