"""The quick check for repeated keys accepts no text that has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from afterimage.storage.errors import CorruptRecordError
from afterimage.storage.jsonl.batches import batch_of_lines
from afterimage.storage.jsonl.lines import Chunk
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, RecordKind
from afterimage.storage.records.repeated_keys import (
    quotation_marks,
    repeated_key,
    repeated_key_of,
)

Pairs = list[tuple[str, Any]]

_BLANK = st.sampled_from(["", "", " ", "  ", "\t", "\r"])
_WORDS = st.sampled_from(["a", "b", "", '"', "\\", '":', ":", " ", "é", "\u2028", "\x7f"])
# Few keys, so that objects often have the same key twice.
_KEYS = st.sampled_from(["a", "a", "b", "c", '"', "é", "\\a", ""])


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """A string in JSON, with some characters as escapes."""
    written = []
    for char in text:
        if draw(st.booleans()) and draw(st.booleans()):
            written.append(f"\\u{ord(char):04x}")
        else:
            written.append(json.dumps(char, ensure_ascii=False)[1:-1])
    return f'"{"".join(written)}"'


@st.composite
def object_text(draw: st.DrawFn, pairs: list[tuple[str, str]]) -> str:
    """An object in JSON, of names and the texts of their values."""
    items = []
    for name, value in pairs:
        blanks = [draw(_BLANK) for _ in range(4)]
        items.append(f"{blanks[0]}{draw(spelled(name))}{blanks[1]}:{blanks[2]}{value}{blanks[3]}")
    return f"{{{','.join(items)}}}"


@st.composite
def value_text(draw: st.DrawFn, levels: int = 3) -> str:
    """Any value in JSON; its objects may repeat keys."""
    kind = draw(st.integers(0, 5 if levels else 2))
    if kind == 0:
        return draw(spelled(draw(_WORDS)))
    if kind == 1:
        return draw(st.sampled_from(["1", "-0.5", "null", "true", "1e400", "9" * 40]))
    if kind == 2:
        return draw(spelled("".join(draw(st.lists(_WORDS, max_size=3)))))
    values = draw(st.lists(value_text(levels - 1), max_size=3))
    if kind == 3:
        return f"[{','.join(values)}]"
    return draw(object_text([(draw(_KEYS), value) for value in values]))


def repeats(text: str) -> bool:
    """Whether an object in a text has a key twice, found out in plain Python."""
    found = []

    def check(pairs: Pairs) -> None:
        found.append(len({key for key, _ in pairs}) < len(pairs))

    json.loads(text, object_pairs_hook=check)
    return any(found)


@given(value_text())
def test_the_quick_check_and_the_exact_one_agree(text: str) -> None:
    line = text.encode()
    expected = repeats(text)
    assert (repeated_key(line) is not None) == expected
    assert (repeated_key_of(line, from_json(line)) is not None) == expected
    # One string fewer for each repeated key: the quick check alone decides.
    marks = quotation_marks(to_json(from_json(line)))
    assert (marks < quotation_marks(line)) == expected
    assert marks <= quotation_marks(line)


@st.composite
def conversation_text(draw: st.DrawFn) -> str:
    """A conversation in JSON, often with exactly the declared fields, some of them repeated."""
    messages = []
    for _ in range(draw(st.integers(0, 2))):
        pairs = [("role", '"user"'), ("content", draw(spelled(draw(_WORDS))))]
        pairs += draw(st.sampled_from([[("reasoning_content", "null")]] * 3 + [[]]))
        pairs += draw(st.sampled_from([[]] * 4 + [[("content", '"x"')], [("name", '"x"')]]))
        messages.append(draw(object_text(pairs)))
    fields = [
        ("conversations", f"[{','.join(messages)}]"),
        ("metadata", draw(object_text([("k", draw(value_text(2)))]))),
        ("instruction_context", draw(st.sampled_from(["null", '"a \\"b\\""']))),
        ("response_context", "null"),
        ("persona", draw(spelled(draw(_WORDS)))),
        ("evaluation", draw(st.sampled_from(["null", _EVALUATION]))),
        ("final_score", draw(st.sampled_from(["0.5", "null", '"0.5"']))),
    ]
    fields += draw(st.sampled_from([[]] * 4 + [[("persona", "null")], [("more", '{"a":"x"}')]]))
    del fields[len(fields) - draw(st.sampled_from([0, 0, 0, 1])) :]
    return draw(object_text(fields))


_EVALUATION = json.dumps(
    {
        **{
            name: {"feedback": "f", "score": 1.0}
            for name in ("coherence", "factuality", "grounding", "helpfulness", "relevance")
        },
        "overall_grade": "good",
    }
)


_LINES = conversation_text() | value_text(2).filter(lambda text: text[0] == "{")


def refused(kind: RecordKind, lines: list[str]) -> tuple[int | None, str]:
    """Import lines; return the number of the line that is refused, and why."""
    chunk = Chunk(Path("x.jsonl"), 1, 0, [line.encode() for line in lines], "utf-8")
    try:
        batch, others = batch_of_lines(kind, chunk, lambda *_: None)
    except CorruptRecordError as error:
        return error.line, error.reason
    assert len(batch) + len(others) == len(lines)
    return None, ""


@given(st.lists(_LINES, max_size=4))
def test_an_import_names_the_first_line_that_repeats_a_key(lines: list[str]) -> None:
    number, reason = refused(CONVERSATIONS, lines)
    assert number == next((n for n, line in enumerate(lines, 1) if repeats(line)), None)
    assert number is None or "is repeated" in reason


@given(st.lists(value_text(2), min_size=1, max_size=3), st.booleans())
def test_an_import_of_documents_too(values: list[str], repeat: bool) -> None:
    again = ',"text":"x"' * repeat
    lines = [
        f'{{"id":"{index}","text":null,"personas":[{{"descriptions":["d"],"metadata":{{"k":{value}'
        f'}}}}],"metadata":{{}}{again if index == 1 else ""}}}'
        for index, value in enumerate(values)
    ]
    number, _ = refused(DOCUMENTS, lines)
    assert number == next((n for n, line in enumerate(lines, 1) if repeats(line)), None)
