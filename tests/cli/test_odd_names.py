"""Names with special characters of URLs: each command uses the file of this name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from afterimage.storage import SQLStorage, UnsupportedURLError
from tests.cli.conftest import attempt, objects

Run = Callable[..., str]


@pytest.mark.parametrize("prefix", ["", "duckdb:///"])
@pytest.mark.parametrize("name", ["odd?name.duckdb", "a%20b.duckdb", "a#b.duckdb", "a&b=c.duckdb"])
def test_every_command_uses_the_file_of_this_name(
    run: Run, folder: Path, prefix: str, name: str
) -> None:
    before = {path.name for path in folder.iterdir()}
    store = prefix + name
    run("import", "talks.jsonl", store)
    assert {path.name for path in folder.iterdir()} - before == {name, f"{name}.lock"}
    assert json.loads(run("stats", store, "--json"))["conversations"] == 4
    assert len(objects(run("head", store, "--json"))) == 4
    [row] = objects(run("sql", store, "SELECT count(*) AS n FROM conversations", "--json"))
    assert row == {"n": 4}
    run("verify", store)
    run("export", store, "out.jsonl")
    assert len((folder / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    names = {path.name for path in folder.iterdir()} - before
    assert names == {name, f"{name}.lock", "out.jsonl"}


@pytest.mark.parametrize(
    "url", ["duckdb:///a.duckdb?read_only=1", "duckdb:///a.duckdb?", "duckdb:///?x"]
)
def test_a_query_part_of_a_url_is_refused_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsupportedURLError):
        SQLStorage(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["head", "stats", "verify"])
def test_a_query_part_of_a_url_is_refused_on_the_command_line(folder: Path, command: str) -> None:
    before = sorted(folder.iterdir())
    result = attempt(command, "duckdb:///talks.duckdb?read_only=1")
    assert result.exit_code != 0
    assert "talks.duckdb?read_only=1" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(folder.iterdir()) == before


class TestRepair:
    def test_verify_repairs_metadata_columns(self, run: Run) -> None:
        run("import", "talks.jsonl", "new.duckdb", "--metadata-field", "domain")
        with SQLStorage("duckdb:///new.duckdb").engine.begin() as connection:
            connection.exec_driver_sql('UPDATE conversations SET metadata = \'{"domain":"X"}\'')
        result = attempt("verify", "new.duckdb")
        assert (result.exit_code, "repair" in result.stdout) == (1, True)
        assert attempt("verify", "new.duckdb").exit_code == 1
        assert json.loads(run("verify", "new.duckdb", "--repair", "--json"))["ok"]
        run("verify", "new.duckdb")
        filtered = run("head", "new.duckdb", "--filter", "metadata.domain=X", "--json")
        assert len(objects(filtered)) == 4

    def test_of_a_sound_store_changes_nothing(self, run: Run, store: str) -> None:
        before = run("head", store, "--json")
        run("verify", store, "--repair")
        assert run("head", store, "--json") == before
