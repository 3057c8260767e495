"""Both storages: scans are Arrow streams with a declared schema, that anything can take."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from afterimage.storage import (
    Conversation,
    Document,
    InvalidQueryError,
    PersonaEntry,
    UnknownFieldError,
)
from tests.support.plain_python import same, select
from tests.support.records import (
    RatedConversation,
    conversation,
    conversations,
    evaluation,
)

CONVERSATION_COLUMNS = [
    "conversations",
    "metadata",
    "instruction_context",
    "response_context",
    "persona",
    "evaluation",
    "final_score",
    "extra",
]
DOCUMENT_COLUMNS = ["id", "text", "personas", "metadata", "extra"]


def leaf_types(kind: pa.DataType) -> set[pa.DataType]:
    """The types at the bottom of a nested type."""
    if pa.types.is_struct(kind):
        return set().union(*(leaf_types(kind.field(n).type) for n in range(kind.num_fields)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return leaf_types(kind.value_type)
    return {kind}


class TestSchema:
    def test_it_is_declared_and_never_depends_on_the_data(self, storage: Any) -> None:
        conversations_schema = storage.scan_conversations().schema
        documents_schema = storage.scan_documents().schema
        assert conversations_schema.names == CONVERSATION_COLUMNS
        assert documents_schema.names == DOCUMENT_COLUMNS
        storage.save_conversations([conversation(metadata={"n": 1}), conversation(persona="x")])
        storage.save_documents([Document(metadata={"n": "x"})])
        assert storage.scan_conversations().schema.equals(conversations_schema)
        assert storage.scan_documents().schema.equals(documents_schema)
        filtered = storage.scan_conversations(filters={"metadata.n": 1}, limit=0)
        assert filtered.schema.equals(conversations_schema)

    def test_types(self, storage: Any) -> None:
        schema = storage.scan_conversations().schema
        text, number = pa.large_string(), pa.float64()
        for name in ("metadata", "instruction_context", "response_context", "persona", "extra"):
            assert schema.field(name).type == text, name
        assert schema.field("final_score").type == number
        assert leaf_types(schema.field("conversations").type) == {text}
        messages = schema.field("conversations").type.value_type
        assert [field.name for field in messages] == ["role", "content", "reasoning_content"]
        assert leaf_types(schema.field("evaluation").type) == {text, number}
        assert leaf_types(pa.struct(list(storage.scan_documents().schema))) == {text}

    def test_a_metadata_column_is_text_whatever_the_data(self, storage: Any) -> None:
        columns = ["metadata.n", "evaluation.coherence.score", "evaluation.overall_grade"]
        types = [pa.large_string(), pa.float64(), pa.large_string()]
        assert storage.scan_conversations(columns).schema.types == types
        storage.save_conversations([conversation(metadata={"n": 1}, evaluation=evaluation())])
        assert storage.scan_conversations(columns).schema.types == types


class TestValues:
    def test_every_field_of_a_conversation(self, storage: Any) -> None:
        record = conversation(
            "first words",
            {"domain": "Flights", "list": [1, 1.0, None]},
            instruction_context="the instruction",
            response_context="the response",
            persona="a pilot",
            evaluation=evaluation(),
            final_score=0.75,
        )
        storage.save_conversations([record])
        [row] = storage.scan_conversations().read_all().to_pylist()
        row["metadata"] = json.loads(row["metadata"])
        assert same(row, {**record.model_dump(mode="json"), "extra": None})

    def test_every_field_of_a_document(self, storage: Any) -> None:
        persona = PersonaEntry(descriptions=["a pilot"], metadata={"k": [1]})
        record = Document(id="d", text="once", personas=[persona], metadata={"n": 1})
        storage.save_documents([record])
        [row] = storage.scan_documents().read_all().to_pylist()
        row["metadata"] = json.loads(row["metadata"])
        row["personas"][0]["metadata"] = json.loads(row["personas"][0]["metadata"])
        assert same(row, {**record.model_dump(mode="json"), "extra": None})

    def test_a_field_the_saved_class_lacks_has_its_default(self, storage: Any) -> None:
        storage.save_conversations([Conversation(conversations=[])])
        [row] = storage.scan_conversations().read_all().to_pylist()
        assert row["metadata"] == "{}"
        assert row["final_score"] == 0.0
        assert row["evaluation"] is row["persona"] is None

    def test_what_the_schema_does_not_know_is_in_extra(self, storage: Any) -> None:
        storage.save_conversations(
            [
                RatedConversation(conversations=[], mood="calm", weights=[1.5]),
                conversation(),
            ]
        )
        rated, plain = storage.scan_conversations(["extra"]).read_all().column(0).to_pylist()
        assert json.loads(rated)["fields"] == {"mood": "calm", "weights": [1.5]}
        assert plain is None

    def test_metadata_is_exact_json_text(self, storage: Any) -> None:
        metadata = {"big": 2**70, "float": 1.0, "text": "\x00 \u2028", "b": 1, "a": {"": [None]}}
        storage.save_conversations([conversation(metadata=metadata)])
        [text] = storage.scan_conversations(["metadata"]).read_all().column(0).to_pylist()
        assert same(json.loads(text), metadata)

    def test_a_metadata_column_holds_text_as_it_is_and_the_rest_as_json(self, storage: Any) -> None:
        values = ["Flights", "", "null", 'a "b"', 3, 3.5, 2**70, True, False, [1, "a"], {"k": None}]
        storage.save_conversations(conversations(*({"n": v} for v in values), {"n": None}, {}))
        column = storage.scan_conversations(["metadata.n"]).read_all().column(0)
        assert column.to_pylist() == [
            "Flights", "", "null", 'a "b"', "3", "3.5", str(2**70), "true", "false", '[1,"a"]',
            '{"k":null}', None, None,
        ]  # fmt: skip

    def test_null_structs_are_null(self, storage: Any) -> None:
        storage.save_conversations([conversation(), conversation(evaluation=evaluation())])
        columns = ["evaluation", "evaluation.coherence", "evaluation.coherence.score"]
        first, second = storage.scan_conversations(columns).read_all().to_pylist()
        assert first == dict.fromkeys(columns)
        assert second["evaluation.coherence"] == {"feedback": "on coherence", "score": 0.5}
        assert second["evaluation.coherence.score"] == 0.5


class TestColumns:
    def test_they_come_in_the_order_asked_by_the_names_asked(self, storage: Any) -> None:
        storage.save_conversations([conversation(metadata={"k.l": 1}, persona="x")])
        columns = ["persona", 'metadata."k.l"', "evaluation.overall_grade", "final_score"]
        table = storage.scan_conversations(columns).read_all()
        assert table.column_names == columns
        assert table.to_pylist() == [dict(zip(columns, ["x", "1", None, 0.0], strict=True))]
        assert storage.scan_conversations(columns[::-1]).schema.names == columns[::-1]

    def test_documents(self, storage: Any) -> None:
        storage.save_documents([Document(id="d", text="x", metadata={"n": 1})])
        table = storage.scan_documents(["metadata.n", "id"]).read_all()
        assert table.to_pylist() == [{"metadata.n": "1", "id": "d"}]

    def test_filter_and_sort_fields_need_not_be_columns(self, storage: Any) -> None:
        records = [conversation(str(n), {"n": n}, persona=str(n)) for n in range(10)]
        storage.save_conversations(records)
        filters = [("metadata.n", ">", 2), ("final_score", "==", 0)]
        order_by = [("metadata.n", -1)]
        table = storage.scan_conversations(["persona"], filters, order_by, 3, 1).read_all()
        expected = select(records, filters, order_by, 3, 1)
        assert table.column(0).to_pylist() == [record.persona for record in expected]

    @pytest.mark.parametrize(
        "unknown", ["persna", "metadat", "evaluation.coherense.score", "conversations.content"]
    )
    def test_an_unknown_one_is_an_error(self, storage: Any, unknown: str) -> None:
        with pytest.raises(UnknownFieldError):
            storage.scan_conversations(["persona", unknown])

    @pytest.mark.parametrize("columns", [[], "persona", ["persona", "persona"]], ids=repr)
    def test_a_projection_without_meaning_is_an_error(self, storage: Any, columns: Any) -> None:
        with pytest.raises(InvalidQueryError):
            storage.scan_conversations(columns)


class TestStreams:
    @pytest.fixture
    def filled(self, storage: Any) -> Any:
        storage.save_conversations(
            conversations(*({"n": n, "domain": f"{n % 3}"} for n in range(30)))
        )
        return storage

    def test_a_scan_is_a_record_batch_reader(self, filled: Any) -> None:
        reader = filled.scan_conversations(["metadata.n"])
        assert isinstance(reader, pa.RecordBatchReader)
        values = [value for batch in reader for value in batch.column(0).to_pylist()]
        assert values == [str(n) for n in range(30)]

    def test_the_pycapsule_stream(self, filled: Any) -> None:
        reader = pa.RecordBatchReader.from_stream(filled.scan_conversations())
        assert reader.read_all().num_rows == 30

    def test_duckdb_takes_it(self, filled: Any) -> None:
        import duckdb

        reader = filled.scan_conversations(["metadata.domain"])
        with duckdb.connect() as connection:
            rows = connection.execute(
                'SELECT "metadata.domain" AS domain, count(*) FROM reader GROUP BY 1 ORDER BY 1'
            ).fetchall()
        assert rows == [("0", 10), ("1", 10), ("2", 10)]
        assert reader is not None  # DuckDB finds it by the name of this variable

    def test_pandas_takes_it(self, filled: Any) -> None:
        pandas = pytest.importorskip("pandas")
        if not hasattr(pandas.DataFrame, "from_arrow"):
            pytest.skip("this pandas takes no Arrow stream")
        frame = pandas.DataFrame.from_arrow(filled.scan_conversations(["metadata.n"]))
        assert list(frame["metadata.n"]) == [str(n) for n in range(30)]

    def test_polars_takes_it(self, filled: Any) -> None:
        polars = pytest.importorskip("polars")
        frame = polars.DataFrame(filled.scan_conversations())
        assert frame.height == 30
        assert frame["conversations"][3].struct.field("content").to_list() == ["3", "3!"]

    def test_two_at_once_do_not_disturb_each_other(self, filled: Any) -> None:
        first = filled.scan_conversations(["metadata.n"])
        second = filled.scan_conversations(["metadata.n"], order_by=[("metadata.n", -1)], limit=2)
        assert filled.count_conversations() == 30
        assert second.read_all().column(0).to_pylist() == ["29", "28"]
        assert first.read_all().column(0).to_pylist() == [str(n) for n in range(30)]

    def test_one_that_is_not_read_to_its_end_is_in_nobodys_way(self, filled: Any) -> None:
        with filled.scan_conversations() as reader:
            reader.read_next_batch()
        filled.save_conversations([conversation("after")])
        assert filled.count_conversations() == 31

    def test_bad_arguments_raise_at_the_call_not_at_the_first_batch(self, filled: Any) -> None:
        with pytest.raises(ValueError, match="-1"):
            filled.scan_conversations(limit=-1)
