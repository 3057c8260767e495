"""A page of HTML without a script, for figures."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Final

__all__ = ["static_page"]

_STYLE: Final = """
body{margin:0 auto;max-width:60rem;padding:12px;font:14px/1.5 system-ui,sans-serif;
color-scheme:light dark;background:light-dark(#fff,#131518);color:light-dark(#1c1e21,#e4e6ea)}
h1{font-size:18px;overflow-wrap:anywhere}main>div,table{max-width:100%}
table{border-collapse:collapse;margin:0 0 20px;display:block;overflow-x:auto;white-space:pre}
th,td{padding:2px 10px 2px 0;border-bottom:1px solid light-dark(#d5d9df,#3b3f46);text-align:left}
"""


def static_page(title: str, inside: str) -> str:
    """Return a page with some HTML in it, which loads nothing and runs nothing.

    Args:
        title: the heading.
        inside: HTML in which every text is escaped.

    >>> "<h1>a &lt; b</h1>" in static_page("a < b", "<p>1</p>")
    True
    """
    digest = b64encode(sha256(_STYLE.encode()).digest()).decode()
    # Attributes `style`, as cells of a notebook have them, are no scripts and load nothing here.
    policy = f"default-src 'none'; style-src-elem 'sha256-{digest}'; style-src-attr 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<main><h1>{escape(title)}</h1>{inside}</main></body></html>\n"
    )
