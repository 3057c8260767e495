"""The published generators save to our storages when both packages are installed.

They run as their users run them, in an environment of their own, against a model of the test's own
on the loopback interface. What they saved is read there, as their classes, and here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from afterimage.storage import (
    Conversation,
    Document,
    EvaluatedConversationWithContext,
    JSONLStorage,
    SQLStorage,
)
from tests.support.model_server import ModelServer, model_server
from tests.support.published import COMMAND, run

pytestmark = pytest.mark.process

DOCUMENTS = [
    {"id": "d1", "text": "Night trains \u2028 run daily."},
    {"id": "d2", "text": "Bicycles are taken \u0085 on all of them."},
]

CONFIG = """
generation: {{num_dialogs: 4, max_turns: 2, max_concurrency: 3}}
model: {{provider: local, model_name: tiny, base_url: "{base_url}"}}
respondent: {{system_prompt: "You sell tickets."}}
documents: {{provider: jsonl, path: documents.jsonl, preserve_ids: true}}
output: {{storage: {storage}, path: "{path}"{export}}}
analytics: {{auto_analyze: {analyze}}}
"""

# What the command line has no command for: structured rows, personas of documents, and judged
# conversations (whose judge would load a model of its own for embeddings, were it not told).
PROGRAM = """
import asyncio, json, sys
from pydantic import BaseModel
import afterimage.storage as storage
import afterimage.types as types
from afterimage import ConversationGenerator, PersonaGenerator, StructuredGenerator
from afterimage.callbacks import ContextualInstructionGeneratorCallback
from afterimage.providers.document_providers import JSONLDocumentProvider

assert storage.__file__.endswith('__init__.py'), storage.__file__
kind, base_url = sys.argv[1:]

def opened():
    if kind == 'sql':
        return storage.SQLStorage('duckdb:///talks.duckdb')
    return storage.JSONLStorage('talks.jsonl', 'saved_documents.jsonl')

class Ticket(BaseModel):
    destination: str
    price: float
    seats: list[int]
    bicycle: bool

store = opened()
model = dict(api_key='none', model_name='tiny', model_provider_name='local')
server = {'base_url': base_url}
documents = JSONLDocumentProvider(path_pattern='documents.jsonl', preserve_ids=True)
ask = ContextualInstructionGeneratorCallback(
    documents=documents, llm_create_extras=server, **model
)
common = dict(storage=store, llm_factory_kwargs=server, **model)
told = dict(correspondent_prompt='You ask.', instruction_generator_callback=ask)

async def main():
    structured = StructuredGenerator(Ticket, 'You sell tickets.', **told, **common)
    await structured.generate(num_samples=2, max_concurrency=1)
    await PersonaGenerator(**common).generate_from_documents(documents, n_iterations=1)
    judged = ConversationGenerator(
        respondent_prompt='You sell tickets.', auto_improve=True,
        embedding_provider_config={'type': 'openai', 'model': 'tiny', **server}, **told, **common,
    )
    await judged.generate(num_dialogs=1, max_concurrency=1)
    return judged.load_conversations()

talks = asyncio.run(main())
store = opened()
assert talks == store.load_conversations()
Row = types.StructuredGenerationRow[Ticket]
found = {
    'conversations': (talks, types.EvaluatedConversationWithContext),
    'documents': (store.load_documents(), types.Document),
    'rows': (store.load_records(Row), Row),
}
for records, wanted in found.values():
    assert {type(record) for record in records} == {wanted}
for talk in talks:
    assert {type(said) for said in talk.conversations} == {types.ConversationEntry}
    assert {type(said.role) for said in talk.conversations} == {types.Role}
    assert type(talk.evaluation) in (type(None), types.EvaluationSchema)
assert {type(row.output) for row in found['rows'][0]} == {Ticket}
lines = {key: [r.model_dump(mode='json') for r in it] for key, (it, _) in found.items()}
open('found.json', 'w').write(json.dumps(lines))
"""


class Ticket(BaseModel):
    destination: str
    price: float
    seats: list[int]
    bicycle: bool


class Row(BaseModel):
    """A model with the fields of the package's `StructuredGenerationRow[Ticket]`."""

    instruction: str
    context: str | None = None
    persona: str | None = None
    output: Ticket
    metadata: dict[str, Any] = {}


@dataclass(frozen=True)
class Generated:
    """A folder in which the generators have run."""

    kind: str
    folder: Path
    server: ModelServer
    there: dict[str, list[Any]]

    def store(self) -> SQLStorage | JSONLStorage:
        if self.kind == "sql":
            return SQLStorage(f"duckdb:///{self.folder / 'talks.duckdb'}")
        return JSONLStorage(self.folder / "talks.jsonl", self.folder / "saved_documents.jsonl")


@pytest.fixture(scope="module", params=["sql", "jsonl"])
def generated(
    request: pytest.FixtureRequest, beside: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Generated]:
    kind: str = request.param
    folder = tmp_path_factory.mktemp(kind)
    lines = "".join(json.dumps(document) + "\n" for document in DOCUMENTS)
    (folder / "documents.jsonl").write_text(lines, "utf-8")
    with model_server() as server:
        config = CONFIG.format(
            base_url=server.base_url,
            storage=kind,
            path="duckdb:///talks.duckdb" if kind == "sql" else "talks.jsonl",
            # Its hooks after a run expect the output to be a JSONL file.
            export=", export: {formats: [messages]}" if kind == "jsonl" else "",
            analyze=str(kind == "jsonl").lower(),
        )
        (folder / "config.yaml").write_text(config, "utf-8")
        options: dict[str, Any] = {"cwd": folder, "MPLBACKEND": "Agg"}
        told = run(beside, COMMAND, "generate", "-c", "config.yaml", **options)
        assert "Done!" in told
        run(beside, PROGRAM, kind, server.base_url, **options)
        there = json.loads((folder / "found.json").read_text("utf-8"))
        yield Generated(kind, folder, server, there)


class TestWhatTheGeneratorsSave:  # one class, so that one worker generates the data once
    def test_are_the_texts_of_the_model(self, generated: Generated) -> None:
        talks = generated.there["conversations"]
        # The command counts a conversation before it saves it, and cancels the saves that wait
        # when the fourth is counted: at least one is there, and a judged one.
        assert len(talks) >= 2
        said, thought = set(generated.server.said), set(generated.server.thought)
        contexts = {document["text"] for document in DOCUMENTS}
        for talk in talks:
            roles = [message["role"] for message in talk["conversations"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2) != []
            assert {message["content"] for message in talk["conversations"]} <= said
            assert talk["conversations"][1]["reasoning_content"] in thought
            assert any(context in talk["instruction_context"] for context in contexts)
            assert set(talk["metadata"]["context_ids"]) <= {"d1", "d2"} != set()

    def test_structured_rows(self, generated: Generated) -> None:
        rows = generated.there["rows"]
        assert len(rows) >= 2
        for row in rows:
            assert row["output"]["destination"] in generated.server.said
            assert row["output"] | {"destination": ""} == {
                "destination": "",
                "price": 0.9,
                "seats": [2**53 - 1, 2**53 - 1],
                "bicycle": True,
            }

    def test_documents_with_their_personas(self, generated: Generated) -> None:
        documents = sorted(generated.there["documents"], key=lambda document: str(document["id"]))
        assert [document["id"] for document in documents] == ["d1", "d2"]
        assert [document["text"] for document in documents] == [d["text"] for d in DOCUMENTS]
        said = set(generated.server.said)
        for document in documents:
            assert len(document["personas"]) > 1
            assert len(document["personas"][0]["descriptions"]) == 5
            for entry in document["personas"]:
                assert set(entry["descriptions"]) <= said

    def test_evaluations(self, generated: Generated) -> None:
        judged = [talk for talk in generated.there["conversations"] if talk["evaluation"]]
        assert judged != []
        for talk in judged:
            assert talk["evaluation"]["factuality"]["feedback"] in generated.server.said
            assert talk["final_score"] > 0.5

    def test_are_loaded_equal_here(self, generated: Generated) -> None:
        store = generated.store()
        here: dict[str, list[Any]] = {
            "conversations": store.load_conversations(),
            "documents": store.load_documents(),
            "rows": store.load_records(Row),
        }
        assert {
            kind: [record.model_dump(mode="json") for record in records]
            for kind, records in here.items()
        } == generated.there

    def test_can_be_queried_here(self, generated: Generated) -> None:
        store = generated.store()
        talks = generated.there["conversations"]
        graded = [("evaluation.overall_grade", "in", ["perfect", "good"])]
        assert store.count_conversations(graded) == sum(bool(t["evaluation"]) for t in talks) > 0
        of_first = sum(talk["metadata"]["context_id"] == "d1" for talk in talks)
        assert store.count_conversations({"metadata.context_id": "d1"}) == of_first

    def test_can_be_read_by_its_commands(self, generated: Generated, beside: str) -> None:
        path = generated.folder / "exported.jsonl"
        store = generated.store()
        count = store.export_jsonl(path)
        commands = """
from afterimage.cli import main
main(['analyze', '-i', 'exported.jsonl', '-o', 'report.html'], standalone_mode=False)
main(['export', '-i', 'exported.jsonl', '-f', 'messages'], standalone_mode=False)
"""
        run(beside, commands, cwd=generated.folder, MPLBACKEND="Agg")
        assert "<html" in (generated.folder / "report.html").read_text("utf-8")
        theirs = path.with_name("exported_messages.jsonl").read_text("utf-8")
        ours = generated.folder / "ours.jsonl"
        assert store.export_jsonl(ours, format="messages") == count
        assert list(map(json.loads, ours.read_text("utf-8").split("\n")[:-1])) == list(
            map(json.loads, theirs.split("\n")[:-1])
        )

    @pytest.mark.parametrize("generated", ["jsonl"], indirect=True)
    def test_can_be_read_by_its_hooks_after_a_run(self, generated: Generated) -> None:
        made = (generated.folder / "talks_messages.jsonl").read_text("utf-8").split("\n")[:-1]
        assert made != []
        talks = generated.there["conversations"]
        for line, talk in zip(made, talks, strict=False):
            wanted = [{k: said[k] for k in ("role", "content")} for said in talk["conversations"]]
            assert json.loads(line) == {"messages": wanted}
        assert "<html" in (generated.folder / "talks.html").read_text("utf-8")


class TestItsOwnCode:
    def test_a_subclass_of_the_jsonl_storage_that_reports_progress(
        self, beside: str, tmp_path: Path
    ) -> None:
        code = """
import asyncio
import afterimage.types as types
from afterimage.server.services.generation_service import _ProgressStorage
from afterimage.storage import JSONLStorage
assert issubclass(_ProgressStorage, JSONLStorage)
told = []
async def report(completed):
    told.append(completed)
async def main():
    store = _ProgressStorage('talks.jsonl', total=3, report_fn=report)
    talk = types.ConversationWithContext(conversations=[])
    await store.asave_conversations([talk])
    await store.asave_conversations([talk])
    await asyncio.to_thread(store.save_conversations, [talk])
    await asyncio.sleep(0)
    return store.load_conversations()
found = asyncio.run(main())
assert [type(talk) for talk in found] == [types.EvaluatedConversationWithContext] * 3
print(told)
"""
        assert json.loads(run(beside, code, cwd=tmp_path)) == [1, 2, 3]

    def test_its_quality_checks_read_either_storage(self, beside: str, tmp_path: Path) -> None:
        code = """
import json
import afterimage.storage as storage
import afterimage.types as types
# quality.py imports a name that no storage module has, not even the published one.
storage.DatasetStorage = storage.BaseStorage
from afterimage.quality import QualityChecker
talk = [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello!'}]
for store in (storage.SQLStorage('duckdb:///:memory:'), storage.JSONLStorage('talks.jsonl')):
    store.save_conversations([types.ConversationWithContext(conversations=talk)] * 2)
    checker = QualityChecker(store, min_length=3, embedding_model=object())
    lengths = checker.check_length_distribution()
    balance = checker.check_turn_balance()
    print(json.dumps([
        {role.value: int(found['max']) for role, found in lengths.items()},
        {role.value: share for role, share in balance.items()},
    ]))
"""
        lines = run(beside, code, cwd=tmp_path, MPLBACKEND="Agg").splitlines()
        wanted = [{"user": 2, "assistant": 6}, {"user": 0.5, "assistant": 0.5}]
        assert [json.loads(line) for line in lines] == [wanted, wanted]


class TestWithoutThem:
    def test_the_classes_here_are_our_own(self) -> None:
        for model in (Conversation, Document, EvaluatedConversationWithContext):
            assert model.__module__ == "afterimage.storage.models"
