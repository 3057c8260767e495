"""Every call, argument, public name and command line option that the docs name exists."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import afterimage.storage as package
from afterimage.storage import JSONLStorage, SQLStorage
from afterimage.storage.cli.app import app
from afterimage.storage.query.arguments import Choice
from tests.project.test_readme import ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
STORE = re.compile(r"(?<![\w.])(?:store|storage|lines)\.([a-z]\w*)(?=\()")
TABLES = {"conversations"}  # a name in SQL
# Options of commands that are not ours: pip, and the scripts and tests of the repository.
OTHERS = {"--group", "--growth"}


def method(name: str) -> Any:
    return getattr(SQLStorage, name, None) or getattr(JSONLStorage, name, None)


CALLABLE = {
    **{name: getattr(package, name) for name in package.__all__ if name != "__version__"},
    **{name: method(name) for name in {*dir(SQLStorage), *dir(JSONLStorage)} if name[0] != "_"},
}


def code(page: Path) -> Iterator[str]:
    """The text of blocks and the pieces in backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    yield from blocks
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def calls(piece: str) -> Iterator[ast.Call]:
    """The calls in a piece of Python, of which dots may stand for arguments."""
    piece = re.sub(r"^(>>> |\.\.\. )", "", piece.replace("…", "..."), flags=re.MULTILINE)
    for text in {piece, *piece.splitlines()}:
        try:
            tree = ast.parse(text.strip())
        except (SyntaxError, ValueError):
            continue
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def parameters(function: Any) -> set[str] | None:
    """The names of a callable's arguments; None if it takes any."""
    found = inspect.signature(function).parameters.values()
    names = {each.name for each in found if each.kind is not each.VAR_KEYWORD}
    if len(names) == len(found):
        return names
    return names | Choice.__annotations__.keys() if "choice" in {e.name for e in found} else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestEachPage:
    def test_the_methods_of_a_storage_exist(self, page: Path) -> None:
        named = {name for piece in code(page) for name in STORE.findall(piece)}
        assert [name for name in named if name not in CALLABLE] == []

    def test_no_call_is_misspelt(self, page: Path) -> None:
        named = {name for piece in code(page) for name in re.findall(r"(?<![\w.])(\w+)\(", piece)}
        unknown = sorted(named - CALLABLE.keys() - TABLES)
        assert [
            name for name in unknown if difflib.get_close_matches(name, CALLABLE, 1, 0.85)
        ] == []

    def test_the_arguments_of_calls_exist(self, page: Path) -> None:
        wrong = []
        for piece in code(page):
            for call in calls(piece):
                name = ast.unparse(call.func)
                of_store = STORE.match(f"{name}(")
                if of_store is None and name not in package.__all__:
                    continue
                known = parameters(CALLABLE[of_store[1] if of_store else name])
                given = {each.arg for each in call.keywords if each.arg}
                if known is not None and not given <= known:
                    wrong.append((ast.unparse(call), given - known))
        assert wrong == []

    def test_the_options_of_our_commands_exist(self, page: Path) -> None:
        options = {
            command.name: {text for each in command.params for text in _texts(each)} | {"--help"}
            for command in [app, *app.commands.values()]
        }
        every = set().union(*options.values(), OTHERS)
        wrong = []
        for piece in code(page):
            for line in piece.splitlines():
                ours = re.match(r"\S*afterimage-storage (\w+)", line)
                if ours and ours[1] not in options:
                    wrong.append(line)
                elif ours or re.match(r"--\w", line):
                    known = options[ours[1]] if ours else every
                    wrong += [
                        each
                        for each in re.findall(r"(?<![\w-])--[a-z][\w-]*", line)
                        if each not in known
                    ]
        assert wrong == []


def _texts(parameter: click.Parameter) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


def test_the_docs_name_every_method_of_a_storage() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    text = re.sub(r"`(\w+)_…`", r"`\1_conversations` `\1_documents`", text)
    public = sorted(CALLABLE.keys() - {*package.__all__})
    assert [name for name in public if not re.search(rf"\b{name}\b", text)] == []
