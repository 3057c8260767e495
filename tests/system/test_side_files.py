"""Side files hold data of the file they are beside, so they have its mode."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from afterimage.storage import JSONLStorage, SQLStorage
from tests.support.records import conversation, firsts

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
class TestModes:
    def test_the_journal_of_a_save(
        self, tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl")
        storage.save_conversations([conversation("a")])
        storage.conversations_path.chmod(mode)
        modes: list[int] = []
        sync = os.fsync

        def see(handle: int) -> None:
            modes.extend(map(mode_of, tmp_path.glob("*.saving")))
            sync(handle)

        monkeypatch.setattr(os, "fsync", see)
        storage.save_conversations([conversation("b"), conversation("c")])
        assert modes
        assert set(modes) == {mode}

    def test_a_torn_line_that_is_moved_aside(self, tmp_path: Path, mode: int) -> None:
        storage = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl")
        storage.conversations_path.write_text('{"conversations": [{"ro')
        storage.conversations_path.chmod(mode)
        with pytest.warns(UserWarning, match="torn"):
            storage.save_conversations([conversation("a")])
        [aside] = tmp_path.glob("*.torn-*")
        assert mode_of(aside) == mode_of(storage.conversations_path) == mode

    def test_a_database_in_the_place_of_an_empty_file(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "store.duckdb"
        path.touch()
        path.chmod(mode)
        storage = SQLStorage(f"duckdb:///{path}")
        storage.save_conversations([conversation("a")])
        assert mode_of(path) == mode
        assert firsts(storage.load_conversations()) == ["a"]
