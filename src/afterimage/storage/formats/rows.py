"""One message a row, as a chat log in a database has them: rows of one conversation are grouped.

The invariant: a message is in the conversation that its row names, or the rows are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from afterimage.storage.errors import InvalidRecordError, shown

__all__ = ["conversation_of", "group_of", "grouped"]


def grouped(
    rows: Iterable[dict[str, Any]],
    group_by: str,
    order_by: str = "position",
    *,
    adjacent: bool = True,
) -> Iterator[dict[str, Any]]:
    """Return one row of the format `messages` for each conversation, in the order of their firsts.

    Args:
        rows: rows with `role`, `content` and the other keys of a message. A null is no key.
        group_by: the key that names the conversation; the conversation's row has it, too.
        order_by: the key by which its messages are sorted, and that they do not keep. Messages
            without that key keep their order.
        adjacent: whether the rows of a conversation follow each other. One conversation is then
            in memory at a time. Otherwise all are.

    Raises:
        InvalidRecordError: a row has no `group_by`, positions cannot be compared, or rows of a
            conversation do not follow each other although `adjacent` says so.

    >>> rows = [{"talk": 1, "position": 1, "role": "assistant", "content": "Hello"},
    ...         {"talk": 1, "position": 0, "role": "user", "content": "Hi"}]
    >>> [*grouped(rows, "talk")]  # doctest: +NORMALIZE_WHITESPACE
    [{'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}],
      'talk': 1}]
    """
    groups: dict[Any, list[dict[str, Any]]] = {}
    closed: set[Any] = set()
    for number, row in enumerate(rows, 1):
        try:
            group = group_of(row, group_by)
        except InvalidRecordError as error:
            raise InvalidRecordError(f"row {number}: {error}") from None
        if group not in groups:
            if group in closed:
                raise InvalidRecordError(
                    f"row {number}: rows of {group_by} {shown(row[group_by], 40)} do not follow "
                    f"each other; sort them by {group_by}, or give adjacent=False"
                )
            if adjacent:
                for name, messages in groups.items():
                    closed.add(name)
                    yield conversation_of(messages, group_by, order_by)
                groups.clear()
            groups[group] = []
        groups[group].append(row)
    for messages in groups.values():
        yield conversation_of(messages, group_by, order_by)


def group_of(row: Any, group_by: str) -> tuple[type, str | int | float]:
    """Return what rows of the same conversation have in common.

    Raises:
        InvalidRecordError: the row names no conversation.
    """
    value = row.get(group_by) if isinstance(row, dict) else None
    if not isinstance(value, str | int | float):
        raise InvalidRecordError(
            f"the row has no {group_by!r} that names its conversation: {shown(value, 40)}"
        )
    return type(value), value  # true is not 1


def conversation_of(rows: list[dict[str, Any]], group_by: str, order_by: str) -> dict[str, Any]:
    """Return the row of the format `messages` for the rows of one conversation.

    Raises:
        InvalidRecordError: their positions cannot be compared.
    """
    group = rows[0][group_by]
    positions = [row.get(order_by) for row in rows]
    if not all(position is None for position in positions):
        try:
            rows = sorted(rows, key=lambda row: row[order_by])
        except (KeyError, TypeError):
            raise InvalidRecordError(
                f"rows of {group_by} {shown(group, 40)} cannot be sorted by {order_by!r}: "
                f"{shown(positions, 80)}"
            ) from None
    dropped = (group_by, order_by)
    messages = [
        {key: value for key, value in row.items() if value is not None and key not in dropped}
        for row in rows
    ]
    return {"messages": messages, group_by: group}
