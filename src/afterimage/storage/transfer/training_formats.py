"""Conversations as the lines that training tools read: each made by the engine, as one JSON text.

The invariants: a line depends on its conversation and on the options, and on nothing else; where
`afterimage export` of the published package writes a row, the line is that row, and where it
writes none, there is none; what a format has no place for is refused, never put somewhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa

from afterimage.storage.errors import InvalidQueryError, shorten
from afterimage.storage.query.relations import Source
from afterimage.storage.records.fields import CONVERSATIONS
from afterimage.storage.records.paths import is_text, resolve

__all__ = ["FormatName", "Reasoning", "TrainingFormat"]

FormatName = Literal["messages", "sharegpt", "alpaca"]
"""The chat messages of OpenAI and Hugging Face, the turns of ShareGPT, the pairs of Alpaca."""
Reasoning = Literal["field", "think"]
"""As `reasoning_content` of the message, or between `<think>` tags before its content."""


# In SQL, all of it constant: `given` is the messages, the context and the system prompt of a line,
# `said` is one of its messages.
_TALK: Final = "given[1]"
_CONTEXT: Final = "given[2]"
_PROMPT: Final = "given[3]"
_CONTENT: Final = "said['content']"
_CONTENT_AFTER_THINKING: Final = """
    CASE WHEN said['reasoning_content'] IS NULL THEN said['content'] ELSE '<think>' || chr(10) ||
    said['reasoning_content'] || chr(10) || '</think>' || chr(10) || chr(10) || said['content'] END
"""


@dataclass(frozen=True)
class TrainingFormat:
    """A format and its options, checked.

    Attributes:
        name: which format.
        system_prompt: what the system message at the start of every line says; "" for none.
        reasoning: where the reasoning of a message goes; None leaves it out.
    """

    name: FormatName
    system_prompt: str = ""
    reasoning: Reasoning | None = None

    @classmethod
    def of(cls, name: Any, system_prompt: Any = None, reasoning: Any = None) -> TrainingFormat:
        """Check what the user wrote.

        Raises:
            InvalidQueryError: no such format or option, or none that the format has a place for.
        """
        _check_choice(name, FormatName, "format")
        if reasoning is not None:
            _check_choice(reasoning, Reasoning, "reasoning")
        prompt = "" if system_prompt is None else system_prompt
        if not (isinstance(prompt, str) and is_text(prompt)):
            raise InvalidQueryError(f"system_prompt is a string, not {shorten(ascii(prompt), 60)}")
        if prompt and name == "alpaca":
            raise InvalidQueryError(
                "format 'alpaca' has no place for a system prompt; use 'messages' or 'sharegpt'"
            )
        if reasoning == "field" and name != "messages":
            raise InvalidQueryError(
                f"format {name!r} has no field for reasoning; use reasoning='think'"
            )
        return cls(name, prompt, reasoning)

    def line(self, source: Source) -> sa.ColumnElement[str]:
        """A conversation's line, without line feed; NULL where the format has none for it.

        A conversation that no load would take is an error of the engine.
        """
        fields = CONVERSATIONS.record.fields
        given = sa.func.row(
            source.value(resolve(fields, "conversations")),
            source.value(resolve(fields, "instruction_context")),
            sa.cast(sa.literal(self.system_prompt), sa.String),
        )
        # As the one element of a list, which is how SQL gives a value a name.
        made = sa.func.list_transform(
            sa.func.list_value(given), sa.literal_column(f"lambda given: {self._sql()}")
        )
        return sa.func.list_extract(made, 1)

    def _sql(self) -> str:
        text = _CONTENT_AFTER_THINKING if self.reasoning == "think" else _CONTENT
        match self.name:
            case "messages":
                line = self._messages(text)
            case "sharegpt":
                line = self._sharegpt(text)
            case "alpaca":
                line = _alpaca(text)
        return f"""CASE
            WHEN len(list_filter({_TALK}, lambda said: said['content'] IS NULL OR
                coalesce(said['role'] NOT IN ('user', 'assistant'), true))) > 0
            THEN error('a message without a role or content')
            ELSE {line} END"""

    def _messages(self, text: str) -> str:
        system = f"{{'role': 'system', 'content': {_PROMPT}}}"
        message = f"{{'role': said['role'], 'content': {text}}}"
        if self.reasoning == "field":  # as JSON, so that only messages that have it get the field
            system = f"to_json({system})"
            message = f"""
                CASE WHEN said['reasoning_content'] IS NULL THEN to_json({message})
                ELSE to_json(said) END"""
        messages = self._after_system(system, f"list_transform({_TALK}, lambda said: {message})")
        return f"""
            CASE WHEN len(list_filter({_TALK}, lambda said: said['role'] = 'assistant')) > 0
            THEN to_json({{'messages': {messages}}}) END"""

    def _sharegpt(self, text: str) -> str:
        """Messages of one role in a row are one turn; `starts` are the places where one begins."""
        system = f"{{'from': 'system', 'value': {_PROMPT}}}"
        turns = f"""CASE
            WHEN len(starts) = len({_TALK}) THEN list_transform({_TALK}, lambda said: {{
                'from': if(said['role'] = 'user', 'human', 'gpt'), 'value': {text}
            }})
            ELSE list_transform(starts, lambda start, n: {{
                'from': if({_TALK}[start]['role'] = 'user', 'human', 'gpt'),
                'value': array_to_string(list_transform(
                    {_TALK}[start : coalesce(starts[n + 1] - 1, len({_TALK}))], lambda said: {text}
                ), chr(10))
            }}) END"""
        turns = self._after_system(system, turns)
        return f"""list_transform([list_filter(range(1, len({_TALK}) + 1), lambda place:
                place = 1 OR {_TALK}[place]['role'] <> {_TALK}[place - 1]['role'])],
            lambda starts: CASE WHEN len(starts) > 0
                THEN to_json({{'conversations': {turns}}}) END)[1]"""

    def _after_system(self, system: str, rest: str) -> str:
        return f"list_concat([{system}], {rest})" if self.system_prompt else rest


def _alpaca(text: str) -> str:
    """The first message of either role that is not empty, in whichever order they come."""
    user, assistant = (
        f"list_filter({_TALK}, lambda said: said['role'] = '{role}' AND said['content'] <> '')[:1]"
        for role in ("user", "assistant")
    )
    # A list of none or one, as the text is made of.
    return f"""list_transform([{user} || {assistant}], lambda pair: CASE WHEN len(pair) = 2 THEN
            to_json({{
                'instruction': list_transform(pair, lambda said: {text})[1],
                'input': coalesce({_CONTEXT}, ''),
                'output': list_transform(pair, lambda said: {text})[2]
            }}) END)[1]"""


def _check_choice(value: Any, choices: Any, what: str) -> None:
    known = get_args(choices)
    if not (isinstance(value, str) and value in known):
        raise InvalidQueryError(
            f"unknown {what} {shorten(ascii(value), 40)}; use {', '.join(map(repr, known))}"
        )
