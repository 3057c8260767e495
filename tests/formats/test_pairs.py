"""The formats `prompt-completion`, `preference` and `dpo`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage.errors import InvalidRecordError
from afterimage.storage.formats.pairs import pairs_by_score
from afterimage.storage.formats.registry import detect, shape_named
from afterimage.storage.formats.shape import Losses, NotRepresentableError, WriteOptions
from tests.formats.examples import (
    WHOLE,
    WHOLE_WITH_REASONING,
    assert_round_trip,
    full_texts,
    messages,
    odd_tools,
    others,
    records,
    texts,
    tools,
)

PREFERENCE, DPO = shape_named("preference"), shape_named("dpo")
PROMPT_COMPLETION = shape_named("prompt-completion")

USER = {"role": "user", "content": "Is there a night train?"}
YES = {"role": "assistant", "content": "Yes, there is one at 21:08."}
NO = {"role": "assistant", "content": "No, there is none at night."}
SYSTEM = {"role": "system", "content": "You sell tickets."}

PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": ("", {"prompt": [USER], "chosen": [YES], "rejected": [NO]}),
    "text": (
        "text",
        {"prompt": USER["content"], "chosen": YES["content"], "rejected": NO["content"]},
    ),
    "single messages": ("message", {"prompt": [USER], "chosen": YES, "rejected": NO}),
    "no prompt": ("implicit", {"chosen": [USER, YES], "rejected": [USER, NO]}),
    "no prompt in text": (
        "implicit text",
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
            "rejected": "\n\nHuman: Hi\n\nAssistant: No",
        },
    ),
    "repeated prompt": (
        "repeated",
        {"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]},
    ),
    "repeated prompt as text": (
        "repeated text",
        {"prompt": USER["content"], "chosen": [USER, YES], "rejected": [USER, NO]},
    ),
    "LLaMA-Factory's turns": (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": SYSTEM["content"]},
                {"from": "human", "value": USER["content"]},
            ],
            "chosen": {"from": "gpt", "value": YES["content"]},
            "rejected": {"from": "gpt", "value": NO["content"]},
        },
    ),
    "LLaMA-Factory's instructions": (
        "alpaca",
        {
            "instruction": USER["content"],
            "input": "",
            "chosen": YES["content"],
            "rejected": NO["content"],
        },
    ),
    "OpenAI's": (
        "openai",
        {
            "input": {"messages": [USER], "tools": [{"type": "function", "function": {}}]},
            "preferred_output": [YES],
            "non_preferred_output": [NO],
        },
    ),
    "the generator's": (
        "generated",
        {
            "prompt": USER["content"],
            "chosen": {"content": YES["content"], "score": 0.9, "variation_label": "low"},
            "rejected": {"content": NO["content"], "score": 0.1, "variation_label": "high"},
            "shared_prefix": [SYSTEM],
        },
    ),
}  # fmt: skip
ODD_PAIRS: dict[str, dict[str, Any]] = {
    "a label and nulls": {**PAIRS["text"][1], "margin": 0.5, "shared_prefix": None, "tools": None},
    "OpenAI's with another key": {
        **PAIRS["OpenAI's"][1],
        "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
    },
    "text and messages": {"prompt": USER["content"], "chosen": [YES], "rejected": NO["content"]},
    "an instruction with input": {
        **PAIRS["LLaMA-Factory's instructions"][1],
        "input": "From Cologne",
        "system": "You sell tickets.",
    },
    "the generator's with all messages": {
        "prompt": USER["content"],
        "chosen": {"content": "Yes", "score": 1.0, "messages": [SYSTEM, USER, YES]},
        "rejected": {"content": "No", "score": 0.0, "messages": [SYSTEM, USER, NO]},
        "shared_prefix": None,
        "metadata": {"all_scores": [{"score": 1.0}]},
    },
}

_plain = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts})
_sides = (
    texts
    | st.lists(messages(), min_size=1, max_size=2)
    | st.fixed_dictionaries({"role": st.just("assistant"), "content": texts})
    | st.fixed_dictionaries({"from": st.just("gpt"), "value": texts})
)
_rows = (
    st.fixed_dictionaries(
        {"chosen": _sides, "rejected": _sides},
        optional={
            "prompt": texts | st.lists(messages(), max_size=3),
            "tools": odd_tools,
            "system": texts,
        },
    )
    | st.builds(
        lambda prompt, chosen, rejected: {
            "prompt": prompt, "chosen": [*prompt, chosen], "rejected": [*prompt, rejected],
        },
        st.lists(messages(), max_size=3), messages(), messages(),
    )
    | st.fixed_dictionaries({"chosen": texts, "rejected": texts, "prompt": texts})
    | st.fixed_dictionaries(
        {
            "input": st.fixed_dictionaries(
                {"messages": st.lists(messages(), max_size=2)},
                optional={"tools": odd_tools, "parallel_tool_calls": st.booleans()},
            ),
            "preferred_output": st.lists(messages(), min_size=1, max_size=2),
            "non_preferred_output": st.lists(messages(), min_size=1, max_size=2),
        }
    )
)  # fmt: skip


def assert_pair_comes_back(name: str, row: dict[str, Any]) -> None:
    assert_round_trip(name, row, WHOLE if name == "dpo" else WHOLE_WITH_REASONING)


class TestPairsComeBack:
    @pytest.mark.parametrize(("layout", "row"), PAIRS.values(), ids=PAIRS)
    def test_known_layouts_need_only_their_name(self, layout: str, row: dict[str, Any]) -> None:
        assert_pair_comes_back("preference", row)
        assert_pair_comes_back("dpo", row)
        assert detect([row]).name == "preference"
        record = PREFERENCE.read(row)
        note = {"name": "preference", "layout": layout} if layout else None
        assert record["metadata"].get("source_format") == note
        assert record["chosen"][-1]["role"] == "assistant"
        assert record["prompt"] != record["chosen"]

    @pytest.mark.parametrize("row", ODD_PAIRS.values(), ids=ODD_PAIRS)
    def test_odd_ones_too(self, row: dict[str, Any]) -> None:
        assert_pair_comes_back("preference", row)
        assert_pair_comes_back("dpo", row)

    @given(_rows, others)
    def test_any_row_does(self, row: dict[str, Any], other: dict[str, Any]) -> None:
        assert_pair_comes_back("preference", {**other, **row})

    @given(
        st.lists(messages(["system", "user"]), min_size=1, max_size=3),
        messages(["assistant"]),
        messages(["assistant"]),
        st.lists(tools, max_size=1),
        others,
    )
    def test_any_record_does(
        self, prompt: Any, chosen: Any, rejected: Any, its_tools: Any, other: dict[str, Any]
    ) -> None:
        record = {"prompt": prompt, "chosen": [chosen], "rejected": [rejected], "metadata": other}
        if its_tools:
            record["tools"] = its_tools
        assert PREFERENCE.read(PREFERENCE.write(record, WHOLE_WITH_REASONING)[0]) == record

    @given(full_texts, texts, texts)
    def test_any_texts_do_in_dpo(self, prompt: str, chosen: str, rejected: str) -> None:
        row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        assert DPO.read(row)["metadata"] == {}
        assert DPO.write(DPO.read(row)) == [row]


class TestReadPairs:
    def test_the_common_beginning_is_the_prompt(self) -> None:
        for name in ("no prompt", "repeated prompt", "repeated prompt as text"):
            record = PREFERENCE.read(PAIRS[name][1])
            assert record["prompt"] == [USER]
            assert record["chosen"] == [YES]
            assert record["rejected"] == [NO]
        text = PREFERENCE.read(PAIRS["no prompt in text"][1])
        assert text["prompt"][0]["content"] == "\n\nHuman: Hi\n\nAssistant:"
        assert text["chosen"][0]["content"] == " Hello"

    def test_the_generators_pairs_have_their_whole_prompt(self) -> None:
        record = PREFERENCE.read(ODD_PAIRS["the generator's with all messages"])
        assert record["prompt"] == [SYSTEM, USER]
        assert record["chosen"] == [{"role": "assistant", "content": "Yes", "score": 1.0}]
        assert record["metadata"]["all_scores"] == [{"score": 1.0}]

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"prompt": "x", "chosen": "y"}, "no key 'rejected'"),
            ({"prompt": 5, "chosen": "y", "rejected": "z"}, "prompt is neither text nor messages"),
            ({"prompt": "x", "chosen": {"score": 1}, "rejected": "z"}, "chosen is neither text"),
            ({"preferred_output": []}, "no key 'input'"),
            (
                {"prompt": "x", "chosen": [{"role": "critic"}], "rejected": "z"},
                r"chosen\.0\.role is 'critic'",
            ),
        ],
    )
    def test_what_is_no_pair_is_refused_with_its_place(
        self, row: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(InvalidRecordError, match=reason):
            PREFERENCE.read(row)


class TestWritePairs:
    def test_a_pair_of_another_layout_is_written_as_messages(self) -> None:
        record = PREFERENCE.read(PAIRS["LLaMA-Factory's turns"][1])
        del record["metadata"]["source_format"]
        row = {"prompt": [SYSTEM, USER], "chosen": [YES], "rejected": [NO]}
        assert PREFERENCE.write(record) == [row]

    def test_dpo_puts_a_system_message_before_the_prompt_as_the_published_package_does(
        self,
    ) -> None:
        record = {"prompt": [USER], "chosen": [YES], "rejected": [NO], "metadata": {}}
        (row,) = DPO.write(record, WriteOptions(system_prompt="You sell tickets."))
        assert row["prompt"] == "You sell tickets.\n\nIs there a night train?"

    def test_what_dpo_has_no_place_for_is_refused_or_dropped(self) -> None:
        record = {
            "prompt": [USER, YES, USER],
            "chosen": [{**YES, "weight": 1}],
            "rejected": [NO],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "metadata": {},
        }
        with pytest.raises(NotRepresentableError, match="tools have no place in dpo"):
            DPO.write(record)
        del record["tools"]
        with pytest.raises(NotRepresentableError, match="more than one message on a side"):
            DPO.write(record)
        (row,) = DPO.write(record, WriteOptions(lossy=True))
        assert row == PAIRS["text"][1]

    def test_what_dpo_has_a_place_for_is_kept_if_lossy(self) -> None:
        said = {"role": "system", "content": "You sell tickets."}
        record = {"prompt": [said, USER], "chosen": [YES], "rejected": [NO], "metadata": {}}
        losses = Losses(allowed=True)
        assert DPO.write(record, WriteOptions(lossy=True), losses) == DPO.write(record)
        assert not losses.names
        for side in ([USER], [{"role": "assistant", "content": None}]):
            with pytest.raises(NotRepresentableError) as raised:
                DPO.write({**record, "chosen": side}, WriteOptions(lossy=True))
            assert not raised.value.is_loss

    def test_a_conversation_is_no_pair(self) -> None:
        with pytest.raises(NotRepresentableError, match="a conversation has no place in prefer"):
            PREFERENCE.write({"conversations": [USER, YES], "metadata": {}})


class TestPromptCompletion:
    @given(
        st.fixed_dictionaries(
            {"prompt": texts, "completion": texts}
            | {"prompt": texts | st.lists(messages(["system", "user"]), min_size=1, max_size=2)},
            optional={"tools": odd_tools, "label": st.booleans()},
        ),
        st.booleans(),
    )
    def test_any_row_comes_back(self, row: dict[str, Any], as_message: bool) -> None:
        if as_message:
            row["completion"] = [{"role": "assistant", "content": row["completion"]}]
        assert_round_trip("prompt-completion", row, WHOLE_WITH_REASONING)

    @given(records())
    def test_any_record_comes_back(self, record: dict[str, Any]) -> None:
        (row,) = PROMPT_COMPLETION.write(record, WHOLE_WITH_REASONING)
        assert PROMPT_COMPLETION.read(row) == record
        assert all(message["role"] != "user" for message in row["completion"])

    def test_text_is_written_as_text_and_known_by_its_keys(self) -> None:
        row = {"prompt": "Hi", "completion": "Hello", "label": True}
        assert detect([row]).name == "prompt-completion"
        record = PROMPT_COMPLETION.read(row)
        assert record["metadata"]["source_format"] == {
            "name": "prompt-completion",
            "layout": "text",
        }
        assert PROMPT_COMPLETION.write(record, WHOLE) == [row]
        record["conversations"].append({"role": "user", "content": "Bye"})
        with pytest.raises(NotRepresentableError, match="ends with the user"):
            PROMPT_COMPLETION.write(record)
        (row,) = PROMPT_COMPLETION.write(record, WriteOptions(trim=True))
        assert row == {"prompt": "Hi", "completion": "Hello"}


def published_pairs(records: list[dict[str, Any]], gap: float) -> list[tuple[str, str, str]]:
    """The pairs of the published package, as its exporter makes them."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for record in records:
        said, score = record["conversations"], record["final_score"]
        if score is None or len(said) < 2:
            continue
        user = next(
            (one["content"] for one in said if one["role"] == "user" and one["content"]), ""
        )
        answer = ([one["content"] for one in said if one["role"] == "assistant"] or [""])[-1]
        if user and answer:
            groups.setdefault(user, []).append((float(score), answer))
    found = []
    for user, answers in groups.items():
        answers.sort(key=lambda one: one[0], reverse=True)
        if len(answers) > 1 and answers[0][0] - answers[-1][0] >= gap:
            found.append((user, answers[0][1], answers[-1][1]))
    return found


class TestPairsByScore:
    @given(
        st.lists(
            st.fixed_dictionaries(
                {
                    "conversations": st.lists(
                        st.fixed_dictionaries(
                            {
                                "role": st.sampled_from(["user", "assistant"]),
                                "content": st.sampled_from(["", "a", "b"]),
                            }
                        ),
                        max_size=4,
                    ),
                    "final_score": st.none() | st.sampled_from([0, 0.1, 0.5, 1]),
                }
            ),
            max_size=8,
        ),
        st.sampled_from([0.1, 0.2, 0.5]),
    )
    def test_they_are_those_of_the_published_package(
        self, records: list[dict[str, Any]], gap: float
    ) -> None:
        found = [
            tuple(pair[side][0]["content"] for side in ("prompt", "chosen", "rejected"))
            for pair in pairs_by_score(records, gap)
        ]
        assert found == published_pairs(records, gap)
        for pair in pairs_by_score(records, gap):
            assert len(DPO.write(pair)) == 1
