"""Each command on each kind of store: its output, its files and its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pyarrow.dataset
import pyarrow.parquet
import pytest

from afterimage.storage import JSONLStorage, SkippedRecordsWarning, SQLStorage
from afterimage.storage.transfer.training_formats import Reasoning
from tests.cli.conftest import DOCUMENTS, RECORDS, attempt, objects
from tests.support.plain_python import same

Run = Callable[..., str]


class TestImport:
    @pytest.mark.parametrize("dest", ["new.duckdb", "new.jsonl", "duckdb:///new.db"])
    def test_adds_files_to_a_store_and_creates_it(self, run: Run, dest: str) -> None:
        run("export", "talks.duckdb", "packed.jsonl.zst")
        assert run("import", "talks.jsonl", "packed.jsonl.zst", dest) == (
            f"8 conversations and 1 record of other models imported into {dest}\n"
        )
        found = run("head", dest, "--json")
        assert objects(found) == objects(run("head", "talks.duckdb", "--json")) * 2

    def test_documents(self, run: Run) -> None:
        told = json.loads(
            run("import", "texts.jsonl", "new.duckdb", "--kind", "documents", "--json")
        )
        assert told == {"records": 3, "others": 0, "kind": "documents", "path": "new.duckdb"}
        assert SQLStorage("duckdb:///new.duckdb").load_documents() == DOCUMENTS

    def test_records_of_other_models_are_named_apart(self, run: Run) -> None:
        Path("rows.jsonl").write_text('{"title": "a"}\n{"title": "b"}\n', encoding="utf-8")
        said = run("import", "rows.jsonl", "talks.jsonl", "new.duckdb", "--kind", "records")
        assert said == "4 conversations and 3 records of other models imported into new.duckdb\n"
        told = json.loads(run("import", "rows.jsonl", "new.duckdb", "--kind", "records", "--json"))
        path = {"kind": "conversations", "path": "new.duckdb"}
        assert told == {"records": 2, "others": 2, **path}

    def test_metadata_fields_get_columns(self, run: Run) -> None:
        run("import", "talks.jsonl", "new.duckdb", "--metadata-field", "domain")
        [row] = objects(
            run("sql", "new.duckdb", "SELECT max(domain) AS d FROM conversations", "--json")
        )
        assert row == {"d": "Trains"}
        assert attempt("import", "talks.jsonl", "n.jsonl", "--metadata-field", "x").exit_code == 2

    def test_an_invalid_line_is_named_and_no_source_is_saved(self, run: Run) -> None:
        Path("bad.jsonl").write_text('{"conversations": []}\n{"conversations"', encoding="utf-8")
        result = attempt("import", "talks.jsonl", "bad.jsonl", "new.duckdb")
        assert result.exit_code == 1
        assert "bad.jsonl, line 2" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert objects(run("head", "new.duckdb", "--json")) == []

    def test_an_existing_file_of_lines_is_a_destination_only_by_name(self, run: Run) -> None:
        before = Path("talks.jsonl").read_bytes()
        Path("more.jsonl").write_bytes(before)
        for sources in (["more.jsonl"], ["more.jsonl", "more.jsonl"]):
            result = attempt("import", *sources, "talks.jsonl")
            assert (result.exit_code, "--into talks.jsonl" in result.stderr) == (2, True)
        assert Path("talks.jsonl").read_bytes() == before
        said = run("import", "more.jsonl", "more.jsonl", "--into", "talks.jsonl")
        assert said == "8 conversations and 2 records of other models imported into talks.jsonl\n"
        assert Path("talks.jsonl").read_bytes() == before * 3

    def test_one_argument_is_no_import(self, folder: Path) -> None:
        result = attempt("import", "talks.jsonl")
        assert (result.exit_code, "SRC... DEST" in result.stderr) == (2, True)

    def test_invalid_lines_can_be_skipped(self, run: Run) -> None:
        Path("bad.jsonl").write_text('{"conversations": []}\n{"conversations"', encoding="utf-8")
        with pytest.warns(SkippedRecordsWarning, match="line 2"):
            assert run("import", "bad.jsonl", "n.jsonl", "--skip-corrupt").startswith("1 ")

    @pytest.mark.parametrize(
        ("sources", "dest"),
        [
            (["nowhere.jsonl"], "new.duckdb"),
            (["talks.jsonl"], "new"),
            (["talks.jsonl"], "new.txt"),
            (["talks.duckdb"], "new.txt"),
            ([], "new.duckdb"),
        ],
    )
    def test_invalid_arguments(self, folder: Path, sources: list[str], dest: str) -> None:
        before = sorted(folder.iterdir())
        result = attempt("import", *sources, dest)
        assert result.exit_code == 2
        assert sorted(folder.iterdir()) == before


class TestExport:
    @pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
    @pytest.mark.parametrize("order", [[], ["--order-by", "persona"]])
    def test_invalid_lines_can_be_skipped(self, run: Run, out: str, order: list[str]) -> None:
        lines = '{"conversations"\n{"conversations":[]}\n'
        Path("bad.jsonl").write_text(lines, encoding="utf-8")
        assert attempt("export", "bad.jsonl", out, *order).exit_code == 1
        assert not Path(out).exists()
        with pytest.warns(SkippedRecordsWarning, match="line 1"):
            said = run("export", "bad.jsonl", out, *order, "--skip-corrupt")
        assert said == f"1 conversation exported to {out}\n"

    def test_a_folder_for_the_hub(self, run: Run, store: str) -> None:
        arguments = ["--hub", "--license", "mit", "--title", "Talks", "--reasoning", "field"]
        for _ in range(2):  # an earlier export is replaced
            result = attempt("export", store, "talks", *arguments, "--limit", 3)
            assert result.stdout == "3 conversations exported to talks\n"
        card = Path("talks/README.md").read_text("utf-8")
        assert "license: mit" in card.replace('"', "")
        assert "# Talks" in card
        assert Path("talks/data/train-00000-of-00001.parquet").exists()
        for wrong in (
            ["--hub", "--partition-by", "persona"],
            ["--license", "mit"],
            ["--title", "x"],
            ["--hub", "--title", ""],
            ["--hub", "--kind", "records"],
        ):
            assert attempt("export", store, "more", *wrong).exit_code == 2
        assert not Path("more").exists()

    def test_what_lines_do_not_have_is_named(self, folder: Path) -> None:
        said = [
            {"role": "user", "content": "Hi", "name": "Ada"},
            {"role": "assistant", "content": "Yo", "reasoning_content": "Be short."},
        ]
        Path("chat.jsonl").write_text(json.dumps({"conversations": said}) + "\n", "utf-8")
        result = attempt("export", "chat.jsonl", "o.jsonl", "--format", "alpaca", "--lossy")
        assert result.stderr == "Without names of 1 conversation, reasoning of 1 conversation.\n"

    @pytest.mark.parametrize("out", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst"])
    def test_json_lines_are_exported_as_they_were_saved(
        self, run: Run, store: str, out: str
    ) -> None:
        assert run("export", store, out) == f"4 conversations exported to {out}\n"
        back = JSONLStorage(out, "none.jsonl")
        assert same(
            back.load_conversations(), SQLStorage("duckdb:///talks.duckdb").load_conversations()
        )

    def test_parquet(self, run: Run, store: str) -> None:
        arguments = ["--filter", "metadata.domain=Trains", "--columns", "final_score,metadata.n"]
        run("export", store, "out.parquet", *arguments, "--order-by", "metadata.n:desc")
        assert pyarrow.parquet.read_table("out.parquet").to_pylist() == [
            {"final_score": None, "metadata.n": "1"},
            {"final_score": 0.9, "metadata.n": "1"},
        ]

    def test_a_partitioned_folder(self, run: Run, store: str) -> None:
        told = json.loads(
            run("export", store, "out", "--partition-by", "metadata.domain", "--json")
        )
        assert told == {"records": 4, "kind": "conversations", "path": "out"}
        assert {path.name for path in Path("out").iterdir()} == {
            "metadata.domain=Trains",
            "metadata.domain=Restaurants",
            "metadata.domain=__HIVE_DEFAULT_PARTITION__",
        }
        assert pyarrow.dataset.dataset("out", partitioning="hive").count_rows() == 4

    def test_records_of_other_models_and_documents(self, run: Run, store: str) -> None:
        run("export", store, "others.jsonl", "--kind", "records")
        assert objects(Path("others.jsonl").read_text()) == [
            {"title": "no conversation", "body": None, "conversations": None}
        ]
        texts = "texts.jsonl" if store.endswith(".jsonl") else store
        run("export", texts, "out.parquet", "--kind", "documents", "--offset", 1, "--limit", 1)
        assert pyarrow.parquet.read_table("out.parquet")["id"].to_pylist() == ["d1"]

    @pytest.mark.parametrize("name", ["messages", "sharegpt", "alpaca"])
    @pytest.mark.parametrize("reasoning", [None, *get_args(Reasoning)])
    def test_training_formats_are_those_of_the_library(
        self, store: str, name: Any, reasoning: Any
    ) -> None:
        given = ["--format", name, *(["--reasoning", reasoning] if reasoning else [])]
        if reasoning == "field" and name != "messages":
            result = attempt("export", store, "out.jsonl", *given)
            assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
            return
        only = ["--filter", "metadata.domain=Trains", "--order-by", "metadata.n:desc"]
        result = attempt("export", store, "out.jsonl", *given, *only)
        assert result.stdout.startswith("2 conversations")
        told = "" if reasoning else "Without reasoning of 2 conversations.\n"
        assert result.stderr == told
        SQLStorage("duckdb:///talks.duckdb").export_jsonl(
            "expected.jsonl",
            format=name,
            reasoning=reasoning,
            filters={"metadata.domain": "Trains"},
            order_by=[("metadata.n", -1)],
        )
        lines = [objects(Path(f"{name}.jsonl").read_text()) for name in ("out", "expected")]
        assert lines[0] == lines[1]  # a control character can be written in two ways
        assert ("greet back" in Path("out.jsonl").read_text()) == bool(reasoning)

    def test_parquet_has_the_same_rows(self, run: Run, store: str) -> None:
        for name in ("o.parquet", "o.jsonl"):
            attempt("export", store, name, "--format", "messages", "--columns", "metadata.domain")
        rows = pyarrow.parquet.read_table("o.parquet").to_pylist()
        assert rows == objects(Path("o.jsonl").read_text())

    def test_a_system_prompt(self, run: Run, store: str) -> None:
        # The fourth conversation has no messages, so there is no line for it.
        result = attempt(
            "export", store, "o.jsonl", "--format", "messages", "--system-prompt", "Be brief."
        )
        assert result.stdout == "3 conversations exported to o.jsonl\n"
        assert result.stderr.startswith("1 left out: no messages (1).\n")
        for line in objects(Path("o.jsonl").read_text()):
            assert line["messages"][0] == {"role": "system", "content": "Be brief."}

    @pytest.mark.parametrize(
        "arguments",
        [
            ["out"],
            ["out.csv"],
            ["out.parquet", "--lossy"],
            ["out", "--partition-by", "persona", "--format", "messages"],
            ["out.jsonl", "--format", "chat"],
            ["out.jsonl", "--system-prompt", ""],
            ["out.jsonl", "--reasoning", "think"],
            ["out.jsonl", "--columns", "persona"],
            ["o.parquet", "--columns", ","],
        ],
    )
    def test_invalid_arguments(self, folder: Path, arguments: list[str]) -> None:
        result = attempt("export", "talks.duckdb", *arguments)
        assert result.exit_code == 2
        assert not [path for path in folder.iterdir() if path.name.startswith("o")]


class TestHead:
    @pytest.mark.parametrize("options", [[], ["--view", "full"], ["--json"]])
    def test_invalid_lines_can_be_skipped(self, run: Run, options: list[str]) -> None:
        lines = '{"conversations":[{"role":"user","content":5}]}\n{"conversations":[]}\n'
        Path("bad.jsonl").write_text(lines, encoding="utf-8")
        with pytest.warns(SkippedRecordsWarning, match="line 1"):
            assert run("head", "bad.jsonl", "--skip-corrupt", *options)
        with pytest.warns(SkippedRecordsWarning, match="line 1"):
            assert objects(run("stats", "bad.jsonl", "--skip-corrupt", "--json"))

    @pytest.mark.parametrize("view", ["table", "full"])
    def test_an_invalid_line_is_named_when_records_are_shown(self, run: Run, view: str) -> None:
        lines = '{"conversations":[]}\n{"conversations":[{"role":"user","content":5}]}\n'
        Path("bad.jsonl").write_text(lines, encoding="utf-8")
        result = attempt("head", "bad.jsonl", "--view", view)
        assert result.exit_code == 1
        assert "line 2" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_a_table(self, run: Run, store: str) -> None:
        lines = run("head", store).splitlines()
        assert lines[0].split() == ["turns", "first", "message", "grade", "score", "metadata"]
        assert lines[2].split()[0] == "2"
        assert "A table for two?" in lines[3]
        assert r"\x1b[31mBicycles? [bold]" in lines[4]
        assert len(lines) == 2 + 4

    def test_columns(self, run: Run, store: str) -> None:
        found = run("head", store, "--columns", 'metadata."k.l",final_score', "--offset", 1)
        lines = [line.split() for line in found.splitlines()]
        assert lines[0] == ['metadata."k.l"', "final_score"]
        assert lines[2:] == [["a,b", "0.7"], [], ["0.0"]]

    def test_whole_conversations(self, run: Run, store: str) -> None:
        found = run("head", store, "--view", "full", "--limit", 2)
        assert "user  A table\n" in found
        assert "for two?\n" in found
        assert "reasoning  greet back\n" in found
        assert 'metadata  {"domain":"Restaurants","k.l":"a,b"}\n' in found
        assert "\x1b" not in run("head", store, "--view", "full")

    def test_json_is_the_records_as_they_were_saved(self, run: Run, store: str) -> None:
        saved = [record.model_dump(mode="json") for record in RECORDS[:4]]
        assert objects(run("head", store, "--json")) == saved

    def test_json_of_columns(self, run: Run, store: str) -> None:
        found = run("head", store, "--json", "--columns", "metadata,metadata.n", "--limit", 1)
        assert objects(found) == [{"metadata": {"domain": "Trains", "n": 1}, "metadata.n": "1"}]

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--filter", "metadata.domain=Trains"], [0.9, None]),
            (["--filter", "metadata.domain=Trains", "--filter", "metadata.n=1"], [0.9]),
            (["--filter", 'metadata.n="1"'], [None]),
            (["--where", "metadata.domain contains rain"], [0.9, None]),
            (["--where", "metadata.domain not startswith T"], [0.7, 0.0]),
            (["--filter", "message_count=-1"], []),
            (["--filter", 'metadata.domain in ["Trains","x"]'], [0.9, None]),
            (["--filter", "metadata.domain=null"], [0.0]),
            (["--order-by", "final_score:desc", "--limit", "2"], [0.9, 0.7]),
            (["--order-by", "metadata.domain", "--order-by", "final_score"], [0.7, 0.9, None, 0.0]),
            (["--limit", "0"], []),
        ],
    )
    def test_filters_order_and_slice(
        self, run: Run, store: str, arguments: list[str], expected: list[Any]
    ) -> None:
        found = objects(run("head", store, "--json", *arguments))
        assert [record["final_score"] for record in found] == expected

    def test_documents(self, run: Run, store: str) -> None:
        texts = "texts.jsonl" if store.endswith(".jsonl") else store
        found = run("head", texts, "--kind", "documents", "--limit", 1)
        assert found.splitlines()[2].split() == ["d0", "text", "0", "0", '{"n":0}']
        assert "id  d0\n" in run("head", texts, "--kind", "documents", "--view", "full")


class TestStats:
    def test_are_those_of_the_library(self, run: Run, store: str) -> None:
        found = SQLStorage("duckdb:///talks.duckdb").stats()
        documents = 0 if store.endswith(".jsonl") else 3  # those are in another file
        expected = {**json.loads(json.dumps(found.as_dict())), "documents": documents}
        assert json.loads(run("stats", store, "--json")) == expected
        assert run("stats", store).startswith("4 conversations, 6 messages, ")

    def test_with_a_filter(self, run: Run, store: str) -> None:
        found = run("stats", store, "--filter", "metadata.domain=Trains", "--top-keys", 1)
        assert found.startswith("2 conversations")
        assert "and 1 more" in found


class TestSql:
    def test_a_table(self, run: Run, store: str) -> None:
        found = run(
            "sql", store, "SELECT role, count(*) AS n FROM messages GROUP BY role ORDER BY role"
        )
        assert [line.split() for line in found.splitlines()] == [
            ["role", "n"], [found.splitlines()[1]], ["assistant", "3"], ["user", "3"],
        ]  # fmt: skip

    def test_json(self, run: Run, store: str) -> None:
        query = "SELECT id, '50%' AS \"a:b\", [1.5] AS l, NULL AS n, DATE '2026-01-02' AS d "
        rows = objects(run("sql", store, f"{query} FROM conversations", "--json", "--limit", 1))
        assert rows == [{"id": 1, "a:b": "50%", "l": [1.5], "n": None, "d": "2026-01-02"}]

    def test_documents_and_other_records(self, run: Run, store: str) -> None:
        count = "SELECT count(*) AS n FROM "
        assert objects(run("sql", store, f"{count} records", "--json")) == [{"n": 1}]
        texts = ["texts.jsonl", "--kind", "documents"] if store.endswith(".jsonl") else [store]
        name, *options = texts
        assert objects(run("sql", name, f"{count} documents", "--json", *options)) == [{"n": 3}]

    def test_a_long_table_says_that_it_is_truncated(self, store: str) -> None:
        result = attempt("sql", store, "SELECT * FROM range(1000)")
        assert len(result.stdout.splitlines()) == 2 + 100
        assert result.stderr == "The first 100 rows; use --limit for more.\n"
        assert (
            len(attempt("sql", store, "FROM range(1000)", "--limit", 500).stdout.splitlines())
            == 502
        )

    @pytest.mark.parametrize(
        "query",
        [
            "DELETE FROM conversations",
            "CREATE TABLE more (n INT)",
            "SELECT 1; DROP VIEW messages",
        ],
    )
    def test_changes_nothing(self, run: Run, query: str) -> None:
        result = attempt("sql", "talks.duckdb", query)
        assert result.exit_code == 2
        assert (
            run("sql", "talks.duckdb", "SELECT count(*) AS n FROM messages", "--json")
            == '{"n":6}\n'
        )

    def test_an_error_is_one_line(self, store: str) -> None:
        result = attempt("sql", store, "SELECT * FROM\n nowhere")
        assert result.exit_code == 2
        assert "nowhere" in result.stderr
        assert len(result.stderr.splitlines()) == 1


class TestVerify:
    def test_a_valid_store(self, run: Run, store: str) -> None:
        assert "4 conversations" in run("verify", store)
        assert json.loads(run("verify", store, "--json"))["ok"] is True

    def test_a_corrupt_store(self, folder: Path) -> None:
        with Path("talks.jsonl").open("ab") as file:
            file.write(b'{"conversations": 3}\n{"conversations": [[]]}\n{"conv')
        result = attempt("verify", "talks.jsonl")
        assert result.exit_code == 1
        assert result.stdout.startswith("talks.jsonl\n4 conversations")
        assert "line 8" in result.stdout
        told = json.loads(attempt("verify", "talks.jsonl", "--json").stdout)
        assert (told["ok"], told["records"], told["torn_tails"]["count"]) == (False, 3, 1)

    def test_documents(self, run: Run) -> None:
        assert "3 documents" in run("verify", "texts.jsonl", "--kind", "documents")
        assert "3 documents" in run("verify", "talks.duckdb")


class TestTables:
    NAMES = ("--conversations-table", "my talks", "--documents-table", "texts")

    def test_every_command_accepts_other_table_names(self, run: Run) -> None:
        run("import", "talks.jsonl", "own.duckdb", *self.NAMES)
        run("import", "texts.jsonl", "own.duckdb", *self.NAMES, "--kind", "documents")
        store = SQLStorage("duckdb:///own.duckdb", "my talks", "texts")
        assert (store.count_conversations(), store.count_documents()) == (4, 3)
        assert run("export", "own.duckdb", "out.jsonl", *self.NAMES).startswith("4 ")
        usual = run("head", "talks.duckdb", "--json")
        assert run("head", "own.duckdb", "--json", *self.NAMES) == usual
        assert run("stats", "own.duckdb", *self.NAMES) == run("stats", "talks.duckdb")
        assert "4 conversations, 3 documents" in run("verify", "own.duckdb", *self.NAMES)
        query = 'SELECT count(*) AS n FROM "my talks", texts'
        assert run("sql", "own.duckdb", query, "--json", *self.NAMES) == '{"n":12}\n'

    @pytest.mark.parametrize("command", [["head"], ["stats"], ["verify"], ["sql", "SELECT 1"]])
    def test_reading_creates_none(self, run: Run, command: list[str]) -> None:
        name, *more = command
        before = Path("talks.duckdb").read_bytes()
        for wrong in (self.NAMES[:2], self.NAMES[2:]):
            result = attempt(name, "talks.duckdb", *more, *wrong)
            assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
            assert wrong[1] in result.stderr
        assert Path("talks.duckdb").read_bytes() == before

    @pytest.mark.parametrize("command", ["head", "stats", "verify"])
    def test_json_lines_have_none(self, folder: Path, command: str) -> None:
        result = attempt(command, "talks.jsonl", *self.NAMES)
        assert result.exit_code == 2
        assert "no tables" in result.stderr


class TestStores:
    @pytest.mark.parametrize("command", [["head"], ["stats"], ["sql"], ["export"], ["verify"]])
    @pytest.mark.parametrize("name", ["no.duckdb", "no.jsonl", "duckdb:///no.duckdb", "no"])
    def test_reading_creates_none(self, folder: Path, command: list[str], name: str) -> None:
        before = sorted(folder.iterdir())
        more = {"sql": ["SELECT 1"], "export": ["out.jsonl"]}.get(command[0], [])
        result = attempt(*command, name, *more)
        assert result.exit_code == 2
        path = name.removeprefix("duckdb:///")
        assert result.stderr == f"Error: the store {path} does not exist. Check the path.\n"
        assert sorted(folder.iterdir()) == before

    def test_a_database_without_a_store_is_unchanged(self, folder: Path) -> None:
        import duckdb

        with duckdb.connect("other.duckdb") as connection:
            connection.execute("CREATE TABLE mine (n INT)")
        result = attempt("stats", "other.duckdb")
        assert result.exit_code == 2
        assert "has no storage tables" in result.stderr
        with duckdb.connect("other.duckdb") as connection:
            assert connection.execute("SHOW TABLES").fetchall() == [("mine",)]

    def test_an_existing_store_is_recognised_by_its_bytes(self, run: Run, folder: Path) -> None:
        (folder / "talks.duckdb").rename("base")
        (folder / "talks.jsonl").rename("lines.txt")
        assert run("head", "base", "--json") == run("head", "lines.txt", "--json")
        run("import", "lines.txt", "base")
        assert len(objects(run("head", "base", "--json"))) == 8

    @pytest.mark.parametrize("name", ["notes.txt", ".", "postgresql://host/db"])
    def test_other_files(self, folder: Path, name: str) -> None:
        (folder / "notes.txt").write_text("Hello")
        result = attempt("head", name)
        assert result.exit_code in (1, 2)
        assert result.stderr.splitlines()[-1].startswith("Error: ")

    def test_errors_of_the_library_are_one_line(self, store: str) -> None:
        result = attempt("head", store, "--filter", "final_scor=1")
        assert (result.exit_code, result.stderr) == (
            2,
            "Error: unknown field 'final_scor'. Did you mean final_score?\n",
        )


class TestGroupedRows:
    def test_are_imported_as_conversations(self, run: Run, folder: Path) -> None:
        lines = [f'{{"talk": {n // 2}, "role": "user", "content": "{n}"}}\n' for n in range(4)]
        Path("log.jsonl").write_text("".join(lines))
        assert run("import", "log.jsonl", "log.duckdb", "--group-by", "talk") == (
            "2 conversations imported into log.duckdb\n"
        )
        result = attempt("import", "log.jsonl", "log.duckdb", "--order-by", "at")
        assert result.exit_code == 2
