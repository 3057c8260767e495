"""`progress=True` shows a bar of tqdm, or lines if tqdm is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import InvalidQueryError, JSONLStorage, SQLStorage, verify_jsonl
from afterimage.storage.reports import bars
from tests.support.records import conversations

Call = Callable[[Any, Path, Any], Any]

CALLS: dict[str, Call] = {
    "scan": lambda store, _, progress: store.scan_conversations(progress=progress).read_all(),
    "export_jsonl": lambda store, to, progress: store.export_jsonl(to / "a", progress=progress),
    "export_parquet": lambda store, to, progress: store.export_parquet(to / "b", progress=progress),
    "export_hub": lambda store, to, progress: store.export_hub(to / "c", progress=progress),
    "stats": lambda store, _, progress: store.stats(progress=progress),
    "verify": lambda store, _, progress: store.verify(progress=progress),
    "verify_jsonl": lambda _, to, progress: verify_jsonl(to / "other.jsonl", progress=progress),
    "import_jsonl": lambda store, to, progress: store.import_jsonl(
        to / "other.jsonl", progress=progress
    ),
}


@pytest.fixture(params=["jsonl", "sql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    some = conversations(*({"n": n} for n in range(1234)))
    JSONLStorage(tmp_path / "other.jsonl").save_conversations(some)
    name = tmp_path / "talks"
    store = JSONLStorage(f"{name}.jsonl") if request.param == "jsonl" else SQLStorage(f"{name}.db")
    store.save_conversations(some)
    return store


def test_every_long_call_shows_lines_without_tqdm(
    store: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(bars, "_LINE_SECONDS", 0)
    for name, call in CALLS.items():
        call(store, tmp_path, True)
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.splitlines()[-1].startswith("1,234 records"), name


def test_a_bar_of_tqdm_ends_at_its_total(
    store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    CALLS["export_jsonl"](store, tmp_path, True)
    told = capsys.readouterr().err.splitlines()[-1]
    assert "100%" in told
    assert "1234/1234" in told


def test_nothing_is_shown_otherwise(
    store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CALLS["export_jsonl"](store, tmp_path, None)
    CALLS["verify"](store, tmp_path, False)
    assert capsys.readouterr() == ("", "")


def test_other_values_are_rejected_before_anything_changes(store: Any, tmp_path: Path) -> None:
    for call in CALLS.values():
        with pytest.raises(InvalidQueryError, match="progress must be a function, or True"):
            call(store, tmp_path, "yes")
    assert not {path.name for path in tmp_path.iterdir()} & {"a", "b", "c"}
    assert store.count_conversations() == 1234
