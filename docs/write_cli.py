"""Write the help of every command into docs/cli.md, after its mark: `python docs/write_cli.py`.

`tests/cli/test_docs.py` fails where the page and the commands differ.
"""

from __future__ import annotations

from pathlib import Path

import click

from afterimage.storage.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
MARK = "<!-- What follows is written by docs/write_cli.py. -->\n"


def written() -> str:
    """The page as it should be: what is in it before the mark, and the help of every command."""
    said, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{PAGE} has no line {MARK.strip()}")
    top = app.make_context("afterimage-storage", [], resilient_parsing=True, terminal_width=88)
    parts = [_block("afterimage-storage", app.get_help(top))]
    for name, command in app.commands.items():
        context = click.Context(command, parent=top, info_name=name, terminal_width=88)
        parts.append(_block(name, command.get_help(context)))
    return said + mark + "".join(parts)


def _block(name: str, text: str) -> str:
    return f"\n## {name}\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
