"""Thousands of real conversations: in through every door, out equal, and queried like a list."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from pydantic_core import from_json

from afterimage.storage import EvaluatedConversationWithContext, JSONLStorage, SQLStorage
from tests.support.factories import Storage
from tests.support.plain_python import select_rows, with_rows

pytestmark = pytest.mark.slow

SGD = Path(
    os.environ.get("AFTERIMAGE_SGD")
    or Path(__file__).parents[3].parent / "shared/data/sgd_train_conversations.jsonl.gz"
)


def sgd() -> list[Any]:
    if not SGD.is_file():
        pytest.skip(f"{SGD.name} is not here; name it in AFTERIMAGE_SGD")
    with gzip.open(SGD, "rb") as file:
        return [EvaluatedConversationWithContext(**from_json(line)) for line in file]


def chitchat() -> list[Any]:
    pytest.importorskip("chitchat_dataset")
    from afterimage.storage.demo import chitchat_conversations

    return [
        EvaluatedConversationWithContext(**record.model_dump())
        for record in chitchat_conversations()
    ]


QUERIES: dict[str, list[dict[str, Any]]] = {
    "sgd": [
        {
            "filters": {"metadata.domain": "Flights"},
            "order_by": [("metadata.n_actions", -1)],
            "limit": 100,
            "offset": 100,
        },
        {"order_by": [("metadata.n_actions", -1)], "limit": 100, "offset": 100},
        {"limit": 100, "offset": 12_100},
        {
            "order_by": [("metadata.domain", "desc"), ("metadata.multi_domain", 1),
                         ("metadata.n_actions", "asc"), ("instruction_context", -1)],
            "limit": 500,
            "offset": 3000,
        },
        {"filters": {"response_context": None, "metadata.nowhere": None}, "limit": 50},
        {"filters": {"metadata.intents": ["FindRestaurants", "ReserveRestaurant"]}},
        {"filters": {"metadata.multi_domain": True, 'metadata."domain"': "Travel"}},
        {
            "filters": [
                [("metadata.domain", "in", ["Banks", "Media"]), ("metadata.n_actions", "<", 20)],
                [("metadata.context_id", ">=", "Weather"), ("metadata.multi_domain", "!=", True)],
            ],
            "order_by": [("metadata.intents", 1)],
        },
    ],
    "chitchat": [
        {
            "filters": [("metadata.ratings.interesting", ">=", 9)],
            "order_by": [("metadata.ratings.witty", -1), ("metadata.start", 1)],
            "limit": 100,
            "offset": 100,
        },
        {"order_by": [("metadata.prompt", 1)], "limit": 200, "offset": 6800},
        {"filters": {"metadata.ratings": None}, "order_by": [("metadata.start", -1)]},
        {"filters": [("metadata.prompt", "!=", None), ("metadata.ratings", "==", None)]},
        {
            "filters": [("metadata.start", ">=", "2018-05-10"), ("metadata.start", "<", "2018-06")],
            "order_by": [("metadata.ratings.witty", "asc"), ("metadata.ratings.witty", "desc")],
            "limit": 300,
        },
        {"limit": 100, "offset": 7100},
    ],
}  # fmt: skip


@dataclass
class Saved:
    name: str
    records: list[EvaluatedConversationWithContext]
    storages: dict[str, Storage]
    folder: Path
    answers: list[tuple[dict[str, Any], int, list[EvaluatedConversationWithContext]]]
    """Each query, how many records match it, and those it gives, all by plain Python."""


@pytest.fixture(scope="module", params=["chitchat", "sgd"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Saved:
    """The records, saved as models, imported as a file, and in a database with columns for some."""
    records = sgd() if request.param == "sgd" else chitchat()
    folder = tmp_path_factory.mktemp(request.param)
    lines = JSONLStorage(folder / "c.jsonl", folder / "d.jsonl")
    lines.save_conversations(records)
    database = SQLStorage(f"duckdb:///{folder / 'saved.duckdb'}")
    database.save_conversations(records)
    imported = SQLStorage(
        f"duckdb:///{folder / 'imported.duckdb'}", metadata_fields=["domain", "n_actions", "prompt"]
    )
    source = SGD if request.param == "sgd" else lines.conversations_path
    assert imported.import_jsonl(source) == len(records)
    storages: dict[str, Storage] = {"lines": lines, "saved": database, "imported": imported}
    answers = []
    rows = with_rows(records)
    for query in QUERIES[request.param]:
        matching = len(select_rows(rows, query.get("filters")))
        answers.append((query, matching, select_rows(rows, **query)))
    return Saved(request.param, records, storages, folder, answers)


def test_every_record_comes_back_equal(saved: Saved) -> None:
    assert len(saved.records) > 7000
    for name, storage in saved.storages.items():
        assert storage.count_conversations() == len(saved.records), name
        assert storage.load_conversations() == saved.records, name


def test_queries_give_what_plain_python_gives(saved: Saved) -> None:
    for query, _, expected in saved.answers:
        assert expected, query
        for name, storage in saved.storages.items():
            assert storage.load_conversations(**query) == expected, (name, query)


def test_counts_and_scans_agree(saved: Saved) -> None:
    for query, matching, expected in saved.answers:
        for name, storage in saved.storages.items():
            assert storage.count_conversations(query.get("filters")) == matching, (name, query)
            texts = storage.scan_conversations(["metadata"], **query).read_all().column(0)
            assert [json.loads(text) for text in texts.to_pylist()] == [
                record.metadata for record in expected
            ], (name, query)


def test_groups_by_sql_are_those_of_plain_python(saved: Saved) -> None:
    from sqlalchemy import text

    storage = saved.storages["imported"]
    assert isinstance(storage, SQLStorage)
    key = "domain" if saved.name == "sgd" else "prompt"
    expected: dict[Any, int] = {}
    messages = 0
    for record in saved.records:
        value = record.metadata.get(key)
        expected[value] = expected.get(value, 0) + 1
        messages += len(record.conversations)
    with storage.engine.connect() as connection:
        groups = connection.execute(text(f"SELECT {key}, count(*) FROM conversations GROUP BY 1"))
        assert {row[0]: row[1] for row in groups} == expected
        assert connection.execute(text("SELECT count(*) FROM messages")).scalar() == messages


def test_lines_to_database_to_lines(saved: Saved) -> None:
    out = saved.folder / "out.jsonl.zst"
    saved.storages["imported"].export_jsonl(out)
    again = JSONLStorage(saved.folder / "again.jsonl", saved.folder / "d2.jsonl")
    assert again.import_jsonl(out) == len(saved.records)
    assert again.load_conversations() == saved.records


def test_parquet_has_every_message(saved: Saved) -> None:
    path = saved.folder / "out.parquet"
    for storage in saved.storages.values():
        assert storage.export_parquet(path) == len(saved.records)
        column = pyarrow.parquet.read_table(path, columns=["conversations"]).column(0)
        assert column.to_pylist()[::97] == [
            record.model_dump(mode="json")["conversations"] for record in saved.records[::97]
        ]


@pytest.mark.skipif(not SGD.is_file(), reason="the documents lie beside the conversations of SGD")
def test_documents_of_the_same_data(tmp_path: Path) -> None:
    path = SGD.with_name("sgd_train_documents.jsonl")
    written = [json.loads(line) for line in path.read_bytes().splitlines()]
    for storage in (
        JSONLStorage(tmp_path / "c.jsonl", tmp_path / "d.jsonl"),
        SQLStorage("duckdb:///:memory:"),
    ):
        assert storage.import_jsonl(path, kind="documents") == len(written)
        assert [record.model_dump() for record in storage.load_documents()] == written
        largest = storage.load_documents(limit=3, order_by=[("metadata.n_slots", -1)])
        numbers = sorted((each["metadata"]["n_slots"] for each in written), reverse=True)
        assert [record.metadata["n_slots"] for record in largest] == numbers[:3]
