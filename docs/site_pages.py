"""What the site has besides the pages of this folder; mkdocs calls it (see mkdocs.yml).

The guides link to files of the repository, as on the repository's own web page. Here these files
become pages of the site, and the links lead to them: the README, which is the first page, this
package's other documents, the results of the benchmarks, and the notebooks with their output. Any
other file that a page links to, such as a module, is in the site as it is. The reference of the API
has one directive for each public name, from which mkdocstrings writes the docstrings. A public name
that is in no group ends the build.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

# Where a file of the repository is in the site. Pages of this folder are at the top.
MOVED = {"README.md": "index.md", "docs/README.md": "guides.md"}
FOLDERS = {"notebooks": "Notebooks", "benchmarks/results": "Results of the benchmarks"}
OTHERS = ["README.md", "docs/README.md", "CHANGELOG.md", "CONTRIBUTING.md"]

REFERENCE = {
    "storages": ("Storages", ["open_storage", "JSONLStorage", "SQLStorage", "BaseStorage"]),
    "records": (
        "Records",
        [
            *("Conversation", "ConversationWithContext", "EvaluatedConversationWithContext"),
            *("ConversationEntry", "Role", "EvaluationSchema", "EvaluationEntrySchema"),
            *("GradeSchema", "ChatConversation", "ChatEntry", "ChatRole", "PreferencePair"),
            *("Document", "PersonaEntry"),
        ],
    ),
    "results": (
        "Results",
        [
            *("Statistics", "ImportCount", "Diff", "Verification", "verify_jsonl"),
            *("SkippedRecords", "SkippedRecordsWarning", "Snapshot"),
        ],
    ),
    "errors": (
        "Errors",
        [
            *("StorageError", "InvalidQueryError", "UnknownFieldError", "InvalidRecordError"),
            *("CorruptRecordError", "LockTimeoutError", "MissingFileError"),
            *("UnsupportedFileError", "UnsupportedURLError", "SchemaMismatchError"),
            *("DatabaseError", "ReplacedFileError"),
        ],
    ),
}

_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^)\s#]*)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository and the reference."""
    files.remove(files.src_uris["README.md"])
    pages = [*OTHERS, *map(_name, (ROOT / "docs").glob("*.md"))]
    for name in {*OTHERS, *map(_name, _results()), *linked_files(pages)}:
        files.append(File.generated(config, in_site(name), abs_src_path=str(ROOT / name)))
    for path in _notebooks():
        files.append(File.generated(config, in_site(_name(path)), content=notebook(path)))
    for folder, title in FOLDERS.items():
        paths = [path for path in (ROOT / folder).iterdir() if path.suffix in (".md", ".ipynb")]
        lines = [f"- [{path.stem}]({path.stem}.md)" for path in sorted(paths)]
        text = "\n".join([f"# {title}", "", *lines])
        files.append(File.generated(config, f"{folder}/index.md", content=text))
    for name, text in reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page of which the links to files of the repository lead to their pages."""
    del config, files
    source = page.file.src_uri
    moved = {site: repository for repository, site in MOVED.items()}
    if source.startswith("reference/"):
        return markdown
    is_outside = source in (*OTHERS, "index.md") or source.startswith((*FOLDERS,))
    repository = moved.get(source) or (source if is_outside else f"docs/{source}")
    return relinked(markdown, repository, source)


def on_post_build(config: MkDocsConfig) -> None:
    """Put the guides beside their pages as Markdown too, for the links of llms.txt."""
    for path in (ROOT / "docs").glob("*.md"):
        shutil.copy(path, Path(config.site_dir, path.name))


def linked_files(pages: Iterable[str]) -> Iterator[str]:
    """Yield the files outside this folder that pages link to, without pages of their own."""
    for page in pages:
        for found in _LINK.finditer(_BLOCK.sub("", (ROOT / page).read_text("utf-8"))):
            name = _target(found[1], page)
            is_page = name.startswith("docs/") or name.endswith((".md", ".ipynb"))
            if found[1] and not is_page and (ROOT / name).is_file():
                yield name


def in_site(name: str) -> str:
    """Return where a file or folder of the repository is in the site."""
    if name in FOLDERS:
        return f"{name}/index.md"
    if name in MOVED:
        return MOVED[name]
    if name.endswith(".ipynb"):
        return name.removesuffix(".ipynb") + ".md"
    return name.removeprefix("docs/")


def relinked(markdown: str, source: str, site: str) -> str:
    """Return Markdown of a file of the repository with links for its place in the site."""

    def link(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if not target or ":" in target:
            return found[0]
        name = _target(target, source)
        return posixpath.relpath(in_site(name), posixpath.dirname(site) or ".") + anchor

    parts = []
    at = 0
    for block in _BLOCK.finditer(markdown):
        parts += [_LINK.sub(link, markdown[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, _LINK.sub(link, markdown[at:])])


def reference() -> dict[str, str]:
    """Return the pages of the reference.

    Raises:
        PluginError: a public name is in no group, or one in a group is not public.
    """
    tree = ast.parse((ROOT / "src/afterimage/storage/__init__.py").read_text("utf-8"))
    [names] = [
        {*ast.literal_eval(node.value)}
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    grouped = {name for _, group in REFERENCE.values() for name in group}
    if differing := grouped ^ names - {"__version__"}:
        raise PluginError(f"REFERENCE of {Path(__file__).name} differs by {sorted(differing)}")
    return {
        page: f"# {title}\n\n" + "\n".join(f"::: afterimage.storage.{name}\n" for name in group)
        for page, (title, group) in REFERENCE.items()
    }


def notebook(path: Path) -> str:
    """Return a notebook with its output as Markdown."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "\n\n".join(part for cell in cells for part in _parts(cell)) + "\n"


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield text
        return
    yield f"```python\n{text}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            image = "".join(data["image/png"].split())
            yield f'<img alt="The plot of this cell" src="data:image/png;base64,{image}">'
        elif "text/html" in data:
            html = "".join(data["text/html"])
            yield re.sub(r"<style.*?</style>|\n\s*", "", html, flags=re.DOTALL)
        else:
            told = "".join(output.get("text") or data.get("text/plain", ""))
            yield f"```text\n{told.rstrip()}\n```"


def _target(link: str, source: str) -> str:
    """Return the file of the repository to which a link of another one leads."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def _results() -> list[Path]:
    folder = ROOT / "benchmarks" / "results"
    return sorted(path for path in folder.iterdir() if path.suffix in (".md", ".png"))
