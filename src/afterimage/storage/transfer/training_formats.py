"""Convert conversations to lines in the formats of training tools, as SQL expressions.

The invariants: A line depends only on its conversation and the options. It equals the row that
`afterimage export` of the published package writes; there is no line if that command writes no row.
An option that a format cannot represent is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa
from pydantic_core import from_json, to_json

from afterimage.storage.errors import InvalidQueryError, shorten
from afterimage.storage.query.relations import Source
from afterimage.storage.records.fields import CONVERSATIONS
from afterimage.storage.records.paths import is_text, resolve

__all__ = ["FORMATS", "WITHOUT_REASONING", "Reasoning", "TrainingFormat"]

FORMATS: Final = ("messages", "sharegpt")
"""The formats whose lines the engine can write for plain conversations."""
Reasoning = Literal["field", "think"]
"""As `reasoning_content` of the message, or between `<think>` tags before its content."""


# Constant SQL. In it, `inputs` is a row of the messages and the system prompt of a line; `msg` is
# one of the messages.
_MESSAGES: Final = "inputs[1]"
# No line of JSON begins with one of these.
WITHOUT_REASONING: Final = "~"
"""The mark of a line whose conversation has reasoning that the line has not."""
_MARK: Final = "#"
_PROMPT: Final = "inputs[2]"
_CONTENT: Final = "msg['content']"
_CONTENT_AFTER_THINKING: Final = """
    CASE WHEN msg['reasoning_content'] IS NULL THEN msg['content'] ELSE '<think>' || chr(10) ||
    msg['reasoning_content'] || chr(10) || '</think>' || chr(10) || chr(10) || msg['content'] END
"""


@dataclass(frozen=True)
class TrainingFormat:
    """A checked format with its options.

    Attributes:
        name: the format.
        system_prompt: content of the system message at the start of every line; "" for none.
        reasoning: where to write the reasoning of a message; None omits it.
    """

    name: str
    system_prompt: str = ""
    reasoning: Reasoning | None = None

    @classmethod
    def of(cls, name: Any, system_prompt: Any = None, reasoning: Any = None) -> TrainingFormat:
        """Return the checked format of the user's arguments.

        Raises:
            InvalidQueryError: the format or an option is not valid, or the format does not support
                the option.
        """
        if reasoning is not None:
            _check_choice(reasoning, Reasoning, "reasoning")
        prompt = "" if system_prompt is None else system_prompt
        if not (isinstance(prompt, str) and is_text(prompt)):
            raise InvalidQueryError(
                f"system_prompt must be a string, not {shorten(ascii(prompt), 60)}"
            )
        return cls(name, prompt, reasoning)

    def line(self, source: Source) -> sa.ColumnElement[str]:
        """Return the expression of a conversation's line, without line feed.

        It is NULL if the format has no line for the conversation, and for a chat with other roles
        or without text. It begins with `WITHOUT_REASONING` if it leaves reasoning out.
        """
        fields = CONVERSATIONS.record.fields
        inputs = sa.func.row(
            source.value(resolve(fields, "conversations")),
            sa.cast(sa.literal(self.system_prompt), sa.String),
        )
        # A lambda over a list of one element gives the value a name in SQL.
        lines = sa.func.list_transform(
            sa.func.list_value(inputs), sa.literal_column(f"lambda inputs: {self._sql()}")
        )
        return sa.func.list_extract(lines, 1)

    def _sql(self) -> str:
        text = _CONTENT_AFTER_THINKING if self.reasoning == "think" else _CONTENT
        match self.name:
            case "messages":
                line = self._messages(text)
            case _:
                line = self._sharegpt(text)
        odd = "msg['content'] IS NULL OR coalesce(msg['role'] NOT IN ('user', 'assistant'), true)"
        if self.reasoning is not None:
            return f"CASE WHEN {_none(odd)} THEN {line} END"
        # Most conversations have no reasoning, and their messages are then read only once.
        return f"""CASE
            WHEN {_none(f"{odd} OR msg['reasoning_content'] IS NOT NULL")} THEN ({line})::VARCHAR
            WHEN {_none(odd)} THEN '{WITHOUT_REASONING}' || ({line})::VARCHAR END"""

    def _messages(self, text: str) -> str:
        system = f"{{'role': 'system', 'content': {_PROMPT}}}"
        message = f"{{'role': msg['role'], 'content': {text}}}"
        if self.reasoning == "field":  # as JSON: only messages with reasoning get the field
            system = f"to_json({system})"
            message = f"""
                CASE WHEN msg['reasoning_content'] IS NULL THEN to_json({message})
                ELSE to_json(msg) END"""
        transformed = f"list_transform({_MESSAGES}, lambda msg: {message})"
        messages = self._after_system(system, transformed)
        return f"""
            CASE WHEN len(list_filter({_MESSAGES}, lambda msg: msg['role'] = 'assistant')) > 0
            THEN to_json({{'messages': {messages}}}) END"""

    def _sharegpt(self, text: str) -> str:
        """Give each message a turn; a mark says that `finished` must join turns of one role.

        Joining them here would take time and memory that grow with the square of their number.
        """
        system = f"{{'from': 'system', 'value': {_PROMPT}}}"
        turns = f"""list_transform({_MESSAGES}, lambda msg: {{
                'from': if(msg['role'] = 'user', 'human', 'gpt'), 'value': {text}
            }})"""
        turns = self._after_system(system, turns)
        roles = f"array_to_string(list_transform({_MESSAGES}, lambda msg: msg['role']), ' ')"
        repeated = f"{roles}.contains('user user') OR {roles}.contains('assistant assistant')"
        return f"""CASE WHEN len({_MESSAGES}) > 0 THEN
            if({repeated}, '{_MARK}', '') || to_json({{'conversations': {turns}}})::VARCHAR END"""

    def finished(self, line: str) -> str:
        """Return a line of `line` without its mark: turns that follow each other are one turn.

        Their values are joined with line feeds.
        """
        if not line.startswith(_MARK):
            return line
        turns: list[dict[str, str]] = []
        for role, group in groupby(
            from_json(line.removeprefix(_MARK))["conversations"], itemgetter("from")
        ):
            turns.append({"from": role, "value": "\n".join(turn["value"] for turn in group)})
        return to_json({"conversations": turns}).decode()

    def _after_system(self, system: str, rest: str) -> str:
        return f"list_concat([{system}], {rest})" if self.system_prompt else rest


def _none(condition: str) -> str:
    """Return the SQL that is true if no message `msg` has the condition."""
    return f"len(list_filter({_MESSAGES}, lambda msg: {condition})) = 0"


def _check_choice(value: Any, choices: Any, what: str) -> None:
    known = get_args(choices)
    if not (isinstance(value, str) and value in known):
        raise InvalidQueryError(
            f"unknown {what} {shorten(ascii(value), 40)}; use {', '.join(map(repr, known))}"
        )
