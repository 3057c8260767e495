"""Examples of docstrings as blocks of code; mkdocstrings calls it (see mkdocs.yml)."""

from __future__ import annotations

import re
from typing import Any

import griffe

# A prompt, and what follows it up to a blank line.
_EXAMPLE = re.compile(r"^( *)(>>> .*(?:\n(?! *$).*)*)", re.MULTILINE)


class Examples(griffe.Extension):  # type: ignore[misc]  # not installed where types are checked
    """Puts the examples of docstrings into blocks, which they are for doctest alone."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"\1```pycon\n\1\2\n\1```", obj.docstring.value)
