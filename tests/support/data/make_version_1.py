"""Make the database of layout 1 that later versions must open, and the records it holds.

python -m tests.support.data.make_version_1            with DuckDB 1.5 or 2.0
python -m tests.support.data.make_version_1 --newer    with DuckDB 2.0: a file that 1.5 cannot open

Only to be run again while layout 1 is not released; after that the file is what users have.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
from pydantic import BaseModel

from afterimage.storage import Document, PersonaEntry, SQLStorage
from tests.support.records import (
    ALL_SORTS,
    Note,
    StructuredRow,
    TaggedDocument,
    conversation,
    evaluation,
)

HERE = Path(__file__).parent
DATABASE = HERE / "version_1.duckdb.gz"
EXPECTED = HERE / "version_1.json"
NEWER = HERE / "newer_duckdb.duckdb.gz"
METADATA_FIELDS = ["domain", "k.l", "Domain"]

CONVERSATIONS: list[BaseModel] = [
    *ALL_SORTS,
    conversation("Hi", {"domain": "Trains", "Domain": 3, "k.l": [None]}, persona="a pilot"),
    conversation("it's", {"domain": None}, evaluation=evaluation(), final_score=1.5),
]
OTHERS: list[BaseModel] = [
    Note(title="a", body={"k": [1.0, 2**70]}),
    StructuredRow(instruction="Count", output={"n": 1}),
]
DOCUMENTS: list[Document] = [
    Document(id="a", text="\u2028 é", metadata={"n": -0.0, "m": 2**64}),
    Document(id="b", personas=[PersonaEntry(descriptions=["x"], metadata={"": [{}]})]),
    TaggedDocument(id="c", tags=["one", "two"]),
]


def as_json(records: list[Any]) -> Any:
    """The records as pydantic and the standard library write them, with nothing of ours between."""
    return json.loads(json.dumps([record.model_dump() for record in records]))


def make() -> None:
    """Write the database, packed, and what is in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.duckdb"
        storage = SQLStorage(f"duckdb:///{path}", metadata_fields=METADATA_FIELDS)
        storage.save_conversations([*CONVERSATIONS, *OTHERS])
        storage.save_documents(DOCUMENTS)
        DATABASE.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    told = {
        "conversations": as_json(CONVERSATIONS),
        "records": as_json(OTHERS),
        "documents": as_json(DOCUMENTS),
    }
    EXPECTED.write_text(json.dumps(told, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


def make_newer() -> None:
    """Write a database in the format that DuckDB 2.0 writes where nobody asks for an older one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.duckdb"
        config: dict[str, Any] = {"storage_compatibility_version": "latest"}
        with duckdb.connect(str(path), config=config) as connection:
            connection.execute("CREATE TABLE mine AS SELECT 1 AS one")
        NEWER.write_bytes(gzip.compress(path.read_bytes(), mtime=0))


if __name__ == "__main__":
    make_newer() if "--newer" in sys.argv else make()
