"""Files go both ways between JSONLStorage and the published `afterimage` package."""

from __future__ import annotations

import json
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import afterimage.storage
from afterimage.storage import (
    Conversation,
    Document,
    EvaluatedConversationWithContext,
    JSONLStorage,
)
from tests.support.plain_python import same
from tests.support.published import run
from tests.support.records import RatedConversation, conversation, evaluation

pytestmark = pytest.mark.process

RECORDS: list[Any] = [
    Conversation(conversations=[{"role": "user", "content": "Hi"}]),
    conversation("\u2028 é 😀 \x00", {"k": [1.0, None, {"": 2**70}]}, evaluation=evaluation()),
    conversation("b", persona="a pilot", final_score=None),
    RatedConversation(conversations=[], mood="calm"),
]
DOCUMENTS = [
    Document(id="a", text="\u2028", metadata={"k": {"l": [None]}}),
    Document(id="b", personas=[{"descriptions": ["x"]}]),
]


def as_the_package_loads(path: Path, model: type[BaseModel]) -> list[Any]:
    """Line by line, as text; Python's own lines end at newlines only."""
    with path.open(encoding="utf-8") as file:
        return [model(**json.loads(line.strip())) for line in file]


def as_the_package_saves(path: Path, records: list[BaseModel]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps(record.model_dump(), ensure_ascii=False) + "\n" for record in records
        )


@pytest.fixture
def storage(tmp_path: Path) -> JSONLStorage:
    return JSONLStorage(tmp_path / "conversations.jsonl", tmp_path / "documents.jsonl")


class TestByItsWay:
    def test_it_reads_what_we_write(self, storage: JSONLStorage) -> None:
        storage.save_conversations(RECORDS)
        storage.save_documents(DOCUMENTS)
        loaded = as_the_package_loads(storage.conversations_path, EvaluatedConversationWithContext)
        assert same(loaded, storage.load_conversations())
        assert loaded[1] == RECORDS[1]
        assert as_the_package_loads(storage.documents_path, Document) == DOCUMENTS

    def test_we_read_what_it_writes(self, storage: JSONLStorage) -> None:
        as_the_package_saves(storage.conversations_path, list(RECORDS))
        storage.documents_path.write_text(
            "".join(document.model_dump_json() + "\n" for document in DOCUMENTS), "utf-8"
        )
        assert storage.load_conversations() == [
            EvaluatedConversationWithContext.model_validate(record.model_dump())
            for record in RECORDS
        ]
        assert storage.load_records(RatedConversation) == [RECORDS[3]]
        assert storage.load_documents() == DOCUMENTS

    def test_what_it_writes_for_values_that_are_no_finite_numbers(
        self, storage: JSONLStorage
    ) -> None:
        record = conversation("a", {"k": [float("nan"), float("inf")]}, final_score=-float("inf"))
        as_the_package_saves(storage.conversations_path, [record])
        assert same(storage.load_conversations(), [record])
        assert storage.count_conversations([("final_score", "<", 0)]) == 1

    def test_both_append_to_one_file(self, storage: JSONLStorage) -> None:
        storage.save_conversations([RECORDS[1]])
        with storage.conversations_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(RECORDS[2].model_dump(), ensure_ascii=False) + "\n")
        storage.save_conversations([RECORDS[1]])
        assert storage.load_conversations() == [RECORDS[1], RECORDS[2], RECORDS[1]]


class TestByThePackageItself:
    def test_it_loads_what_we_saved(self, published: str, storage: JSONLStorage) -> None:
        storage.save_conversations(RECORDS)
        storage.save_documents(DOCUMENTS)
        code = (
            "import json, sys, afterimage.storage as storage\n"
            "assert storage.__file__.endswith('storage.py')\n"
            "store = storage.JSONLStorage(*sys.argv[1:])\n"
            "records = store.load_conversations() + store.load_documents()\n"
            "print(json.dumps([record.model_dump() for record in records]))\n"
        )
        out = run(published, code, storage.conversations_path, storage.documents_path)
        expected = [*storage.load_conversations(), *storage.load_documents()]
        assert json.loads(out) == [record.model_dump(mode="json") for record in expected]

    def test_we_load_what_it_saved(self, published: str, storage: JSONLStorage) -> None:
        code = (
            "import sys, afterimage.storage as storage, afterimage.types as types\n"
            "store = storage.JSONLStorage(*sys.argv[1:])\n"
            "messages = [{'role': 'user', 'content': 'Hi \\u2028'}]\n"
            "store.save_conversations([types.ConversationWithContext(\n"
            "    conversations=messages, persona='a pilot', metadata={'n': 2**70})])\n"
            "store.save_conversations([types.StructuredGenerationRow[dict](\n"
            "    instruction='i', output={'k': 1})])\n"
            "store.save_documents([types.Document(id='d', text='x')])\n"
        )
        run(published, code, storage.conversations_path, storage.documents_path)
        assert storage.load_conversations() == [
            EvaluatedConversationWithContext(
                conversations=[{"role": "user", "content": "Hi \u2028"}],
                persona="a pilot",
                metadata={"n": 2**70},
            )
        ]
        assert storage.load_documents() == [Document(id="d", text="x")]
        assert storage.count_conversations() == 1


class TestInstalledBesideIt:
    def test_its_record_classes_are_ours_and_its_generators_get_our_storages(
        self, published: str, tmp_path: Path
    ) -> None:
        # As an installation lays them out: our folder `storage/` next to its module `storage.py`.
        found = "import importlib.util as u; print(u.find_spec('afterimage').origin)"
        both = tmp_path / "both"
        shutil.copytree(Path(run(published, found).strip()).parent, both / "afterimage")
        ours = Path(afterimage.storage.__file__).parent
        shutil.copytree(ours, both / "afterimage" / "storage")
        code = (
            # Behind everything else, what our own dependencies are installed in.
            "import sys; sys.path.insert(0, sys.argv[1]); sys.path.append(sys.argv[4])\n"
            "import afterimage, afterimage.storage as storage, afterimage.types as types\n"
            "assert storage.__file__.endswith('__init__.py'), storage.__file__\n"
            "assert storage.Role is types.Role and storage.Document is types.Document\n"
            "import afterimage.conversation_generator as user\n"
            "assert user.BaseStorage is storage.BaseStorage\n"
            "store = storage.JSONLStorage(sys.argv[2], sys.argv[3])\n"
            "talk = types.ConversationWithContext(conversations=[], metadata={'n': 1})\n"
            "store.save_conversations([talk])\n"
            "[found] = store.load_conversations()\n"
            "assert isinstance(found, types.EvaluatedConversationWithContext)\n"
            "print(found.metadata)\n"
        )
        libraries = Path(sysconfig.get_path("purelib"))
        out = run(published, code, both, tmp_path / "c.jsonl", tmp_path / "d.jsonl", libraries)
        assert out == "{'n': 1}\n"
