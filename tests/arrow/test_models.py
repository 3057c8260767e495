"""Models built from columns are the models that validation gives."""

from __future__ import annotations

import pickle
from typing import Annotated, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from afterimage.storage import (
    ChatConversation,
    Conversation,
    ConversationEntry,
    EvaluatedConversationWithContext,
)
from afterimage.storage.arrow.batches import batch_of_models
from afterimage.storage.arrow.models import _built_models, _plan_of, models_of
from afterimage.storage.arrow.objects import without_extra
from afterimage.storage.records.fields import CONVERSATIONS, Struct, Text
from afterimage.storage.records.validation import list_adapter
from tests.support.plain_python import same
from tests.support.strategies import evaluated_conversations


def _parts(model: BaseModel) -> list[Any]:
    """Return what a model and the models in it hold, besides their values."""
    own = (
        type(model),
        list(model.__dict__),
        model.model_fields_set,
        model.__pydantic_extra__,
        model.__pydantic_private__,
    )
    inner = [
        each
        for value in model.__dict__.values()
        for each in (value if isinstance(value, list) else [value])
        if isinstance(each, BaseModel)
    ]
    return [own, *map(_parts, inner)]


@given(records=st.lists(evaluated_conversations, max_size=5), start=st.integers(0, 4))
def test_they_equal_validated_models(
    records: list[EvaluatedConversationWithContext], start: int
) -> None:
    batch = batch_of_models(CONVERSATIONS, records, range(len(records)))
    for part in (batch, batch.slice(start, 2)):
        built = _built_models(CONVERSATIONS, part)
        objects = without_extra(CONVERSATIONS, part, members=True)
        validated = list_adapter(CONVERSATIONS).validate_python(objects)
        assert built is not None
        assert same(built, validated)
        assert [*map(_parts, built)] == [*map(_parts, validated)]


def test_they_share_nothing_and_can_be_changed_copied_and_pickled() -> None:
    talk = EvaluatedConversationWithContext(
        conversations=[{"role": "user", "content": text} for text in "ab"],
        metadata={"a": {}},
    )
    first, second = models_of(CONVERSATIONS, batch_of_models(CONVERSATIONS, [talk] * 2, range(2)))
    first.metadata["a"]["b"] = 1
    first.conversations[0].content = "c"
    first.conversations[0].model_fields_set.clear()
    assert second == talk
    assert second.conversations[0].model_fields_set == {"role", "content", "reasoning_content"}
    for copy in (second.model_copy(deep=True), pickle.loads(pickle.dumps(second))):
        assert copy == talk
    assert EvaluatedConversationWithContext.model_validate(second.model_dump()) == talk


@pytest.mark.parametrize("role", ["tool", "narrator"])
def test_what_needs_validation_is_validated(role: str) -> None:
    talk = EvaluatedConversationWithContext(conversations=[{"role": "user", "content": "a"}])
    batch = batch_of_models(CONVERSATIONS, [talk], [0])
    messages = [{"role": role, "content": "a", "reasoning_content": None}]
    at = batch.schema.names.index("conversations")
    kind = batch.schema.field(at).type
    other = batch.set_column(at, "conversations", pa.array([messages], kind))
    assert _built_models(CONVERSATIONS, other) is None
    if role == "tool":
        assert isinstance(models_of(CONVERSATIONS, other)[0], ChatConversation)
    else:
        with pytest.raises(ValueError, match="role"):
            models_of(CONVERSATIONS, other)


class _Entry(BaseModel):
    content: str


class _Validated(_Entry):
    @field_validator("content")
    @classmethod
    def upper(cls, content: str) -> str:
        return content.upper()


class _Checked(_Entry):
    @model_validator(mode="after")
    def check(self) -> _Checked:
        return self


class _Strict(_Entry):
    model_config = ConfigDict(str_to_lower=True)


class _Private(_Entry):
    _seen: bool = False


class _Constrained(BaseModel):
    content: Annotated[str, Field(min_length=2)]


class _Aliased(BaseModel):
    content: str = Field(alias="text")


class _Other(BaseModel):
    content: bytes


class _Initialised(_Entry):
    def __init__(self, **values: Any) -> None:
        super().__init__(**values)


class _After(_Entry):
    def model_post_init(self, context: Any, /) -> None:
        """Do nothing."""


def test_only_classes_without_validation_of_their_own_are_built() -> None:
    struct = Struct({"content": Text()})
    assert _plan_of(_Entry, struct) is not None
    for model in (
        *(_Validated, _Checked, _Strict, _Private, _Constrained, _Aliased, _Other),
        *(_Initialised, _After, ConversationEntry, Conversation, str, None),
    ):
        assert _plan_of(model, struct) is None, model
    assert _plan_of(_Entry, Struct({"content": Text()}, nullable=("content",))) is None


def test_the_class_of_loaded_conversations_is_built() -> None:
    assert _plan_of(CONVERSATIONS.model, CONVERSATIONS.exact) is not None
