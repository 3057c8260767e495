"""Alpaca instructions: `{"instruction", "input", "output"}`, with `system` and `history`.

`input` is material for the instruction, and tools show a model both. So both are the user message,
with a line feed between them, and `input` is also the `instruction_context` of the record, which
marks where it begins. A context that the user message does not end with is written as `input` too.

`alpaca` is one question and its answer: the first that are not empty, as in the published package's
export, but an answer belongs to the question directly before it. A row that was read with `history`
is written with it. `llama_factory` always has `history`: the last question and answer of the
conversation are its instruction and its output, and all earlier ones are in `history`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from afterimage.storage.errors import InvalidRecordError, shown
from afterimage.storage.formats.messages import after_system, content_text
from afterimage.storage.formats.shape import Losses, NotRepresentableError, message_kind

__all__ = ["Alpaca", "LlamaFactory", "question_of"]


def question_of(row: Mapping[str, Any]) -> str:
    r"""Return the user message of an instruction and its input.

    Raises:
        InvalidRecordError: one of them is not text.

    >>> question_of({"instruction": "Translate.", "input": "Hallo"})
    'Translate.\nHallo'
    """
    given = [_text(row, key) for key in ("instruction", "input") if key in row]
    return "\n".join(filter(None, given))


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise InvalidRecordError(f"{key} is {shown(value, 40)}; it must be text")
    return value


# What is not the question or the answer of a row.
_TURNS: Final = "other turns"


class Alpaca:
    """The conversion of `alpaca`."""

    name: str = "alpaca"
    required: tuple[str, ...] = ("instruction", "output")
    keys: frozenset[str] = frozenset({"instruction", "input", "output", "system", "history"})
    aliases: Mapping[str, str] = {"system_prompt": "system"}
    parts: tuple[str, ...] = ("conversations", "tools", "instruction_context")
    layouts: tuple[str, ...] = ("history",)
    has_reasoning: bool = False
    can_write: bool = True

    always_history: ClassVar[bool] = False

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the messages of a row, and its input as context."""
        messages: list[dict[str, Any]] = []
        for user, assistant in _history(row.get("history", [])):
            messages.append({"role": "user", "content": user})
            messages.append({"role": "assistant", "content": assistant})
        messages.append({"role": "user", "content": question_of(row)})
        messages.append({"role": "assistant", "content": _text(row, "output")})
        record: dict[str, Any] = {"conversations": after_system(row.get("system", ""), messages)}
        if row.get("input"):
            record["instruction_context"] = row["input"]
        return record

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Return the row of a record."""
        if "tools" in record:
            losses.drop("tools", f"tools have no place in {self.name}")
        is_whole = self.always_history or layout == "history"
        system, pairs = self._pairs(record["conversations"], losses, is_whole=is_whole)
        if is_whole:
            question, answer = pairs.pop()
        else:
            question, answer = next(pair for pair in pairs if all(pair))
            if len(pairs) > 1:
                losses.names.add(_TURNS)  # a row is one of them
            pairs = []
        instruction, context = _split(question, record.get("instruction_context") or "")
        row: dict[str, Any] = {"instruction": instruction, "input": context, "output": answer}
        if system:
            row["system"] = system
        if pairs or self.always_history:
            row["history"] = [[*pair] for pair in pairs]
        return row

    def _pairs(
        self, messages: list[dict[str, Any]], losses: Losses, *, is_whole: bool
    ) -> tuple[str, list[tuple[str, str]]]:
        """Return the system message and the questions with their answers.

        Args:
            messages: the messages.
            losses: what has no place.
            is_whole: whether every message must be in a pair, and the last pair must be the row.
        """
        lenient = losses.allowed or not is_whole
        system: list[str] = []
        pairs: list[tuple[str, str]] = []
        question: str | None = None
        for position, message in enumerate(messages):
            place = f"conversations.{position}"
            role = message["role"]
            text = self._text_of(message, place, losses)
            if text is None:
                continue
            if role == "system" and not pairs and question is None and not system:
                system.append(text)
            elif role == "user" and question is None:
                question = text
            elif role == "assistant" and question is not None:
                pairs.append((question, text))
                question = None
            elif role == "system":
                what = f"a {role} message after others has no place in {self.name}"
                losses.drop("system messages", what, place)
            elif not lenient:
                is_first = role == "assistant" and question is None
                reason = "an answer without a question" if is_first else "roles do not alternate"
                raise NotRepresentableError(reason, place)
            else:
                losses.names.add(_TURNS)
                if role == "user":
                    question = text  # the answer belongs to the question directly before it
        if question is not None:
            if not lenient:
                raise NotRepresentableError("ends with the user")
            losses.names.add(_TURNS)
        _check_answered(pairs[-1:] if is_whole else pairs)
        return "".join(system), pairs

    def _text_of(self, message: dict[str, Any], place: str, losses: Losses) -> str | None:
        """Return the text of a message; None if it has no place and is left out."""
        role = message["role"]
        if role in ("tool", "developer"):
            missing = "tool results have" if role == "tool" else "the role developer has"
        elif "tool_calls" in message:
            missing = "tool calls have"
        elif (text := content_text(message["content"])) is None:
            is_empty = not message["content"]
            missing = "a message without content has" if is_empty else "content parts have"
        else:
            if len(message) > 2:
                losses.drop_keys(message.keys() - {"role", "content"}, self.name, place)
            return text
        losses.drop(message_kind(message), f"{missing} no place in {self.name}", place)
        return None


def _check_answered(pairs: list[tuple[str, str]]) -> None:
    if not pairs:
        raise NotRepresentableError("no question with an answer")
    if not any(map(all, pairs)):
        raise NotRepresentableError("an empty question or answer")


def _history(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        raise InvalidRecordError(f"history is not a list of pairs: {shown(value, 40)}")
    for position, pair in enumerate(value):
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(text, str) for text in pair)
        ):
            raise InvalidRecordError(f"history.{position} is not two texts: {shown(pair, 40)}")
    return [(user, assistant) for user, assistant in value]


def _split(question: str, context: str) -> tuple[str, str]:
    """Return the instruction and the input of a user message."""
    if context and question == context:
        return "", context
    return question.removesuffix(f"\n{context}") if context else question, context


class LlamaFactory(Alpaca):
    """The conversion of `llama_factory`: Alpaca, always with `history`."""

    name: str = "llama_factory"
    always_history: ClassVar[bool] = True
