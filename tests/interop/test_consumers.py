"""Training tools take the files that exports write, checked by their own code.

`docs/training-formats.md` has a table of what each of them takes. The libraries are in the extra
`libraries`, and CI's session of that name has them all, and TRL without its dependencies.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import ChatConversation, PreferencePair, SQLStorage
from afterimage.storage.formats.registry import PAIRS, WRITABLE
from tests.interop.test_other_libraries import datasets

__all__ = ["datasets"]  # the fixture

FORMATS = sorted({*WRITABLE} - {"native", "raw"})
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "trains", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "trains", "parameters": {"type": "object"}}}]
CALLING = [
    {"role": "system", "content": "You sell tickets."},
    {"role": "user", "content": "A night train?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "21:08", "tool_call_id": "abcdefgh1", "name": "trains"},
    {"role": "assistant", "content": "Yes, at 21:08."},
]
ASKED = [{"role": "user", "content": "Hi"}]
ANSWER = [{"role": "assistant", "content": "Hello"}]


@pytest.fixture
def store() -> SQLStorage:
    """Conversations with and without tools, and a pair."""
    found = SQLStorage("duckdb:///:memory:")
    plain: Any = [*ASKED, *ANSWER]
    found.save_conversations(
        [
            ChatConversation.model_validate({"conversations": CALLING, "tools": TOOLS}),
            *(ChatConversation(conversations=plain, metadata={"n": n}) for n in range(9)),
            PreferencePair.model_validate(
                {
                    "prompt": ASKED,
                    "chosen": ANSWER,
                    "rejected": [{"role": "assistant", "content": "What?"}],
                }
            ),
        ]
    )
    return found


def written(store: SQLStorage, path: Path, name: str) -> list[Any]:
    """Export as JSON lines and, beside it, as Parquet; return the rows."""
    store.export_jsonl(path, format=name, lossy=True)
    store.export_parquet(path.with_suffix(".parquet"), format=name, lossy=True)
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [*map(without_nulls, value)] if isinstance(value, list) else value


class TestHuggingFaceDatasets:
    @pytest.mark.parametrize("streaming", [False, True])
    @pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
    def test_every_format(
        self, datasets: Any, store: SQLStorage, tmp_path: Path, suffix: str, streaming: bool
    ) -> None:
        for name in FORMATS:
            rows = written(store, tmp_path / f"{name}.jsonl", name)
            found = datasets.load_dataset(
                "json" if suffix == "jsonl" else "parquet",
                data_files=str(tmp_path / f"{name}.{suffix}"),
                split="train",
                streaming=streaming,
                cache_dir=str(tmp_path / "cache"),
            )
            assert [without_nulls(row) for row in found] == without_nulls(rows)

    @pytest.mark.parametrize("streaming", [False, True])
    def test_parquet_has_fields_that_first_appear_late(
        self, datasets: Any, tmp_path: Path, streaming: bool
    ) -> None:
        store = SQLStorage("duckdb:///:memory:")
        long: Any = [{"role": "user", "content": "a" * 60_000}, *ANSWER]
        last = {"conversations": CALLING, "tools": TOOLS, "metadata": {"late": 1}}
        talks = [ChatConversation(conversations=long) for _ in range(200)]
        store.save_conversations([*talks, ChatConversation.model_validate(last)])
        path = str(tmp_path / "late.parquet")
        store.export_parquet(path, format="messages", columns=["metadata.*"])
        found = datasets.load_dataset(
            "parquet",
            data_files=path,
            split="train",
            streaming=streaming,
            cache_dir=str(tmp_path / "cache"),
        )
        *_, row = found
        assert (row["late"], row["messages"][2]["tool_calls"]) == (1, [CALL])

    def test_a_dataset_is_imported(self, datasets: Any, tmp_path: Path, store: SQLStorage) -> None:
        rows = written(store, tmp_path / "train.jsonl", "messages")
        other = SQLStorage("duckdb:///:memory:")
        other.import_arrow(datasets.Dataset.from_list(rows[1:]), format="auto")
        other.import_arrow(
            datasets.Dataset.from_parquet(
                str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache")
            ),
            format="messages",
        )
        again = written(other, tmp_path / "again.jsonl", "messages")
        assert without_nulls(again) == without_nulls([*rows[1:], *rows])


class TestOtherSources:
    def test_frames_and_relations_with_messages(self, store: SQLStorage, tmp_path: Path) -> None:
        import duckdb
        import pandas as pd  # type: ignore[import-untyped]
        import polars as pl

        rows = written(store, tmp_path / "train.jsonl", "messages")
        path = str(tmp_path / "train.parquet")
        for source in (pl.read_parquet(path), duckdb.read_parquet(path), pd.read_parquet(path)):
            other = SQLStorage("duckdb:///:memory:")
            assert other.import_arrow(source, format="messages") == len(rows)
            # Without the type of Hugging Face, tools are JSON text, which `messages` would keep.
            again = written(other, tmp_path / "again.jsonl", "oumi")
            assert without_nulls(again) == without_nulls(rows)


@pytest.fixture(scope="module")
def trl() -> Any:
    """TRL's functions for datasets, in a module that does not import PyTorch as `trl` does."""
    for library in ("transformers", "jinja2"):
        pytest.importorskip(library, reason=f"{library} is in the extra `libraries`")
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("trl is installed by: python3 noxfile.py -s libraries")
    path = Path(spec.submodule_search_locations[0], "data_utils.py")
    found = importlib.util.spec_from_file_location("trl_data_utils", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}[{{ call.function.name }}]{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(trl: Any) -> Any:
    """A tokenizer with a chat template and a vocabulary of one word."""
    tokenizers, transformers = map(pytest.importorskip, ("tokenizers", "transformers"))
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=words)
    found.chat_template = TEMPLATE
    return found


class TestTRL:
    @pytest.mark.parametrize("name", ["messages", "prompt-completion", "preference"])
    def test_rows_are_conversational(
        self, trl: Any, store: SQLStorage, tmp_path: Path, name: str
    ) -> None:
        rows = written(store, tmp_path / "train.jsonl", name)
        assert rows
        assert all(map(trl.is_conversational, rows))
        assert all(trl.maybe_extract_prompt(row) == row for row in rows)

    def test_the_chat_template_is_applied(
        self, trl: Any, tokenizer: Any, store: SQLStorage, tmp_path: Path
    ) -> None:
        rows = written(store, tmp_path / "train.jsonl", "messages")
        first = trl.maybe_apply_chat_template(rows[0], tokenizer, tools=rows[0]["tools"])["text"]
        assert first == (
            "<system>You sell tickets.<user>A night train?<assistant>[trains]<tool>21:08"
            "<assistant>Yes, at 21:08."
        )
        (pair,) = written(store, tmp_path / "pairs.jsonl", "preference")
        assert trl.maybe_apply_chat_template(pair, tokenizer) == {
            "prompt": "<user>Hi<assistant>",
            "chosen": "Hello",
            "rejected": "What?",
        }

    def test_sharegpt_is_converted(self, trl: Any, store: SQLStorage, tmp_path: Path) -> None:
        rows = written(store, tmp_path / "train.jsonl", "sharegpt")
        assert all(map(trl.is_conversational_from_value, rows))
        assert trl.maybe_convert_to_chatml(rows[1]) == {
            "messages": [{"role": "human", "content": "Hi"}, {"role": "gpt", "content": "Hello"}]
        }


class TestMistral:
    @pytest.mark.parametrize("name", ["messages", "openai"])
    def test_the_validator_for_fine_tuning_takes_rows(
        self, store: SQLStorage, tmp_path: Path, name: str
    ) -> None:
        reason = "mistral-common is in the extra `libraries`"
        validator = pytest.importorskip("mistral_common.protocol.instruct.validator", reason=reason)
        request = pytest.importorskip("mistral_common.protocol.instruct.request")
        checks = validator.MistralRequestValidatorV3(validator.ValidationMode.finetuning)
        rows = written(store, tmp_path / "train.jsonl", name)
        for row in rows:
            made = request.ChatCompletionRequest.from_openai(**row)
            assert len(checks.validate_request(made).messages) == len(row["messages"])
        # Other ids than of nine letters and digits are refused; exports write ids as they are.
        rows[0]["messages"][2]["tool_calls"][0]["id"] = "c1"
        with pytest.raises(Exception, match="c1"):
            checks.validate_request(request.ChatCompletionRequest.from_openai(**rows[0]))


class TestTogether:
    def test_the_check_of_files_takes_lines_and_not_text_as_parquet(
        self, store: SQLStorage, tmp_path: Path
    ) -> None:
        files = pytest.importorskip(
            "together.lib.utils", reason="together is in the extra `libraries`"
        )
        for name in FORMATS:
            path = tmp_path / f"{name}.jsonl"
            rows = written(store, path, name)
            report = files.check_file(path)
            assert (report["is_check_passed"], report["num_samples"]) == (True, len(rows))
            # It takes Parquet of token ids only.
            assert not files.check_file(path.with_suffix(".parquet"))["is_check_passed"]
        assert {*PAIRS} <= {*FORMATS}
