"""Build models from record batches, directly from the typed columns where that gives the same.

A column of a batch has values of one type. So for a class without validators, the checks of
pydantic for each value can be replaced by a few checks of whole columns.

The invariant: a model has the same fields, values and set fields as after validation. What the
checks of the columns do not accept, pydantic validates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import pairwise, repeat
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from afterimage.storage.arrow.objects import dicts_of, without_extra
from afterimage.storage.records.chat import is_chat, loaded_object, may_be_chat
from afterimage.storage.records.extras import restore
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    Double,
    FieldType,
    Json,
    List,
    RecordKind,
    Struct,
    Text,
)
from afterimage.storage.records.validation import list_adapter

__all__ = ["models_of"]


def models_of(kind: RecordKind, batch: pa.RecordBatch) -> list[Any]:
    """Return the models of a batch with the declared columns and `extra`.

    Raises:
        ValueError: a row is not a valid record; also other exceptions.
    """
    extras = batch.column("extra")
    if kind is not CONVERSATIONS or not _may_have_chats(extras):
        models = _built_models(kind, batch)
        if models is not None:
            return models
        try:
            return list_adapter(kind).validate_python(without_extra(kind, batch, members=True))
        except ValidationError:
            if kind is not CONVERSATIONS:
                raise
    return [
        loaded_object(kind, _with_chat_fields(record, extra))
        for record, extra in zip(without_extra(kind, batch), extras.to_pylist(), strict=True)
    ]


def _may_have_chats(extras: pa.Array) -> bool:
    """Return whether a quick check finds a field that only chats have."""
    if extras.null_count == len(extras):
        return False
    return any(map(_has_chat_fields, extras.unique().drop_null().to_pylist()))


def _has_chat_fields(extra: str) -> bool:
    return '"content"' in extra or may_be_chat(extra)


def _with_chat_fields(record: dict[str, Any], extra: str | None) -> dict[str, Any]:
    if extra is not None and (_has_chat_fields(extra) or is_chat(record)):
        restore(record, from_json(extra))
    return record


# -- models from columns --------------------------------------------------------------------------


class _UnfitError(Exception):
    """A column has a value that the class may not accept as it is."""


@dataclass(frozen=True)
class _Plan:
    """How models of a class are built.

    Attributes:
        model: the class.
        struct: its fields.
        inner: the plan of each field that holds models.
    """

    model: type[BaseModel]
    struct: Struct
    inner: Mapping[str, _Plan]


def _built_models(kind: RecordKind, batch: pa.RecordBatch) -> list[Any] | None:
    """Return the models of a batch; None if pydantic has to validate them."""
    plan = _plan_of_kind(kind)
    if plan is None:
        return None
    try:
        return _models(plan, [batch.column(name) for name in plan.struct.fields])
    except _UnfitError:
        return None


def _models(plan: _Plan, arrays: Iterable[pa.Array]) -> list[Any]:
    columns = [
        _values(field_type, array, plan.inner.get(name), nullable=name in plan.struct.nullable)
        for (name, field_type), array in zip(plan.struct.fields.items(), arrays, strict=True)
    ]
    fields = dicts_of(plan.struct.fields, columns)
    models = [*map(object.__new__, repeat(plan.model, len(fields)))]
    # Whole columns at once, without a step of the interpreter for each model.
    _for_each(_set_fields, models, fields)
    # Each model has its own set: a change of one must not change the others.
    _for_each(_set_names, models, map(set.copy, repeat({*plan.struct.fields}, len(models))))
    _for_each(_set_extra, models, repeat(None))
    _for_each(_set_private, models, repeat(None))
    return models


def _for_each(function: Callable[..., Any], *arguments: Iterable[Any]) -> None:
    deque(map(function, *arguments), maxlen=0)


def _values(
    field_type: FieldType, array: pa.Array, inner: _Plan | None, *, nullable: bool
) -> Sequence[Any]:
    """Return the values of a column.

    Raises:
        _UnfitError: one of them needs validation.
    """
    if array.null_count and not nullable:
        raise _UnfitError
    if array.null_count == len(array):
        return [None] * len(array)
    match field_type:
        case Text(enum) if enum is not None:
            return _members(enum, array)
        case Json():
            values = [*map(from_json, array.to_pylist())]
            if {*map(type, values)} != {dict}:
                raise _UnfitError
            return values
        case List(Struct()) if inner is not None:
            bounds = array.offsets.to_pylist()
            items = array.values.slice(bounds[0], bounds[-1] - bounds[0])
            if items.null_count:
                raise _UnfitError
            models = _models(inner, _children(items))
            start = bounds[0]
            return [models[low - start : high - start] for low, high in pairwise(bounds)]
        case Struct() if inner is not None:
            present = array.drop_null()
            models = _models(inner, _children(present))
            if not array.null_count:
                return models
            remaining = iter(models)
            return [next(remaining) if valid else None for valid in array.is_valid().to_pylist()]
        case _:
            return array.to_pylist()  # type: ignore[no-any-return]


def _children(array: pa.StructArray) -> list[pa.Array]:
    return [array.field(index) for index in range(array.type.num_fields)]


def _members(enum: type[Enum], array: pa.Array) -> list[Any]:
    """Return the members of an enum with the values of an array, without a lookup for each."""
    encoded = array.dictionary_encode()
    known = {member.value: member for member in enum}
    members = [known.get(value) for value in encoded.dictionary.to_pylist()]
    if array.null_count or None in members:
        raise _UnfitError
    return [*map(members.__getitem__, encoded.indices.to_pylist())]


# -- classes for which that gives the same --------------------------------------------------------

_set_fields: Final = vars(BaseModel)["__dict__"].__set__
_set_names: Final = vars(BaseModel)["__pydantic_fields_set__"].__set__
_set_extra: Final = vars(BaseModel)["__pydantic_extra__"].__set__
_set_private: Final = vars(BaseModel)["__pydantic_private__"].__set__


@cache
def _plan_of_kind(kind: RecordKind) -> _Plan | None:
    return _plan_of(kind.model, kind.exact)


def _plan_of(model: Any, struct: Struct) -> _Plan | None:
    """Return the plan for a class; None if its validation does more than check declared types."""
    if not (isinstance(model, type) and issubclass(model, BaseModel) and _is_plain(model)):
        return None
    if model.model_fields.keys() != struct.fields.keys():
        return None
    inner: dict[str, _Plan] = {}
    for name, field_type in struct.fields.items():
        info = model.model_fields[name]
        annotation: Any = info.annotation
        if info.metadata or info.alias is not None or info.validation_alias is not None:
            return None
        if name in struct.nullable:
            types = {*get_args(annotation)} if get_origin(annotation) in _UNIONS else set()
            if len(types) != 2 or NoneType not in types:
                return None
            [annotation] = types - {NoneType}
        holder = annotation
        if isinstance(field_type, List) and get_origin(annotation) is list:
            [holder] = get_args(annotation)
        item_type = field_type.of if isinstance(field_type, List) else field_type
        if isinstance(item_type, Struct):
            plan = _plan_of(holder, item_type)
            if plan is None:
                return None
            inner[name] = plan
        elif annotation != _annotation_of(field_type):
            return None
    return _Plan(model, struct, inner)


_UNIONS: Final = (Union, UnionType)


def _annotation_of(field_type: FieldType) -> Any:
    match field_type:
        case Text(enum):
            return enum or str
        case Double():
            return float
        case Json():
            return dict[str, Any]
        case _:
            return None


def _is_plain(model: type[BaseModel]) -> bool:
    """Return whether a class has no validators, settings or private attributes of its own."""
    decorators = model.__pydantic_decorators__
    own_schema = model.__get_pydantic_core_schema__.__func__  # type: ignore[attr-defined]
    return (
        not (decorators.validators or decorators.field_validators)
        and not (decorators.root_validators or decorators.model_validators)
        and not model.model_config
        and not model.__private_attributes__
        and model.__pydantic_post_init__ is None
        and model.__init__ is BaseModel.__init__
        and model.__new__ is BaseModel.__new__
        and own_schema is vars(BaseModel)["__get_pydantic_core_schema__"].__func__
    )
