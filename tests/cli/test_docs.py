"""docs/cli.md is true: it has the help of every command as the command prints it."""

from __future__ import annotations

import runpy
from pathlib import Path

from afterimage.storage.cli.app import app

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_has_the_help_of_every_command() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    written = runpy.run_path(str(DOCS / "write_pages.py"))["written"]
    # Where lines break is up to the version of click.
    assert page.split() == written("cli.md").split(), "run: python docs/write_pages.py"
    assert all(f"## {name}\n" in page for name in app.commands)


def test_every_command_and_option_says_what_it_is_for() -> None:
    for name, command in app.commands.items():
        assert command.help, name
        silent = [p.name for p in command.params if p.param_type_name == "option" and not p.help]
        assert silent == [], name
