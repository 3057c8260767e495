"""The examples of the docs run and print what is shown, and the links have targets."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Conversation, JSONLStorage, SQLStorage
from tests.project.test_readme import ROOT, blocks, run_python, run_session

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


class TestQueryLanguage:
    @pytest.mark.parametrize("storage", ["sql", "jsonl"])
    def test_the_examples_give_what_they_show(
        self, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        first, *others = [b for b in blocks(page("query-language.md")) if b.language]
        namespace: dict[str, Any] = {"__name__": "__main__"}
        run_python(first, namespace)
        if storage == "jsonl":
            store = JSONLStorage("talks.jsonl")
            store.save_conversations(namespace["store"].load_conversations())
            namespace["store"] = store
        assert len(others) >= 7
        for block in others:
            (run_python if block.language == "python" else run_session)(block, namespace)

    def test_the_table_of_null_is_what_happens(self) -> None:
        lines = page("query-language.md").split("| the stored value is |")[1].splitlines()
        questions = re.findall(r"`((?:not )?\S+) ([^`]+)`", lines[0])
        values: dict[str, list[dict[str, Any]]] = {
            "`3`": [{"n": 3}],
            "`2`": [{"n": 2}],
            '`"3"`': [{"n": "3"}],
            "null or absent": [{"n": None}, {}],
        }
        rows = [line.strip("| ").split(" | ") for line in lines[2:6]]
        assert [row[0] for row in rows] == list(values)
        for value, *answers in rows:
            for metadata in values[value]:
                store = SQLStorage("duckdb:///:memory:")
                store.save_conversations([Conversation(conversations=[], metadata=metadata)])
                found = [
                    store.count_conversations([("metadata.n", op, eval(wanted))])
                    for op, wanted in questions
                ]
                assert ["yes" if count else "no" for count in found] == answers


class TestEditing:
    def test_the_examples_give_what_they_show(self) -> None:
        namespace: dict[str, Any] = {"__name__": "__main__"}
        first, *others = [b for b in blocks(page("editing.md")) if b.language]
        run_python(first, namespace)
        assert len(others) == 5
        for block in others:
            run_session(block, namespace)


class TestSchema:
    def test_the_page_is_what_a_new_database_has(self) -> None:
        written = runpy.run_path(str(DOCS / "write_pages.py"))["written"]
        assert page("schema.md") == written("schema.md"), "run: python docs/write_pages.py"


class TestListForLanguageModels:
    def test_it_is_that_of_the_index(self) -> None:
        written = runpy.run_path(str(DOCS / "write_pages.py"))["written"]
        assert page("llms.txt") == written("llms.txt"), "run: python docs/write_pages.py"

    def test_it_has_every_page_once(self) -> None:
        names = re.findall(r"\]\(([^)]+)\)", page("llms.txt"))
        assert sorted(names) == [path.name for path in PAGES if path.name != "README.md"]


class TestSite:
    def test_its_navigation_has_every_guide_once(self) -> None:
        navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
        named = re.findall(r"^ +- (?:[\w ]+: )?([\w-]+\.md)$", navigation, re.MULTILINE)
        moved = {"index.md", "guides.md", "CHANGELOG.md", "CONTRIBUTING.md"}
        assert sorted({*named} - moved) == [path.name for path in PAGES if path.name != "README.md"]
        assert len(named) == len({*named})


def recipes() -> list[Any]:
    """Each ```sql block of the cookbook, with the block after it, which is its result."""
    all_blocks = blocks(page("sql-cookbook.md"))
    return [
        pytest.param(block.text, shown.text.strip(), id=f"line {block.line}")
        for block, shown in pairwise(all_blocks)
        if block.language == "sql"
    ]


@pytest.fixture(scope="module")
def cookbook(tmp_path_factory: pytest.TempPathFactory) -> tuple[SQLStorage, Path]:
    """The store of the recipes, and its file."""
    folder = tmp_path_factory.mktemp("cookbook")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_python(blocks(page("sql-cookbook.md"))[0], namespace)
    return namespace["store"], folder / "talks.duckdb"


class TestCookbook:
    def test_every_recipe_is_found(self) -> None:
        assert len(recipes()) == page("sql-cookbook.md").count("```sql") >= 10

    @pytest.mark.parametrize(("query", "shown"), recipes())
    def test_answers_in_python(
        self, cookbook: tuple[SQLStorage, Path], query: str, shown: str
    ) -> None:
        header, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()
        ]
        with cookbook[0].engine.connect() as connection:
            answer = connection.exec_driver_sql(query)
            assert list(answer.keys()) == header
            told = [["NULL" if v is None else str(v) for v in row] for row in answer.all()]
        assert told == rows
        pd = pytest.importorskip("pandas", reason="pandas is in the extra `test`")
        assert len(pd.read_sql(query, cookbook[0].engine)) == len(rows)

    @pytest.mark.process
    @pytest.mark.parametrize(("query", "shown"), recipes())
    def test_answers_in_the_duckdb_cli(
        self, cookbook: tuple[SQLStorage, Path], query: str, shown: str
    ) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        cli = shutil.which("duckdb", path=path)
        if cli is None:
            pytest.skip("no DuckDB CLI here: pip install duckdb-cli")
        command = [cli, "-readonly", "-markdown", str(cookbook[1]), "-c", query]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stderr, done.stdout.strip()) == ("", shown)


class TestLinks:
    @pytest.mark.parametrize(
        "path", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name
    )
    def test_lead_to_files_that_are_there(self, path: Path) -> None:
        text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
        inside = [link for link in links if "://" not in link]
        assert [link for link in inside if not (path.parent / link).exists()] == []

    def test_the_index_names_every_page(self) -> None:
        named = set(re.findall(r"\]\(([\w-]+\.md)\)", page("README.md")))
        assert named == {path.name for path in PAGES} - {"README.md"}

    @pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
    def test_no_path_of_a_machine_is_named(self, path: Path) -> None:
        assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users)/", path.read_text("utf-8"))
