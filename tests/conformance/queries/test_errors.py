"""Both storages: invalid arguments raise a short `StorageError` and change nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    CorruptRecordError,
    Document,
    InvalidQueryError,
    MissingFileError,
    StorageError,
    UnknownFieldError,
)
from tests.support.factories import EVALUATORS
from tests.support.messages import assert_short
from tests.support.records import conversation, conversations, firsts

READS = [
    "load_conversations",
    "iter_conversations",
    "scan_conversations",
    "load_documents",
    "iter_documents",
    "scan_documents",
]


BAD_LINES = [
    b"{",
    b"nonsense",
    b'{"conversations": [}',
    b'{"conversations": []} {"conversations": []}',
    b'{"conversations": [], "metadata": {"k": "\xff"}}',
    b'{"conversations": [], "metadata": {"k": "\\ud800"}}',
    b'{"conversations": [], "metadata": {"k": 01}}',
    b"[]",
    b'"text"',
    b"3",
    b'{"conversations": [{"role": "narrator", "content": "x"}]}',
    b'{"conversations": [{"role": "user", "content": 3}]}',
    b'{"conversations": [], "final_score": "high"}',
    b'{"conversations": [], "evaluation": {"coherence": 1}}',
    b'{"conversations": [], "metadata": [1]}',
    b'{"conversations": [], "metadata": {"k": %s}}' % (b"[" * 1000 + b"]" * 1000),
]


def read(storage: Any, name: str, **arguments: Any) -> None:
    """Make the call and read its whole result, so that a lazy call checks its arguments too."""
    for _ in getattr(storage, name)(**arguments):
        pass


@pytest.fixture(autouse=True)
def filled(storage: Any) -> Any:
    """Errors do not depend on an empty storage, and do not delete records."""
    storage.save_conversations(conversations({"n": 1}, {"n": 2}))
    storage.save_documents([Document(id="0"), Document(id="1")])
    yield storage
    assert firsts(storage.load_conversations()) == ["0", "1"]
    assert [document.id for document in storage.load_documents()] == ["0", "1"]


class TestSlices:
    @pytest.mark.parametrize("argument", ["limit", "offset"])
    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_only_whole_numbers_from_zero(
        self, filled: Any, argument: str, subtests: pytest.Subtests
    ) -> None:
        for name, bad in itertools.product(READS, [-1, -(2**70), 1.5, "3", True]):
            with subtests.test(name, bad=bad):
                with pytest.raises(ValueError, match=argument) as caught:
                    read(filled, name, **{argument: bad})
                assert isinstance(caught.value, InvalidQueryError)
                assert_short(caught.value)


class TestUnknownFields:
    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_the_nearest_fields_are_named(self, filled: Any, subtests: pytest.Subtests) -> None:
        nearest = {
            "final_scor": "final_score",
            "persna": "persona",
            "evaluation.coherense.score": "evaluation.coherence.score",
            "evaluation.coherence.scores": "evaluation.coherence.score",
            "metadat.domain": "metadata",
        }
        for name, field in itertools.product(["load_conversations", "iter_conversations"], nearest):
            with subtests.test(name, field=field):
                for arguments in ({"filters": {field: 1}}, {"order_by": [(field, 1)]}):
                    with pytest.raises(UnknownFieldError) as caught:
                        read(filled, name, **arguments)
                    assert_short(caught.value, field, nearest[field])
                    assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_invalid_fields(self, filled: Any, subtests: pytest.Subtests) -> None:
        for field in [
         "", ".", "metadata.", ".n", "metadata..n", 'metadata."n', 'metadata."n"x', "nonsense",
         "conversations.content", "conversations.0", "persona.name", "final_score.x",
         "evaluation.coherence.score.x", "x; DROP TABLE conversations; --", "persona\n" * 1000,
         "metadata.\ud800", None, 3, ("metadata", "n"), b"persona",
        ]:  # fmt: skip
            with subtests.test(field=ascii(field)):
                for arguments in ({"filters": {field: 1}}, {"order_by": [(field, 1)]}):
                    with pytest.raises(InvalidQueryError) as caught:
                        filled.load_conversations(**arguments)
                    assert_short(caught.value)
                with pytest.raises(InvalidQueryError):
                    filled.count_conversations({field: 1})
                with pytest.raises(InvalidQueryError):
                    filled.scan_conversations(columns=[field])

    def test_fields_of_the_other_kind_of_record(self, filled: Any) -> None:
        with pytest.raises(UnknownFieldError):
            filled.load_documents(filters={"persona": "x"})
        with pytest.raises(UnknownFieldError):
            filled.load_conversations(filters={"text": "x"})
        with pytest.raises(UnknownFieldError):
            filled.load_documents(filters={"personas.descriptions": "x"})


class TestFilters:
    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_invalid_filters(self, filled: Any, subtests: pytest.Subtests) -> None:
        for filters in [
            "metadata.n == 1",
            b"x",
            3,
            ("metadata.n", "==", 1),
            [("metadata.n", 1)],
            [("metadata.n", "==", 1, 2)],
            [("metadata.n",)],
            [[("metadata.n", "==", 1)], []],
            [[]],
            [None],
            [("metadata.n", "==", 1), [("metadata.n", "==", 1)]],
            [("metadata.n", "~", 1)],
            [("metadata.n", "===", 1)],
            [("metadata.n", "==; DROP TABLE conversations", 1)],
            [("metadata.n", None, 1)],
            [("metadata.n", "LIKE", "%")],
            [("metadata.n", "in", 1)],
            [("metadata.n", "in", "12")],
            [("metadata.n", "not in", None)],
            [("metadata.n", "in", {"a": 1})],
            {"metadata.n": object()},
            {"metadata.n": "\ud800"},
            {"metadata.n": {"k": b"\xff"}},
        ]:
            with subtests.test(filters=ascii(filters)):
                for name in ("load_conversations", "iter_conversations", "scan_conversations"):
                    with pytest.raises(InvalidQueryError) as caught:
                        read(filled, name, filters=filters)
                    assert_short(caught.value)
                with pytest.raises(InvalidQueryError):
                    filled.count_conversations(filters)

    def test_long_values_do_not_make_long_messages(self, filled: Any) -> None:
        with pytest.raises(InvalidQueryError) as caught:
            filled.load_conversations(filters=[("metadata.n", "in", "x" * 100_000)])
        assert_short(caught.value, "metadata.n")

    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_an_integer_that_python_cannot_print(
        self, filled: Any, subtests: pytest.Subtests
    ) -> None:
        endless: Any = 10**4300  # its repr() raises ValueError
        calls: dict[str, Callable[[], Any]] = {
            "value": lambda: filled.load_conversations(filters={"metadata.n": endless}),
            "values": lambda: filled.count_conversations([("metadata.n", "in", [endless])]),
            "field": lambda: filled.load_conversations(filters=[(endless, "==", 1)]),
            "operator": lambda: filled.load_conversations(filters=[("persona", endless, 1)]),
            "filters": lambda: filled.load_conversations(filters=endless),
            "direction": lambda: filled.load_conversations(order_by=[("persona", endless)]),
            "order": lambda: filled.load_conversations(order_by=endless),
            "columns": lambda: filled.scan_conversations(endless),
            "limit": lambda: filled.load_conversations(limit=-endless),
            "on_error": lambda: filled.load_conversations(on_error=endless),
            "kind": lambda: filled.import_jsonl("nothing.jsonl", kind=endless),
            "model": lambda: filled.load_records(endless),
        }
        for name, call in calls.items():
            with subtests.test(name):
                with pytest.raises(InvalidQueryError) as caught:
                    call()
                assert_short(caught.value)
        assert filled.load_conversations(limit=endless) == filled.load_conversations()

    def test_an_unknown_operator_is_named_with_the_known_ones(self, filled: Any) -> None:
        with pytest.raises(InvalidQueryError) as caught:
            filled.load_conversations(filters=[("metadata.n", "<>", 1)])
        assert_short(caught.value, "<>", "metadata.n", "!=", "not in")


class TestOrderBy:
    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_unknown_directions(self, filled: Any, subtests: pytest.Subtests) -> None:
        for bad in [0, 2, -2, "ascending", "", None, True, 1.5, [1]]:
            with subtests.test(direction=bad):
                with pytest.raises(InvalidQueryError) as caught:
                    filled.load_conversations(order_by=[("metadata.n", bad)])
                assert_short(caught.value, "metadata.n", "asc")

    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_anything_but_fields_and_pairs(self, filled: Any, subtests: pytest.Subtests) -> None:
        for order_by in [
         "nonsense", "", "-", ["--metadata.n"], [("metadata.n",)], ("metadata.n", 1),
         {"metadata.n": 1}, 3,
         [("metadata.n", 1, 2)], [None],
        ]:  # fmt: skip
            with subtests.test(order_by=order_by):
                for name in ("load_conversations", "iter_conversations", "scan_conversations"):
                    with pytest.raises(InvalidQueryError) as caught:
                        read(filled, name, order_by=order_by)
                    assert_short(caught.value)


class TestFiles:
    def test_an_import_of_a_missing_file(self, filled: Any, tmp_path: Path) -> None:
        for kind in ("conversations", "documents"):
            with pytest.raises(MissingFileError) as caught:
                filled.import_jsonl(tmp_path / "nothing-there.jsonl", kind=kind)
            assert_short(caught.value, "nothing-there.jsonl")
            assert isinstance(caught.value, FileNotFoundError)

    @pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst"])
    def test_an_export_into_a_missing_folder(self, filled: Any, tmp_path: Path, name: str) -> None:
        with pytest.raises(MissingFileError) as caught:
            filled.export_jsonl(tmp_path / "missing" / name)
        assert_short(caught.value, "missing")
        with pytest.raises(MissingFileError):
            filled.export_parquet(tmp_path / "missing" / "out.parquet")
        assert not (tmp_path / "missing").exists()

    def test_an_import_with_a_bad_line_stores_nothing(
        self, filled: Any, tmp_path: Path, subtests: pytest.Subtests
    ) -> None:
        good = conversation("é").model_dump_json().encode() + b"\n"
        path = tmp_path / "some lines.jsonl"
        for line in BAD_LINES:
            path.write_bytes(good * 2 + line + b"\n" + good)
            with subtests.test(line=line[:60]):
                with pytest.raises(CorruptRecordError) as caught:
                    filled.import_jsonl(path)
                assert_short(caught.value, "some lines.jsonl", "3", str(2 * len(good)))
                assert caught.value.path == path
                assert caught.value.line == 3
                assert caught.value.offset == 2 * len(good)

    def test_an_import_names_the_first_of_several_bad_lines(
        self, filled: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "some lines.jsonl"
        good = conversation("é").model_dump_json().encode()
        no_record, no_json = b'{"conversations":[],"metadata":3}', b"nonsense"
        for bad in ([no_record, no_json], [no_json, no_record]):
            path.write_bytes(b"\n".join([good, bad[0], good, bad[1], good]))
            with pytest.raises(CorruptRecordError) as caught:
                filled.import_jsonl(path)
            assert (caught.value.line, caught.value.offset) == (2, len(good) + 1)

    def test_an_import_of_bad_documents_stores_nothing(self, filled: Any, tmp_path: Path) -> None:
        path = tmp_path / "documents.jsonl"
        path.write_text('{"id": "good"}\n{"id": 3}\n')
        with pytest.raises(CorruptRecordError) as caught:
            filled.import_jsonl(path, kind="documents")
        assert caught.value.line == 2

    @pytest.mark.parametrize("call", ["export_jsonl", "import_jsonl", "export_parquet"])
    def test_an_unknown_kind(self, filled: Any, tmp_path: Path, call: str) -> None:
        path = tmp_path / "file.jsonl"
        if call == "import_jsonl":
            path.write_text("")
        with pytest.raises(ValueError, match="conversation") as caught:
            getattr(filled, call)(path, kind="conversation")
        assert isinstance(caught.value, StorageError)
        assert_short(caught.value, "documents")

    def test_an_export_that_fails_leaves_the_earlier_file(
        self, filled: Any, tmp_path: Path
    ) -> None:
        jsonl, parquet = tmp_path / "out.jsonl", tmp_path / "out.parquet"
        calls: list[tuple[Path, Callable[..., int]]] = [
            (jsonl, filled.export_jsonl),
            (parquet, filled.export_parquet),
        ]
        for path, export in calls:
            path.write_bytes(b"earlier")
            with pytest.raises(UnknownFieldError):
                export(path, filters={"nonsense": 1})
            assert path.read_bytes() == b"earlier"
        assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
            "out.jsonl",
            "out.parquet",
        }
