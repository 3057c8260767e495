"""Common libraries read scans, files and exports of the storages, with their usual calls.

`docs/interoperability.md` has the same calls as a table. Those libraries that are not in the extra
`test` are in the extra `libraries`; CI's session of that name has them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Conversation, JSONLStorage, SQLStorage
from tests.support.records import CRITERIA, conversation, evaluation

RECORDS = [
    conversation(
        f"{n} \u2028 é",
        {"domain": "AB"[n % 2], "n": n},
        final_score=None if n % 3 == 2 else n / 4,
        evaluation=evaluation(n / 8) if n % 2 else None,
    )
    for n in range(100)
]
SCORES = [record.final_score for record in RECORDS]
COLUMNS = ["metadata.domain", "final_score"]
OF_A = {"metadata.domain": "A"}


@pytest.fixture(params=["sql", "jsonl"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SQLStorage | JSONLStorage:
    """The same records in each storage; tests that need SQL use only one."""
    found: SQLStorage | JSONLStorage
    if request.param == "sql":
        found = SQLStorage(f"duckdb:///{tmp_path / 'store.duckdb'}")
    else:
        found = JSONLStorage(tmp_path / "store.jsonl")
    found.save_conversations(list(RECORDS))
    return found


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "database.duckdb"
    SQLStorage(f"duckdb:///{path}").save_conversations(list(RECORDS))
    return path


@pytest.fixture(scope="module")
def pd() -> Any:
    return pytest.importorskip("pandas", reason="pandas is in the extra `test`")


@pytest.fixture(scope="module")
def pl() -> Any:
    return pytest.importorskip("polars", reason="polars is in the extra `test`")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    reason = "datasets is in the extra `libraries`: python3 noxfile.py -s libraries"
    with pytest.MonkeyPatch.context() as patch:
        # `datasets` reads these variables when it is imported: no downloads, and no files remain.
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hugging-face")))
        found = pytest.importorskip("datasets", reason=reason)
        found.disable_progress_bars()
        yield found


class TestArrowStream:
    """`scan_…` implements the Arrow PyCapsule interface, which the tests below need."""

    def test_a_scan_implements_it(self, store: Any) -> None:
        import pyarrow as pa

        class Stream:
            """An object with only the interface."""

            def __init__(self, scan: Any) -> None:
                self.__arrow_c_stream__ = scan.__arrow_c_stream__

        scan = store.scan_conversations(COLUMNS)
        found = pa.RecordBatchReader.from_stream(Stream(scan)).read_all()
        assert found.column_names == COLUMNS
        assert found["final_score"].to_pylist() == SCORES


class TestPandas:
    def test_from_a_scan(self, pd: Any, store: Any) -> None:
        if not hasattr(pd.DataFrame, "from_arrow"):
            pytest.skip("DataFrame.from_arrow is new in pandas 3")
        frame = pd.DataFrame.from_arrow(store.scan_conversations(COLUMNS))
        assert frame["metadata.domain"].tolist() == ["A", "B"] * 50
        assert frame["final_score"].isna().sum() == 33

    def test_from_a_scan_by_pyarrow(self, pd: Any, store: Any) -> None:
        frame = store.scan_conversations(filters=OF_A).read_pandas()
        assert len(frame) == 50
        assert frame["conversations"][1][0]["content"] == RECORDS[2].conversations[0].content

    def test_read_sql(self, pd: Any, database: Path) -> None:
        engine = SQLStorage(f"duckdb:///{database}").engine
        frame = pd.read_sql("SELECT role, count(*) AS n FROM messages GROUP BY role", engine)
        assert dict(zip(frame["role"], frame["n"], strict=True)) == {"user": 100, "assistant": 100}

    def test_read_parquet(self, pd: Any, store: Any, tmp_path: Path) -> None:
        store.export_parquet(tmp_path / "out.parquet")
        frame = pd.read_parquet(tmp_path / "out.parquet", columns=["final_score"])
        assert frame["final_score"].sum() == sum(score for score in SCORES if score is not None)


class TestPolars:
    def test_from_arrow(self, pl: Any, store: Any) -> None:
        frame = pl.from_arrow(store.scan_conversations())
        assert frame["final_score"].to_list() == SCORES
        said = frame["conversations"].list.get(0).struct.field("content").to_list()
        assert said == [record.conversations[0].content for record in RECORDS]

    def test_lazily_from_a_frame(self, pl: Any, store: Any) -> None:
        frame = pl.DataFrame(store.scan_conversations(COLUMNS)).lazy()
        found = frame.group_by("metadata.domain").len().sort("metadata.domain").collect()
        assert found.rows() == [("A", 50), ("B", 50)]

    def test_lazily_from_the_scan_itself(self, pl: Any, store: Any) -> None:
        if not hasattr(pl, "scan_arrow_c_stream"):
            pytest.skip("this polars has no scan_arrow_c_stream")
        frame = pl.scan_arrow_c_stream(store.scan_conversations(COLUMNS))
        found = frame.group_by("metadata.domain").len().sort("metadata.domain").collect()
        assert found.rows() == [("A", 50), ("B", 50)]

    def test_lazily_from_partitioned_parquet(self, pl: Any, store: Any, tmp_path: Path) -> None:
        store.export_parquet(tmp_path / "parts", partition_by=["metadata.domain"])
        frame = pl.scan_parquet(tmp_path / "parts", hive_partitioning=True)
        found = frame.filter(pl.col("metadata.domain") == "A").select(pl.len()).collect()
        assert found.item() == 50

    @pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning")
    def test_read_database_takes_a_connection(self, pl: Any, database: Path) -> None:
        query = "SELECT role, count(*) AS n FROM messages GROUP BY role ORDER BY role"
        with SQLStorage(f"duckdb:///{database}").engine.connect() as connection:
            found = pl.read_database(query, connection)
        assert found.rows() == [("assistant", 100), ("user", 100)]

    def test_training_lines(self, pl: Any, store: Any, tmp_path: Path) -> None:
        store.export_jsonl(tmp_path / "train.jsonl", format="messages")
        frame = pl.read_ndjson(tmp_path / "train.jsonl")
        assert frame["messages"].list.len().to_list() == [2] * 100


class TestHuggingFaceDatasets:
    def test_from_a_scan(self, datasets: Any, store: Any) -> None:
        found = datasets.Dataset(store.scan_conversations().read_all())
        assert found["final_score"][:] == SCORES
        assert found[0]["conversations"][0]["content"] == RECORDS[0].conversations[0].content
        feedback = {name: found[1]["evaluation"][name]["feedback"] for name in CRITERIA}
        assert feedback == {name: f"on {name}" for name in CRITERIA}
        some = found.filter(lambda row: row["final_score"] is None).map(
            lambda row: {"n": len(row["conversations"])}
        )
        assert some["n"][:] == [2] * 33

    def test_from_parquet(self, datasets: Any, store: Any, tmp_path: Path) -> None:
        path = str(tmp_path / "out.parquet")
        store.export_parquet(path, order_by=[("metadata.n", -1)])
        found = datasets.Dataset.from_parquet(path, cache_dir=str(tmp_path / "cache"))
        assert found["final_score"][:] == SCORES[::-1]

    def test_streamed_from_parquet(self, datasets: Any, store: Any, tmp_path: Path) -> None:
        path = str(tmp_path / "out.parquet")
        store.export_parquet(path)
        found = datasets.load_dataset(
            "parquet", data_files=path, split="train", streaming=True, cache_dir=str(tmp_path)
        )
        assert [row["final_score"] for row in found] == SCORES

    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_folder_for_the_hub(
        self, datasets: Any, store: Any, tmp_path: Path, streaming: bool
    ) -> None:
        folder = tmp_path / "talks"
        store.export_hub(folder, license="cc-by-4.0", columns=["metadata.n"])
        found = datasets.load_dataset(
            str(folder), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
        )
        assert [*found.features] == ["messages", "n"]
        assert found.features["n"].dtype == "int64"
        assert len([*found]) == store.count_conversations()

    def test_training_lines(self, datasets: Any, store: Any, tmp_path: Path) -> None:
        path = str(tmp_path / "train.jsonl.gz")
        store.export_jsonl(path, format="messages", system_prompt="Be brief.", filters=OF_A)
        found = datasets.load_dataset(
            "json", data_files=path, split="train", cache_dir=str(tmp_path / "cache")
        )
        assert len(found) == 50
        assert found[1]["messages"] == [
            {"role": "system", "content": "Be brief."},
            *({"role": s.role.value, "content": s.content} for s in RECORDS[2].conversations),
        ]

    def test_a_split_folder_for_the_hub(self, datasets: Any, store: Any, tmp_path: Path) -> None:
        folder, cache = str(tmp_path / "talks"), str(tmp_path / "cache")
        parts = {"train": 0.8, "test": 0.2}
        columns = ["metadata.n", "metadata.domain"]
        counts = store.export_hub(folder, split=parts, columns=columns).parts
        found = datasets.load_dataset(folder, cache_dir=cache)
        assert {name: len(part) for name, part in found.items()} == counts
        assert sorted(found["train"]["n"][:] + found["test"]["n"][:]) == [*range(100)]
        message = {"role": datasets.Value("string"), "content": datasets.Value("string")}
        declared = datasets.Features(
            messages=datasets.List(message),
            n=datasets.Value("int64"),
            domain=datasets.Value("string"),
        )
        assert found["train"].features == declared
        streamed = datasets.load_dataset(folder, split="test", streaming=True)
        assert streamed.features == declared
        assert [row["n"] for row in streamed] == found["test"]["n"][:]

    def test_a_folder_for_the_hub_with_json(self, datasets: Any, tmp_path: Path) -> None:
        store = SQLStorage("duckdb:///:memory:")
        tags: list[Any] = [{"a": 1}, ["x"], 3, None]
        lists: list[Any] = [[["x"]], [[]], None, []]
        store.save_conversations(
            [
                conversation(str(n), {"any": tag, "lists": listed, "yes": n > 1})
                for n, (tag, listed) in enumerate(zip(tags, lists, strict=True))
            ]
        )
        folder, cache = str(tmp_path / "talks"), str(tmp_path / "cache")
        store.export_hub(folder, columns=["metadata.*"])
        found = datasets.load_dataset(folder, split="train", cache_dir=cache)
        assert found["any"][:] == tags
        assert found["lists"][:] == lists
        assert found["yes"][:] == [False, False, True, True]
        assert datasets.load_dataset(folder, split="train", streaming=True).features["any"]


class TestPyarrowDataset:
    def test_a_partitioned_folder(self, store: Any, tmp_path: Path) -> None:
        import pyarrow.dataset as ds

        store.export_parquet(tmp_path / "parts", partition_by=["metadata.domain"])
        found = ds.dataset(tmp_path / "parts", partitioning="hive")
        of_a = found.to_table(
            filter=ds.field("metadata.domain") == "A", columns=["final_score", "metadata.domain"]
        )
        assert of_a["final_score"].to_pylist() == SCORES[::2]
        assert found.count_rows() == 100


class TestDuckDBInPython:
    def test_a_scan_by_the_name_of_its_variable(self, store: Any) -> None:
        import duckdb

        scan = store.scan_conversations(COLUMNS)
        query = 'SELECT "metadata.domain", count(*) FROM scan GROUP BY ALL ORDER BY ALL'
        answer: Any = duckdb.sql(query)
        assert answer.fetchall() == [("A", 50), ("B", 50)]
        del scan

    def test_a_scan_joined_with_other_tables(self, store: Any) -> None:
        import duckdb

        with duckdb.connect() as own:
            own.execute("CREATE TABLE names AS SELECT 'A' AS key, 'Trains' AS name")
            own.register("talks", store.scan_conversations(COLUMNS))
            query = 'SELECT count(*) FROM talks JOIN names ON key = "metadata.domain"'
            assert own.sql(query).fetchall() == [(50,)]

    def test_exported_files(self, store: Any, tmp_path: Path) -> None:
        import duckdb

        store.export_parquet(tmp_path / "out.parquet")
        store.export_jsonl(tmp_path / "train.jsonl", format="sharegpt")
        parquet = duckdb.read_parquet(str(tmp_path / "out.parquet"))
        assert parquet.aggregate("sum(len(conversations))").fetchall() == [(200,)]
        lines = duckdb.read_json(str(tmp_path / "train.jsonl"))
        assert lines.aggregate("sum(len(conversations))").fetchall() == [(200,)]

    def test_the_file_attached_to_another_database(self, database: Path) -> None:
        import duckdb

        with duckdb.connect() as own:
            own.execute(f"ATTACH '{database}' AS store (READ_ONLY)")
            assert own.sql("SELECT count(*) FROM store.messages").fetchall() == [(200,)]
        assert SQLStorage(f"duckdb:///{database}").count_conversations() == 100


# ibis uses calls that DuckDB and pandas have deprecated.
@pytest.mark.filterwarnings("ignore:fetch_:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")
class TestIbis:
    @pytest.fixture
    def tables(self, database: Path) -> Iterator[Any]:
        reason = "ibis is in the extra `libraries`: python3 noxfile.py -s libraries"
        ibis = pytest.importorskip("ibis", reason=reason)
        connection = ibis.duckdb.connect(database)
        yield connection
        connection.disconnect()

    def test_the_view_of_messages(self, tables: Any) -> None:
        messages = tables.table("messages")
        found = messages.group_by("role").agg(n=messages.count()).order_by("role").to_pyarrow()
        assert found.to_pylist() == [{"role": "assistant", "n": 100}, {"role": "user", "n": 100}]

    def test_nested_columns_and_metadata(self, tables: Any) -> None:
        talks = tables.table("conversations")
        found = (
            talks.filter(talks.metadata["domain"].str == "B")
            .order_by("id")
            .select(
                said=talks.conversations[0].content,
                n=talks.metadata["n"].int,
                score=talks.evaluation.coherence.score,
            )
            .to_pyarrow()
        )
        assert found.to_pylist() == [
            {"said": RECORDS[n].conversations[0].content, "n": n, "score": n / 8}
            for n in range(1, 100, 2)
        ]

    def test_exported_parquet(self, tables: Any, tmp_path: Path) -> None:
        JSONLStorage(tmp_path / "store.jsonl").save_conversations(list(RECORDS))
        JSONLStorage(tmp_path / "store.jsonl").export_parquet(tmp_path / "out.parquet")
        found = tables.read_parquet(tmp_path / "out.parquet")
        assert found.conversations.length().sum().to_pyarrow().as_py() == 200

    def test_the_storage_can_be_used_at_the_same_time(self, tables: Any, database: Path) -> None:
        assert tables.table("conversations").count().to_pyarrow().as_py() == 100
        storage = SQLStorage(f"duckdb:///{database}")
        storage.save_conversations([conversation("one more")])
        assert tables.table("conversations").count().to_pyarrow().as_py() == 101


def test_keys_that_first_appear_late_need_the_whole_file(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    path = tmp_path / "late.jsonl"
    metadata = [*({"a": 1} for _ in range(200)), {"a": 1, "late": "x"}]
    JSONLStorage(path).save_conversations(
        [Conversation(conversations=[], metadata=each) for each in metadata]
    )
    whole = polars.read_ndjson(path, infer_schema_length=None)
    assert whole["metadata"][-1] == {"a": 1, "late": "x"}
    assert JSONLStorage(path).export_parquet(tmp_path / "late.parquet") == 201
    assert polars.read_parquet(tmp_path / "late.parquet")["metadata"][-1] == '{"a":1,"late":"x"}'
