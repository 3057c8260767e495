"""Field paths: what they are split into, what they are bound to, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage import InvalidQueryError, UnknownFieldError
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, Double, Json, Text
from afterimage.storage.records.paths import parse, render, resolve

STEPS = {
    "final_score": ("final_score",),
    "metadata.domain": ("metadata", "domain"),
    "metadata.a.b": ("metadata", "a", "b"),
    'metadata."k.l"': ("metadata", "k.l"),
    'metadata."k.l".m': ("metadata", "k.l", "m"),
    'metadata.""': ("metadata", ""),
    'metadata."say ""hi"""': ("metadata", 'say "hi"'),
    'metadata.a"b': ("metadata", 'a"b'),
    "metadata. ": ("metadata", " "),
    "metadata.$": ("metadata", "$"),
    "metadata.*": ("metadata", "*"),
    "metadata.0": ("metadata", "0"),
    '"metadata"."a"': ("metadata", "a"),
}


@pytest.mark.parametrize(("path", "steps"), STEPS.items(), ids=STEPS)
def test_a_path_is_split_on_dots_outside_quotes(path: str, steps: tuple[str, ...]) -> None:
    assert parse(path) == steps


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_rendered_steps_are_split_into_the_same_steps(steps: list[str]) -> None:
    assert parse(render(tuple(steps))) == tuple(steps)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty step"),
        (".", "empty step"),
        ("metadata.", "empty step"),
        ("metadata..a", "empty step"),
        ('metadata."a', "unclosed quote"),
        ('metadata."', "unclosed quote"),
        ('metadata."a"b', "closing quote"),
        (3, "string"),
        (None, "string"),
        (["metadata"], "string"),
    ],
)
def test_a_malformed_path_is_refused(path: object, reason: str) -> None:
    with pytest.raises(InvalidQueryError, match=reason):
        parse(path)


@pytest.mark.parametrize(
    ("path", "column", "inner", "keys", "field_type"),
    [
        ("final_score", "final_score", (), (), Double()),
        ("persona", "persona", (), (), Text()),
        ("evaluation.coherence.score", "evaluation", ("coherence", "score"), (), Double()),
        ("metadata", "metadata", (), (), Json()),
        ("metadata.a.b", "metadata", (), ("a", "b"), Json()),
        ('metadata."a.b"', "metadata", (), ("a.b",), Json()),
    ],
)
def test_a_path_is_bound_to_the_declared_fields(
    path: str, column: str, inner: tuple[str, ...], keys: tuple[str, ...], field_type: object
) -> None:
    field = resolve(CONVERSATIONS.record.fields, path)
    assert (field.path, field.column, field.inner, field.keys) == (path, column, inner, keys)
    assert field.type == field_type


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("final_scor", "final_score"),
        ("evaluation.coherence.scor", "evaluation.coherence.score"),
        ("persona.name", "persona"),
        ("conversations.role", "conversations"),
        ("text", "Known|mean"),
    ],
)
def test_an_unknown_field_names_the_nearest(path: str, hint: str) -> None:
    with pytest.raises(UnknownFieldError, match=hint):
        resolve(CONVERSATIONS.record.fields, path)


def test_each_kind_has_fields_of_its_own() -> None:
    assert resolve(DOCUMENTS.record.fields, "text").type == Text()
    with pytest.raises(UnknownFieldError):
        resolve(DOCUMENTS.record.fields, "persona")


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidQueryError, match="surrogate"):
        resolve(CONVERSATIONS.record.fields, "metadata.\ud800")
