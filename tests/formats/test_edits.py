"""Edits from one object to another."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given

from afterimage.storage.formats.edits import applied, difference
from tests.formats.examples import json_objects, same


class TestAnyTwoObjects:
    @given(json_objects, json_objects)
    def test_the_edits_make_the_second_out_of_the_first(
        self, made: dict[str, Any], given: dict[str, Any]
    ) -> None:
        before = json.dumps(made)
        edits = json.loads(json.dumps(difference(made, given)))
        assert same(applied(made, edits)) == same(given)
        assert json.dumps(made) == before

    @given(json_objects, json_objects)
    def test_nulls_come_out_if_they_count(
        self, made: dict[str, Any], given: dict[str, Any]
    ) -> None:
        assert applied(made, difference(made, given, nulls=True)) == given

    @given(json_objects)
    def test_equal_objects_have_none(self, made: dict[str, Any]) -> None:
        assert difference(made, json.loads(json.dumps(made))) == {}


class TestSmallEdits:
    LONG = "a text that is longer than its place"

    def test_text_that_is_elsewhere_is_not_kept_again(self) -> None:
        made = {"turns": [{"role": "system", "content": self.LONG}, {"role": "user"}]}
        given = {"turns": [{"role": "user"}], "system": self.LONG}
        edits = difference(made, given)
        assert edits == {"absent": ["/turns/0"], "moved": {"/system": "/turns/0/content"}}
        assert applied(made, edits) == given

    def test_json_text_of_what_is_there_is_not_kept_again(self) -> None:
        made = {"a": '{"n": 1}', "b": [1]}
        given = {"a": {"n": 1}, "b": "[1]"}
        edits = difference(made, given)
        assert edits == {"text": ["/b"], "parsed": ["/a"]}
        assert applied(made, edits) == given

    def test_keys_with_slashes_and_tildes_are_found(self) -> None:
        made, given = {"a/b": {"m~n": 1}}, {"a/b": {"m~n": 2}}
        edits = difference(made, given)
        assert edits == {"values": {"/a~1b/m~0n": 2}}
        assert applied(made, edits) == given
