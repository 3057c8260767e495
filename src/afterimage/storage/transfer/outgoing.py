"""Conversations become lines in the formats of other tools while they are exported.

The invariants: Nothing that carries meaning is left out, unless the caller allows it. A
conversation for which a format has no line is left out and reported.

The engine writes the lines of plain conversations in the three common formats. It gives all other
conversations as they are, behind a mark, and they are converted here.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa
from pydantic_core import from_json, to_json

from afterimage.storage.errors import CorruptRecordError, InvalidQueryError, shorten
from afterimage.storage.formats.registry import PAIRS, WRITABLE, shape_named
from afterimage.storage.formats.shape import Format, Losses, NotRepresentableError, WriteOptions
from afterimage.storage.query.arguments import Columns, as_list
from afterimage.storage.query.relations import Source
from afterimage.storage.records.chat import loaded_object
from afterimage.storage.records.extras import restore
from afterimage.storage.records.fields import CONVERSATIONS, OTHERS
from afterimage.storage.records.paths import parse, resolve
from afterimage.storage.records.validation import reason
from afterimage.storage.reports.exports import Omissions
from afterimage.storage.transfer.training_formats import FORMATS, WITHOUT_REASONING, TrainingFormat

__all__ = ["Outgoing"]

_SAMPLE: Final[dict[str, Any]] = {
    "conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "metadata": {},
}
# No line of JSON begins with it.
_MARK: Final = "!"


class Outgoing:
    """Converts conversations to lines of one format, and counts those that have none.

    Args:
        where: name of the storage, for messages.
        name: the format.
        system_prompt: content of a system message before conversations that have none.
        reasoning: where the reasoning of a message goes; None leaves it out.
        lossy: whether to leave out what the format has no place for.
        trim: whether to end each conversation at its last assistant message.
        columns: fields that are added under their last name.

    Attributes:
        kind: the kind of the records that the format has lines for.
        keys: the keys that the format names.
        omissions: the records without a line so far.

    Raises:
        InvalidQueryError: the format or an option is not valid, or the format does not support the
            option.
    """

    def __init__(
        self,
        where: str,
        name: Any,
        system_prompt: Any = None,
        reasoning: Any = None,
        *,
        lossy: bool = False,
        trim: bool = False,
        columns: Columns = None,
    ) -> None:
        if name not in WRITABLE:
            raise InvalidQueryError(
                f"unknown format {shorten(ascii(name), 40)}; use {', '.join(map(repr, WRITABLE))}"
            )
        fast = TrainingFormat.of(name, system_prompt, reasoning)
        self._where = where
        self._shape = shape_named(name)
        self._options = WriteOptions(
            fast.system_prompt or None,
            fast.reasoning,
            lossy=lossy,
            trim=trim,
            columns=tuple(as_list(columns, "columns")),
        )
        if self._options.system_prompt and name == "alpaca":
            raise InvalidQueryError(
                "format 'alpaca' does not support a system prompt; use 'messages' or 'sharegpt'"
            )
        names = [parse(column) for column in self._options.columns]
        with suppress(NotRepresentableError):  # an option that the format does not support fails
            self._shape.write(_SAMPLE, self._options)
        self.keys = self._shape.conversion.keys if isinstance(self._shape, Format) else frozenset()
        self.kind = OTHERS if name in PAIRS else CONVERSATIONS
        self._computed = [
            resolve(self.kind.computed, name) for name, *_ in names if name in self.kind.computed
        ]
        is_common = name in FORMATS and not (trim or columns)
        self._fast = fast if is_common else None
        self.omissions = Omissions()

    def line(self, source: Source) -> sa.ColumnElement[str]:
        """Return the expression of a conversation's line, or of the conversation with a mark."""
        record = source.record_text
        if self._computed:  # they come after the record
            values = (sa.func.to_json(source.value(field)) for field in self._computed)
            listed = [part for value in values for part in (",", sa.func.coalesce(value, "null"))]
            record = sa.func.concat("[", record, *listed, "]")
        whole = sa.literal_column(f"'{_MARK}'", sa.String).concat(record)
        if self._fast is None:
            return whole
        line = sa.cast(self._fast.line(source), sa.String)
        return sa.func.coalesce(sa.case((source.is_plain, line)), whole)

    def lines(self, texts: Iterable[str]) -> list[str]:
        """Return the lines of the values of `line`, without line feeds.

        Raises:
            NotRepresentableError: the format has no place for a part of a conversation.
        """
        lines: list[str] = []
        for text in texts:
            if text.startswith(_MARK):
                lines += self._converted(text[len(_MARK) :])
                continue
            assert self._fast is not None
            if text.startswith(WITHOUT_REASONING):
                self.omissions.drop(["reasoning"])
            lines.append(self._fast.finished(text.removeprefix(WITHOUT_REASONING)))
        return [*map(_escaped, lines)]

    def _converted(self, text: str) -> list[str]:
        found = from_json(text)
        computed: list[Any] = []
        if self._computed:
            found, *computed = found
        number, record, extra = found
        if extra is not False:  # a row of a table; a line of a file is checked when it is read
            if extra is not None:
                restore(record, extra)
            try:
                loaded_object(CONVERSATIONS, record)
            except ValueError as error:
                raise CorruptRecordError(
                    self._where, number, None, reason(error), CONVERSATIONS.name
                ) from None
        for message in record.get("conversations", ()):
            message.setdefault("content", None)
        for field, value in zip(self._computed, computed, strict=True):
            record.setdefault(field.path, value)  # a field of the record itself comes first
        losses = Losses(allowed=self._options.lossy)
        try:
            rows = self._shape.write(record, self._options, losses)
        except NotRepresentableError as error:
            if error.is_loss:
                at = f"at {error.place} of" if error.place else "in"
                raise NotRepresentableError(
                    f"{error.reason}, {at} record {number:,}. Use lossy=True to "
                    "leave that out, or another format. Nothing was written",
                    is_loss=True,
                ) from None
            self.omissions.add(number, error.reason, error.place)
            return []
        if losses.names:
            self.omissions.drop(losses.names)
        return [to_json(row, inf_nan_mode="constants").decode() for row in rows]


def _escaped(line: str) -> str:
    """Escape the separators on which readers of other tools split lines."""
    return line.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
