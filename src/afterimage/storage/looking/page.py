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
from typing import Any, Final

from pydantic import BaseModel

from afterimage.storage.looking.records import STYLE, record_html

__all__ = ["page_html"]

# A metadata key with at most this many values becomes a menu.
_MOST_VALUES: Final = 12

_PAGE_STYLE: Final = (
    STYLE
    + """
body{margin:0;background:light-dark(#f4f5f7,#131518);color-scheme:light dark}
body.dark{color-scheme:dark}body.light{color-scheme:light}
main,nav{max-width:60rem;margin:0 auto;padding:12px}
nav{position:sticky;top:0;display:flex;flex-wrap:wrap;gap:8px;align-items:center;z-index:1;
background:light-dark(#f4f5f7,#131518);font:13px system-ui,sans-serif}
nav input{flex:1 1 12rem;min-width:8rem}
nav input,nav select,nav button{font:inherit;padding:4px 6px;max-width:100%}
h1{font:600 15px system-ui,sans-serif;margin:0;flex:1 1 100%;color:light-dark(#1c1e21,#e4e6ea)}
output{color:light-dark(#5a626d,#9aa2ad)}
article[hidden]{display:none}article:focus{outline:2px solid light-dark(#2f6fd6,#6ea3f5)}
"""
)

_SCRIPT: Final = """
const box=document.querySelector('input'),menus=[...document.querySelectorAll('select')],
articles=[...document.querySelectorAll('article')],out=document.querySelector('output');
const texts=articles.map(a=>a.textContent.toLowerCase()),
values=articles.map(a=>JSON.parse(a.dataset.values));
function apply(){
 const words=box.value.toLowerCase(),chosen=menus.filter(m=>m.value!=='');let count=0;
 articles.forEach((a,i)=>{const ok=texts[i].includes(words)&&
  chosen.every(m=>(values[i][m.name]||[]).includes(m.value));a.hidden=!ok;count+=ok});
 out.textContent=count+' of '+articles.length;
 const state=new URLSearchParams();if(box.value)state.set('q',box.value);
 chosen.forEach(m=>state.set(m.name,m.value));
 history.replaceState(null,'','#'+state)}
function restore(){const state=new URLSearchParams(location.hash.slice(1));
 box.value=state.get('q')||'';menus.forEach(m=>{m.value=state.get(m.name)||'';
 if(m.selectedIndex<0)m.value=''});apply()}
box.addEventListener('input',apply);menus.forEach(m=>m.addEventListener('change',apply));
addEventListener('hashchange',restore);
addEventListener('keydown',e=>{
 if(e.target.matches('input,select,textarea')||e.ctrlKey||e.metaKey||e.altKey)return;
 const step={j:1,k:-1}[e.key];
 if(e.key==='/'){box.focus();e.preventDefault()}
 if(!step)return;const seen=articles.filter(a=>!a.hidden),at=seen.indexOf(document.activeElement),
 next=seen[Math.max(0,Math.min(seen.length-1,at<0&&step<0?0:at+step))];
 if(next){next.focus();next.scrollIntoView({block:'start'})}});
document.querySelector('button').addEventListener('click',()=>{const dark=
 document.body.classList.contains('dark')||(!document.body.classList.contains('light')&&
 matchMedia('(prefers-color-scheme: dark)').matches);
 document.body.className=dark?'light':'dark'});
restore();
"""


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
    policy = f"default-src 'none'; style-src '{_hash(_PAGE_STYLE)}'; script-src '{_hash(_SCRIPT)}'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_PAGE_STYLE}</style></head><body>"
        f'<nav aria-label="Search"><h1>{escape(title)}</h1>'
        '<input type="search" aria-label="Search the text" placeholder="Search the text">'
        f'{menus}<button type="button">Dark or light</button>'
        f'<output aria-live="polite">{len(records)} of {len(records)}</output></nav>'
        f'<main class="ai-look">{articles or "<p>no records</p>"}</main>'
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
