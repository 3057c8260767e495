"""A page of HTML that needs no server and no network.

The only script and the only style that may run are those of this module: the policy of the page
names their hashes (https://www.w3.org/TR/CSP3/).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any, Final

from pydantic import BaseModel

from afterimage.storage.looking.records import STYLE, record_html

__all__ = ["page_html", "served_page"]

# A metadata key with at most this many values becomes a menu.
_MOST_VALUES: Final = 12

# What the page is made of; the same for a page in a file and for one that a server answers.
_FILES: Final = files(__package__)
_PAGE_STYLE: Final = STYLE + _FILES.joinpath("page.css").read_text("utf-8")
_SCRIPT: Final = _FILES.joinpath("page.js").read_text("utf-8")


def page_html(records: Sequence[BaseModel], title: str) -> str:
    """Return the page of records: with a search, menus for metadata and roles, and a dark mode.

    The state of the search is in the fragment of its URL. The keys j and k go to the next and the
    previous record, and / to the search.
    """
    values = [_values_of(record) for record in records]
    menus = "".join(_menu(name, counts) for name, counts in _facets(values).items())
    articles = "".join(
        record_html(record, number, f'tabindex="0" data-values="{escape(json.dumps(own))}"')
        for number, (record, own) in enumerate(zip(records, values, strict=True), 1)
    )
    total = f"{len(records)} of {len(records)}"
    return _page(title, menus, articles or "<p>no records</p>", total, "default-src 'none'")


def served_page(title: str, kinds: Sequence[str]) -> tuple[str, str]:
    """Return the page that gets its records from the server it came from, and its policy.

    Args:
        title: the heading.
        kinds: the kinds of records that the server has.
    """
    policy = (
        f"default-src 'none'; connect-src 'self'; {_own_policy()}; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    options = "".join(f'<option value="{each}">{each}</option>' for each in kinds)
    menus = (
        f'<select name="kind" aria-label="kind" {"hidden" if len(kinds) < 2 else ""}>{options}'
        '</select><select name="sort" aria-label="Sort"><option value="">in order of saving'
        '</option></select><span id="facets"></span>'
    )
    more = (
        '<p id="pages"><button type="button" id="back">Previous page</button> '
        '<button type="button" id="on">Next page</button></p>'
        '<details id="calls"><summary>The same in Python and SQL</summary>'
        '<pre id="python" tabindex="0"></pre><pre id="sql" tabindex="0"></pre></details>'
        '<p id="fault" role="alert" hidden></p>'
    )
    return _page(title, menus, "", "", None, more, 'data-served=""'), policy


def _own_policy() -> str:
    return f"style-src '{_hash(_PAGE_STYLE)}'; script-src '{_hash(_SCRIPT)}'"


def _page(
    title: str,
    menus: str,
    articles: str,
    total: str,
    policy: str | None,
    more: str = "",
    attributes: str = "",
) -> str:
    """Return the page. Without `policy`, the policy is in a header of the answer."""
    meta = f"{policy}; {_own_policy()}"
    tag = f'<meta http-equiv="Content-Security-Policy" content="{escape(meta)}">' if policy else ""
    label = "Search the text" if policy else "Search"
    hint = "Search the text" if policy else "words, or final_score >= 0.8 AND metadata.domain = a"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{tag}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_PAGE_STYLE}</style></head><body {attributes}>"
        f'<nav aria-label="Search"><h1>{escape(title)}</h1>'
        f'<input type="search" aria-label="{label}" placeholder="{hint}" autocomplete="off">'
        f'{menus}<button type="button" id="mode">Dark or light</button>'
        f'<output aria-live="polite">{total}</output>{more}</nav>'
        f'<main class="ai-look" aria-label="Records">{articles}</main>'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _values_of(record: BaseModel) -> dict[str, list[str]]:
    """Return the values of a record that menus choose from, by the name of the menu."""
    own: dict[str, list[str]] = {}
    messages = getattr(record, "conversations", None)
    if isinstance(messages, list):
        roles = (getattr(getattr(each, "role", None), "value", None) for each in messages)
        own["role"] = sorted({role for role in roles if isinstance(role, str)})
    metadata = getattr(record, "metadata", None)
    for key, value in metadata.items() if isinstance(metadata, dict) else ():
        if isinstance(value, str | bool | int) and len(str(value)) <= _LONGEST_VALUE:
            own[f"metadata.{key}"] = [_text_of(value)]
    return own


_LONGEST_VALUE: Final = 60


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _facets(values: Sequence[dict[str, list[str]]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for own in values:
        for name, texts in own.items():
            found.setdefault(name, Counter()).update(texts)
    return {
        name: counts
        for name, counts in found.items()
        if 1 < len(counts) <= min(_MOST_VALUES, counts.total() - 1) and "" not in counts
    }


def _menu(name: str, counts: Counter[str]) -> str:
    options = "".join(
        f'<option value="{escape(value)}">{escape(value)} ({count})</option>'
        for value, count in counts.most_common()
    )
    label = escape(name)
    return (
        f'<select name="{label}" aria-label="{label}"><option value="">{label}</option>'
        f"{options}</select>"
    )
