"""Generate the parts of the docs that follow from the code: `python docs/write_pages.py`.

They are written after a mark in each page. docs/cli.md gets the help of every command, and
docs/schema.md gets the fields of `records/fields.py`, the Arrow schema of a scan, and the DDL of a
new database. docs/llms.txt, a list of all pages for language models, is the table of
docs/README.md. Tests fail if a page differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow as pa

from afterimage.storage import SQLStorage
from afterimage.storage.cli.app import app
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, RecordKind

DOCS = Path(__file__).parent
MARK = "<!-- What follows is written by docs/write_pages.py. -->\n"


def written(name: str) -> str:
    """The page as it should be: its text before the mark, if it has one, and the generated part."""
    if name == "llms.txt":
        return llms()
    said, mark, _ = (DOCS / name).read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{DOCS / name} has no line {MARK.strip()}")
    return said + mark + PAGES[name]()


def commands() -> str:
    """The help of every command."""
    top = app.make_context("afterimage-storage", [], resilient_parsing=True, terminal_width=88)
    parts = [_block("afterimage-storage", app.get_help(top))]
    for name, command in app.commands.items():
        context = click.Context(command, parent=top, info_name=name, terminal_width=88)
        parts.append(_block(name, command.get_help(context)))
    return "".join(parts)


def schema() -> str:
    """The fields, the Arrow schema and the tables in DuckDB."""
    store = SQLStorage("duckdb:///:memory:", metadata_fields=["domain"])
    scans = {
        CONVERSATIONS.name: store.scan_conversations().schema,
        DOCUMENTS.name: store.scan_documents().schema,
    }
    parts = [
        *(_fields(kind, scans[kind.name]) for kind in (CONVERSATIONS, DOCUMENTS)),
        "\n## In DuckDB\n",
        *(f"\n```sql\n{statement}\n```\n" for statement in _ddl(store)),
    ]
    return "".join(parts)


def llms() -> str:
    """The list of all pages, in the order of the index, with what each one is for."""
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| \[[^]]+\]\(([\w-]+\.md)\) \|$", index, re.MULTILINE)
    lines = []
    for purpose, name in rows:
        title = (DOCS / name).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({name}): {purpose}\n")
    return _LLMS + "".join(lines)


PAGES = {"cli.md": commands, "schema.md": schema, "llms.txt": llms}

_LLMS = """\
# afterimage-storage

> A Python library that stores the conversations and documents that language models are trained \
and evaluated with. Two storages share one API: `JSONLStorage` for JSON lines files and \
`SQLStorage` for a DuckDB file. Every record is returned as it was saved, each save is atomic, \
and both storages give the same answers to the same queries.

Install it with `pip install .` in the folder of the repository. Every public name is in \
`afterimage.storage`.

## Guides

"""


def _block(name: str, text: str) -> str:
    return f"\n## {name}\n\n```text\n{text}\n```\n"


def _fields(kind: RecordKind, schema: pa.Schema) -> str:
    """A table of the fields, and the Arrow schema of a scan of all of them."""
    rows = []
    for name in kind.record.fields:
        defaults = kind.record.defaults
        default = f"`{defaults[name]!r}`" if name in defaults else "required"
        null = "yes" if name in kind.record.nullable else "no"
        rows.append(f"| `{name}` | {default} | {null} |")
    return (
        f"\n## {kind.name.capitalize()}\n\n| field | default | may be null |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nIn Arrow:\n\n```text\n{_arrow(schema)}\n```\n"
    )


def _arrow(schema: pa.Schema) -> str:
    return "\n".join(
        f"{'  ' * depth}{name}: {kind}"
        for field in schema
        for depth, name, kind in _unfolded(field.name, field.type)
    )


def _unfolded(name: str, kind: pa.DataType, depth: int = 0) -> Iterator[tuple[int, str, str]]:
    if pa.types.is_struct(kind):
        yield depth, name, "struct"
        for field in kind:
            yield from _unfolded(field.name, field.type, depth + 1)
    elif pa.types.is_large_list(kind):
        yield depth, name, "large_list"
        yield from _unfolded(kind.value_field.name, kind.value_type, depth + 1)
    else:
        yield depth, name, str(kind)


def _ddl(store: SQLStorage) -> Iterator[str]:
    queries = (
        "SELECT sql FROM duckdb_tables() ORDER BY table_name <> 'conversations', table_name DESC",
        "SELECT sql FROM duckdb_views() WHERE NOT internal",
    )
    with store.engine.connect() as connection:
        for query in queries:
            for (statement,) in connection.exec_driver_sql(query).all():
                # Only DuckDB 2.0 includes the compression of a column.
                yield _on_lines(re.sub(r" USING COMPRESSION \w+", "", statement))


def _on_lines(statement: str) -> str:
    """The same statement with one line per column."""
    if statement.startswith("CREATE VIEW"):
        return re.sub(r" (AS SELECT|FROM) ", r"\n\1 ", statement)
    lines, depth = [""], 0
    for part in re.split(r"([(),])", statement):
        depth += {"(": 1, ")": -1}.get(part, 0)
        lines[-1] += part
        if depth == 1 and part in ("(", ","):
            lines.append("")
    columns = "\n".join(f"    {line.strip()}" for line in lines[1:])
    return f"{lines[0]}\n{columns.removesuffix(');')}\n);"


if __name__ == "__main__":
    for page in PAGES:
        (DOCS / page).write_text(written(page), encoding="utf-8")
