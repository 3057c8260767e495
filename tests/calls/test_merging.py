"""Two storages of either sort are merged and compared by the content of their records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    Conversation,
    Document,
    EvaluatedConversationWithContext,
    InvalidQueryError,
    JSONLStorage,
    SQLStorage,
    StorageError,
)
from tests.support.records import Line


def opened(sort: str, folder: Path, name: str) -> Any:
    if sort == "jsonl":
        return JSONLStorage(folder / f"{name}.jsonl", folder / f"{name}-documents.jsonl")
    return SQLStorage(folder / f"{name}.duckdb", metadata_fields=["n"])


@pytest.fixture(params=[("jsonl", "sql"), ("sql", "jsonl"), ("sql", "sql"), ("jsonl", "jsonl")])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any]:
    one, other = request.param
    return opened(one, tmp_path, "one"), opened(other, tmp_path, "other")


def talk(text: str, score: float | None = None, **metadata: Any) -> Any:
    words = [{"role": "user", "content": text}]
    return EvaluatedConversationWithContext(
        conversations=words, metadata=metadata, final_score=score
    )


class Own(Conversation):
    mood: str


class TestImport:
    def test_takes_all_kinds_and_skips_what_is_there(self, pair: tuple[Any, Any]) -> None:
        one, other = pair
        other.save_conversations([talk("a", 0.1), talk("b", n=2**70), Line(role="r", content="c")])
        other.save_conversations([Own(conversations=[], mood="calm")])
        other.save_documents([Document(id="d", text="x"), Document(id="e", text="y")])
        one.save_conversations([talk("a", n=7)])
        one.save_documents([Document(id="mine", text="y")])
        saved = one.import_store(other)
        assert (saved, saved.others) == (4, 1)
        assert one.load_conversations(filters={"metadata.n": 2**70}) == other.load_conversations(
            filters={"metadata.n": 2**70}
        )
        assert one.load_conversations(1)[0].metadata == {"n": 7}
        assert one.load_records(Own) == other.load_records(Own)
        assert [each.id for each in one.load_documents()] == ["mine", "d"]
        assert one.import_store(other) == 0
        assert one.import_store(other, skip_existing=False) == 6
        assert one.verify().ok or one.verify().duplicate_ids.count

    def test_a_storage_is_not_imported_into_itself(self, pair: tuple[Any, Any]) -> None:
        one, _ = pair
        one.save_conversations([talk("a")])
        with pytest.raises(InvalidQueryError, match="own file"):
            one.import_store(one)
        with pytest.raises(InvalidQueryError, match="must be a storage"):
            one.import_store("talks.jsonl")
        assert one.count_conversations() == 1

    def test_nothing_is_saved_if_one_kind_cannot_be_read(self, pair: tuple[Any, Any]) -> None:
        one, other = pair
        other.save_conversations([talk("a"), Line(role="r", content="c")])
        other.save_documents([Document(id="d", text="x")])
        if isinstance(other, JSONLStorage):
            with other.documents_path.open("a") as file:
                file.write("nonsense\n")
        else:
            with other.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE documents SET metadata = '[]'")
        for skip_existing in (True, False):
            with pytest.raises(StorageError):
                one.import_store(other, skip_existing=skip_existing)
            assert (one.count_conversations(), one.count_records(), one.count_documents()) == (
                *(0, 0, 0),
            )


class TestDiff:
    def test_counts_and_gives_the_records(self, pair: tuple[Any, Any]) -> None:
        one, other = pair
        one.save_conversations([talk(text, 0.5, n=1, m=[1]) for text in "aabcd"])
        other.save_conversations(
            [
                talk("e"),
                talk("d", 0.5, m=[1], n=1),
                talk("c", 0.6, n=1, m=[1]),
                talk("b", 0.5, n=2, m=[1]),
                talk("a", 0.5, n=1, m=[1]),
            ]
        )
        found = one.diff(other)
        assert (found.both, found.only_here, found.only_there, found.changed) == (4, 1, 1, 2)
        assert not found.equal

        def texts(part: Any) -> list[str]:
            return [each.conversations[0].content for each in found.records(part)]

        assert texts("only_here") == ["a"]
        assert texts("only_there") == ["e"]
        assert texts("changed_here") == ["b", "c"]
        assert texts("changed_there") == ["c", "b"]
        assert found.arrow("only_there").num_rows == 1
        assert found.as_dict()["changed"] == 2
        assert "only in" in str(found)
        with pytest.raises(InvalidQueryError):
            found.records("all")

    def test_equal_storages_have_no_difference(self, pair: tuple[Any, Any]) -> None:
        one, other = pair
        assert one.diff(other).equal
        one.save_conversations([talk("a", 0.1, n=1), talk("b"), Conversation(conversations=[])])
        one.save_documents([Document(id="a", text="x", metadata={"n": 1}), Document(id="b")])
        other.import_store(one)
        assert one.diff(other).equal
        assert one.diff(other, kind="documents").equal
        other.update_documents({"id": "a"}, {"n": 1.5})
        assert one.diff(other, kind="documents").changed == 1
        assert one.diff(other, filters={"metadata.n": 1}).both == 1

    def test_wrong_arguments_are_refused(self, pair: tuple[Any, Any]) -> None:
        one, other = pair
        with pytest.raises(InvalidQueryError):
            one.diff(other, kind="records")
        with pytest.raises(InvalidQueryError):
            one.diff(None)
