"""One record as HTML.

Speakers are told apart by their names. Reasoning, tool calls and long texts are folded with
`<details>`, so that the search of the browser finds them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from pydantic import BaseModel

__all__ = ["STYLE", "record_html", "records_html"]

_LONG: Final = 2000
_SHOWN: Final = 200

STYLE: Final = """
.ai-look{color-scheme:light dark;font:14px/1.5 system-ui,sans-serif;max-width:60rem;
color:light-dark(#1c1e21,#e4e6ea)}
.ai-look article{border:1px solid light-dark(#d5d9df,#3b3f46);border-radius:8px;margin:0 0 14px;
padding:10px 14px;content-visibility:auto;contain-intrinsic-size:auto 200px;
background:light-dark(#fff,#1d2024)}
.ai-look header,.ai-look dl{color:light-dark(#5a626d,#9aa2ad);font-size:12px;margin:0 0 6px}
.ai-look .m{border-left:3px solid light-dark(#c3c9d2,#4a505a);margin:8px 0;padding:0 0 0 10px}
.ai-look .user{border-color:light-dark(#2f6fd6,#6ea3f5)}
.ai-look .assistant{border-color:light-dark(#2d8a55,#66c08d)}
.ai-look .tool{border-color:light-dark(#a86a12,#d9a25a)}
.ai-look b{font-size:12px;letter-spacing:.02em}
.ai-look p,.ai-look pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0;font:inherit}
.ai-look pre,.ai-look code{font:12px/1.45 ui-monospace,monospace}
.ai-look summary{cursor:pointer;color:light-dark(#5a626d,#9aa2ad);font-size:12px}
.ai-look dl{display:grid;grid-template-columns:max-content 1fr;gap:0 12px;margin:8px 0 0}
.ai-look dd{margin:0;overflow-wrap:anywhere}
"""
"""The style of records; all of its rules are below the class `ai-look`."""


def record_html(record: BaseModel, number: int, attributes: str = "") -> str:
    """Return a conversation, a document or a record of another model as an article.

    Args:
        record: the record.
        number: its number on the page, from 1.
        attributes: further attributes of the article, as HTML.

    >>> from afterimage.storage import Document
    >>> "<p>a &lt; b</p>" in record_html(Document(id="d", text="a < b"), 1)
    True
    """
    fields = {**record.__dict__, **(record.model_extra or {})}
    messages = fields.pop("conversations", None)
    parts: list[str] = []
    if isinstance(messages, list) and all(isinstance(each, BaseModel) for each in messages):
        parts += map(_message, messages)
        count = f"{len(messages)} message{'' if len(messages) == 1 else 's'}"
    else:
        count = type(record).__name__
        if messages is not None:
            fields["conversations"] = messages
        if isinstance(text := fields.pop("text", None), str):
            parts.append(_text(text))
    metadata = fields.pop("metadata", None)
    shown = {name: value for name, value in fields.items() if value not in (None, [], {})}
    if isinstance(metadata, Mapping):
        shown |= {f"metadata.{name}": value for name, value in metadata.items()}
    parts.append(_values(shown))
    return f"<article {attributes}><header>#{number} · {count}</header>{''.join(parts)}</article>"


def _message(message: BaseModel) -> str:
    fields = {**message.__dict__, **(message.model_extra or {})}
    role = str(getattr(fields.pop("role", ""), "value", "") or "message")
    content = fields.pop("content", None)
    name = fields.pop("name", None)
    parts = []
    if reasoning := fields.pop("reasoning_content", None):
        parts.append(_folded("reasoning", _text(str(reasoning))))
    parts.append(_content(content))
    for call in fields.pop("tool_calls", None) or ():
        function = call.get("function", {}) if isinstance(call, dict) else {}
        title = f"calls {function.get('name', 'a tool')}"
        parts.append(_folded(title, f"<pre>{_json(call)}</pre>"))
    others = {key: value for key, value in fields.items() if value is not None}
    title = escape(role if name is None else f"{role} · {name}")
    kind = role if role in ("user", "assistant", "tool", "system", "developer") else "other"
    return (
        f'<div class="m {kind}"><b>{title}</b>{"".join(parts)}'
        f"{_values(others) if others else ''}</div>"
    )


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return _text(content)
    parts = []
    for part in content if isinstance(content, list) else [content]:
        is_text = isinstance(part, dict) and isinstance(part.get("text"), str)
        parts.append(_text(part["text"]) if is_text else f"<pre>{_json(part)}</pre>")
    return "".join(parts)


def _text(text: str) -> str:
    if len(text) <= _LONG:
        return f"<p>{escape(text)}</p>"
    title = f"{text[:_SHOWN]}… ({len(text):,} characters)"
    return _folded(title, f"<p>{escape(text)}</p>")


def _folded(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def _values(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(_short(value))}</dd>" for name, value in values.items()
    )
    return f"<dl>{rows}</dl>" if rows else ""


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, ensure_ascii=False, default=str)


def _json(value: Any) -> str:
    return escape(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def records_html(records: Iterable[BaseModel]) -> str:
    """Return records one below the other."""
    return "".join(record_html(record, number) for number, record in enumerate(records, 1))
