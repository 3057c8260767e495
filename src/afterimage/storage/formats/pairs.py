"""Prompts with completions, and preference pairs: of TRL, OpenAI, LLaMA-Factory, the generator.

A side is text, a message or messages; the layouts are the ways in which files have them. A prompt
with a completion is a conversation; a preference pair is a record of its own kind. The invariant: a
pair's prompt is in neither of its sides.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from afterimage.storage.errors import InvalidRecordError, shown
from afterimage.storage.formats.alpaca import question_of
from afterimage.storage.formats.edits import json_text
from afterimage.storage.formats.messages import after_system, content_text, messages_of
from afterimage.storage.formats.shape import Losses, NotRepresentableError, message_kind
from afterimage.storage.formats.sharegpt import turn_of, turns_of
from afterimage.storage.formats.tool_calls import flat_tool, record_tools

__all__ = ["DPO", "Preference", "PromptCompletion", "pairs_by_score"]

Message = dict[str, Any]


def _side(value: Any, place: str, role: str) -> list[Message]:
    """Return the messages of a side: text, a message, a turn, or a list of messages or turns."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise InvalidRecordError(f"{place} is neither text nor messages: {shown(value, 40)}")
    if items and all(isinstance(item, dict) and "from" in item for item in items):
        return [turn_of(turn, f"{place}.{position}") for position, turn in enumerate(items)]
    return messages_of(items, place)


def _plain_text(messages: list[Message], role: str, name: str) -> str:
    """Return the text of a side that is one plain message of a role."""
    if len(messages) != 1 or messages[0]["role"] != role:
        raise NotRepresentableError(
            f"more than one message on a side has no place in {name}", is_loss=True
        )
    (message,) = messages
    if len(message) != 2 or not isinstance(message["content"], str):
        raise NotRepresentableError(
            f"a message that is not plain text has no place in {name}", is_loss=True
        )
    return message["content"]


class PromptCompletion:
    """The conversion of `prompt-completion`.

    The completion is what follows the last user message. Layout "text" has text on both sides.
    """

    name: str = "prompt-completion"
    required: tuple[str, ...] = ("prompt", "completion")
    keys: frozenset[str] = frozenset({"prompt", "completion", "tools"})
    aliases: Mapping[str, str] = {}
    parts: tuple[str, ...] = ("conversations", "tools")
    layouts: tuple[str, ...] = ("text",)
    has_reasoning: bool = True
    can_write: bool = True

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the messages of both sides, and the tools."""
        prompt = _side(row["prompt"], "prompt", "user")
        completion = _side(row["completion"], "completion", "assistant")
        record = {"conversations": [*prompt, *completion]}
        if "tools" in row and (tools := record_tools(row["tools"])):
            record["tools"] = tools
        return record

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Return the row of a record."""
        del losses  # nothing is left out
        messages = record["conversations"]
        if messages[-1]["role"] != "assistant":
            raise NotRepresentableError(f"ends with the {messages[-1]['role']}")
        start = len(messages) - 1
        while start and messages[start - 1]["role"] in ("assistant", "tool"):
            start -= 1
        sides: tuple[Any, Any] = messages[:start], messages[start:]
        if layout == "text":
            sides = (
                _plain_text(sides[0], "user", self.name),
                _plain_text(sides[1], "assistant", self.name),
            )
        row = {"prompt": sides[0], "completion": sides[1]}
        if "tools" in record:
            row["tools"] = record["tools"]
        return row


class Preference:
    """The conversion of `preference`: what is preferred, and what is not, to the same prompt.

    Usually a row has `prompt`, `chosen` and `rejected` as messages, as of TRL. The layouts:

    - "text": text instead of messages;
    - "message": the sides are one message each;
    - "implicit", "implicit text": there is no prompt, and both sides begin with it;
    - "repeated", "repeated text": there is one, and both sides begin with it;
    - "sharegpt": `conversations` and sides are turns, as of LLaMA-Factory;
    - "alpaca": the prompt is `instruction` and `input`, as there;
    - "openai": `input`, `preferred_output` and `non_preferred_output`, as of OpenAI;
    - "generated": `prompt`, `shared_prefix` and sides with `score`, as the generator writes them.
    """

    name: str = "preference"
    # None is in every layout; `record` checks.
    required: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset(
        {
            "prompt",
            "chosen",
            "rejected",
            "tools",
            "system",
            "conversations",
            "instruction",
            "input",
            "preferred_output",
            "non_preferred_output",
            "shared_prefix",
        }
    )
    aliases: Mapping[str, str] = {"conversation": "conversations", "system_prompt": "system"}
    parts: tuple[str, ...] = ("prompt", "chosen", "rejected", "tools")
    layouts: tuple[str, ...] = (
        "text",
        "message",
        "implicit",
        "implicit text",
        "repeated",
        "repeated text",
        "sharegpt",
        "alpaca",
        "openai",
        "generated",
    )
    has_reasoning: bool = True
    can_write: bool = True

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the prompt, both sides, and the tools."""
        tools = row.get("tools")
        if "preferred_output" in row or "non_preferred_output" in row:
            asked = _needed(row, "input")
            if not isinstance(asked, dict):
                raise InvalidRecordError(f"input is {shown(asked, 40)}; it must be an object")
            prompt = _side(_needed(asked, "messages"), "input.messages", "user")
            chosen = _side(_needed(row, "preferred_output"), "preferred_output", "assistant")
            rejected = _side(
                _needed(row, "non_preferred_output"), "non_preferred_output", "assistant"
            )
            tools = asked.get("tools", tools)
        else:
            prompt, chosen, rejected = _prompt_and_sides(row)
        if "system" in row:
            prompt = after_system(row["system"], prompt)
        record: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        if tools is not None and (its := record_tools(tools)):
            record["tools"] = its
        return record

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Return the row of a record."""
        prompt, sides = record["prompt"], (record["chosen"], record["rejected"])
        if not all(sides):
            raise NotRepresentableError("a side without messages")
        asked = _written_prompt(prompt, layout, self.name, losses)
        chosen, rejected = (
            _written_side(prompt, side, layout, self.name, losses) for side in sides
        )
        if layout == "openai":
            if "tools" in record:
                asked["input"]["tools"] = record["tools"]
            return {**asked, "preferred_output": chosen, "non_preferred_output": rejected}
        row = {**asked, "chosen": chosen, "rejected": rejected}
        if "tools" in record:
            tools = record["tools"]
            row["tools"] = json_text([*map(flat_tool, tools)]) if layout == "sharegpt" else tools
        return row


def _written_prompt(
    prompt: list[Message], layout: str, name: str, losses: Losses
) -> dict[str, Any]:
    """Return the keys with the prompt."""
    match layout:
        case "implicit" | "implicit text":
            return {}
        case "sharegpt":
            return {"conversations": turns_of(prompt, losses, "separate")}
        case "alpaca":
            return {"instruction": _plain_text(prompt, "user", name), "input": ""}
        case "openai":
            return {"input": {"messages": prompt}}
        case "generated":
            last = _plain_text(prompt[-1:], "user", name)
            before = {"shared_prefix": prompt[:-1]} if prompt[:-1] else {}
            return {"prompt": last, **before}
        case "text" | "repeated text":
            return {"prompt": _plain_text(prompt, "user", name)}
        case _:
            return {"prompt": prompt}


def _written_side(
    prompt: list[Message], side: list[Message], layout: str, name: str, losses: Losses
) -> Any:
    """Return a side after a prompt."""
    match layout:
        case "text" | "alpaca":
            return _plain_text(side, "assistant", name)
        case "implicit text":
            start = _plain_text(prompt, "user", name) if prompt else ""
            return start + _plain_text(side, "assistant", name)
        case "implicit" | "repeated" | "repeated text":
            return [*prompt, *side]
        case "message":
            return _only(side, name)
        case "sharegpt":
            turns = turns_of(side, losses, "separate")
            return turns[0] if len(turns) == 1 else turns
        case "generated":
            return _response(side, name)
        case _:
            return side


def _needed(row: Mapping[str, Any], key: str) -> Any:
    if row.get(key) is None:
        raise InvalidRecordError(f"no key {key!r}, which a preference pair needs")
    return row[key]


def _only(side: list[Message], name: str) -> Message:
    if len(side) != 1:
        raise NotRepresentableError(
            f"more than one message on a side has no place in {name}", is_loss=True
        )
    return side[0]


def _response(side: list[Message], name: str) -> dict[str, Any]:
    """Return a side as the generator's `ScoredResponse`, which has no role."""
    message = _only(side, name)
    if message["role"] != "assistant":
        raise NotRepresentableError("a side that is not an answer")
    return {key: value for key, value in message.items() if key != "role"}


def _prompt_and_sides(row: dict[str, Any]) -> tuple[list[Message], list[Message], list[Message]]:
    given = _needed(row, "chosen"), _needed(row, "rejected")
    if isinstance(given[0], dict) and not given[0].keys() & {"role", "from"}:
        return _generated(row, *given)
    if "prompt" in row:
        prompt = _side(row["prompt"], "prompt", "user")
    elif "conversations" in row:
        prompt = _side(row["conversations"], "conversations", "user")
    elif "instruction" in row:
        prompt = [{"role": "user", "content": question_of(row)}]
    elif isinstance(given[0], str) and isinstance(given[1], str):
        start = _common_text(*given)
        prompt = [{"role": "user", "content": start}] if start else []
        given = given[0][len(start) :], given[1][len(start) :]
    else:
        prompt = []
    chosen = _side(given[0], "chosen", "assistant")
    rejected = _side(given[1], "rejected", "assistant")
    if not row.keys() & {"prompt", "conversations", "instruction"} and not prompt:
        prompt = _common_messages(chosen, rejected)
    # A prompt that both sides repeat, as in UltraFeedback's files, or that they alone have.
    length = len(prompt)
    if (
        length
        and length < min(len(chosen), len(rejected))
        and chosen[:length] == prompt == rejected[:length]
    ):
        return prompt, chosen[length:], rejected[length:]
    return prompt, chosen, rejected


def _generated(
    row: dict[str, Any], chosen: Any, rejected: Any
) -> tuple[list[Message], list[Message], list[Message]]:
    """Read the generator's pair: sides with `content`, `score` and perhaps all `messages`."""
    prompt = [
        *messages_of(row.get("shared_prefix", []), "shared_prefix"),
        *_side(_needed(row, "prompt"), "prompt", "user"),
    ]
    if isinstance(said := chosen.get("messages"), list) and len(said) > 1:
        prompt = messages_of(said[:-1], "chosen.messages")
    return prompt, _answer(chosen, "chosen"), _answer(rejected, "rejected")


def _answer(side: Any, place: str) -> list[Message]:
    if not (isinstance(side, dict) and isinstance(side.get("content"), str)):
        raise InvalidRecordError(f"{place} is neither text nor messages: {shown(side, 40)}")
    others = {k: v for k, v in side.items() if k not in ("role", "messages") and v is not None}
    return messages_of([{"role": "assistant", **others}], place)


_ASSISTANT: Final = "\n\nAssistant:"


def _common_text(chosen: str, rejected: str) -> str:
    """Return the prompt that two texts begin with.

    It ends where the assistant speaks, as in Anthropic's files, or with a whole word.
    """
    common = os.path.commonprefix([chosen, rejected])  # noqa: RUF071  characters are meant
    end = common.rfind(_ASSISTANT)
    if end >= 0:
        return common[: end + len(_ASSISTANT)]
    return common[: max(common.rfind(" "), common.rfind("\n")) + 1]


def _common_messages(chosen: list[Message], rejected: list[Message]) -> list[Message]:
    length, most = 0, min(len(chosen), len(rejected)) - 1
    while length < most and chosen[length] == rejected[length]:
        length += 1
    return chosen[:length]


class DPO(Preference):
    """The conversion of `dpo`: a pair as three texts, as the published package exports it.

    A system message is put before the prompt, with an empty line between them, as there.
    """

    name: str = "dpo"
    layouts: tuple[str, ...] = ("messages", *Preference.layouts[1:])
    has_reasoning: bool = False

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Return the row of a record."""
        if layout:
            return super().row(record, losses, layout)
        prompt, chosen, rejected = record["prompt"], record["chosen"], record["rejected"]
        if not (chosen and rejected):
            raise NotRepresentableError("a side without messages")
        if "tools" in record:
            losses.drop("tools", "tools have no place in dpo")
        if losses.allowed:
            asked = [message for message in prompt if message["role"] == "user"]
            if not asked or any(side[-1]["role"] != "assistant" for side in (chosen, rejected)):
                raise NotRepresentableError("no question, or a side that is not an answer")
            first = [message for message in prompt[:1] if message["role"] == "system"]
            kept = [*first, asked[-1]], chosen[-1:], rejected[-1:]
            for whole, some in zip((prompt, chosen, rejected), kept, strict=True):
                _drop_others(whole, some, losses)
            prompt, chosen, rejected = ([_bare(one, losses) for one in some] for some in kept)
        system = ""
        if len(prompt) == 2 and prompt[0]["role"] == "system":
            system = _plain_text(prompt[:1], "system", self.name) + "\n\n"
            prompt = prompt[1:]
        return {
            "prompt": system + _plain_text(prompt, "user", self.name),
            "chosen": _plain_text(chosen, "assistant", self.name),
            "rejected": _plain_text(rejected, "assistant", self.name),
        }


def _drop_others(whole: list[Message], kept: list[Message], losses: Losses) -> None:
    for message in whole:
        if not any(message is one for one in kept):
            losses.drop(message_kind(message), "more than one message on a side")
    for message in kept:
        losses.drop_keys(message.keys() - {"role", "content"}, "dpo", "")


def _bare(message: Message, losses: Losses) -> Message:
    """Return a message with only its role and the text of its content."""
    content = message["content"]
    text = content_text(content)
    if text is None:
        if not content:
            raise NotRepresentableError("a message without content")
        losses.drop("content parts", "content parts have no place in dpo")
        text = "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return {"role": message["role"], "content": text}


def pairs_by_score(
    records: Iterable[Mapping[str, Any]], min_score_gap: float = 0.2
) -> Iterator[dict[str, Any]]:
    """Pair conversations that begin with the same question, as the published package's `dpo` does.

    The answer of the best score is chosen and that of the worst is rejected. Conversations without
    a score, a question or an answer are passed over. The memory is that of two answers a question.

    Args:
        records: conversations with `final_score`.
        min_score_gap: how much better the chosen answer is at least.

    >>> talks = [
    ...     {"conversations": [{"role": "user", "content": "Hi"},
    ...                        {"role": "assistant", "content": answer}], "final_score": score}
    ...     for answer, score in (("Hello", 0.9), ("What?", 0.1))
    ... ]
    >>> [pair["chosen"][0]["content"] for pair in pairs_by_score(talks)]
    ['Hello']
    """
    found: dict[str, list[tuple[float, str]]] = {}
    for record in records:
        score, messages = record.get("final_score"), record.get("conversations") or []
        texts = [one for one in messages if isinstance(one.get("content"), str)]
        questions = (one["content"] for one in texts if one["role"] == "user" and one["content"])
        answers = [one["content"] for one in texts if one["role"] == "assistant"][-1:]
        question = next(questions, None)
        if score is None or question is None or not (answers and answers[0]):
            continue
        this = (float(score), answers[0])
        best, worst = found.get(question) or (this, this)
        # Of equal scores, the first is the best and the last the worst, as after a stable sort.
        best = this if this[0] > best[0] else best
        worst = this if this[0] <= worst[0] else worst
        found[question] = [best, worst]
    for question, (best, worst) in found.items():
        if best is not worst and best[0] - worst[0] >= min_score_gap:
            yield {
                "prompt": [{"role": "user", "content": question}],
                "chosen": [{"role": "assistant", "content": best[1]}],
                "rejected": [{"role": "assistant", "content": worst[1]}],
                "metadata": {"chosen_score": best[0], "rejected_score": worst[0]},
            }
