"""The examples of the README and of the tour run in order and print what is shown."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import SQLStorage, demo
from tests.support.records import conversation

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "afterimage" / "storage"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line where its text starts."""

    language: str
    text: str
    line: int


def blocks(markdown: str) -> list[Block]:
    return [
        Block(found[1], found[2], markdown.count("\n", 0, found.start(2)) + 1)
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    ]


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    """Run a ```python block; a traceback names the line of the README."""
    source = "\n" * (block.line - 1) + block.text
    exec(compile(source, str(ROOT / "README.md"), "exec", dont_inherit=True), namespace)


def run_session(block: Block, namespace: dict[str, Any]) -> None:
    """Run a ```pycon block and compare every output shown."""
    parser = doctest.DocTestParser()
    session = parser.get_doctest(block.text, namespace, "README", "README.md", block.line - 1)
    session.globs = namespace  # the parser gives its test a copy
    told: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(
        session, out=told.append, clear_globs=False
    )
    assert not failed, "".join(told)


def run_duckdb(block: Block, shown: Block) -> None:
    """Run a ```bash block of the DuckDB CLI and compare its output with the block after it."""
    beside = Path(sys.executable).parent
    path = os.pathsep.join([str(beside), os.environ["PATH"]])
    if shutil.which("duckdb", path=path) is None:
        pytest.skip("the duckdb command, of the package duckdb-cli, is not installed")
    done = subprocess.run(
        ["bash", "-c", block.text],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.stdout.strip()) == ("", shown.text.strip())


def run_commands(block: Block) -> None:
    """Run a ```bash block of our own command line; every line must succeed."""
    ours = f'afterimage-storage() {{ "{sys.executable}" -m afterimage.storage "$@"; }}'
    done = subprocess.run(
        ["bash", "-ec", f"{ours}\n{block.text}"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 conversations, 6 messages, 1 document,")


@pytest.mark.process
@pytest.mark.parametrize(
    ("page", "languages"),
    [("README.md", {"python", "pycon"}), ("docs/tour.md", {"python", "pycon", "bash"})],
)
def test_the_examples_run_and_print_what_they_show(
    page: str, languages: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    all_blocks = blocks((ROOT / page).read_text(encoding="utf-8"))
    run: set[str] = set()
    for block, following in zip(all_blocks, [*all_blocks[1:], None], strict=True):
        if block.language == "python":
            run_python(block, namespace)
        elif block.language == "pycon":
            run_session(block, namespace)
        elif block.language == "bash" and block.text.startswith("duckdb "):
            assert following is not None
            assert following.language == "text", "the output shown follows the command"
            run_duckdb(block, following)
        elif block.language == "bash" and block.text.startswith("afterimage-storage "):
            run_commands(block)
        else:
            continue
        run.add(block.language)
    assert run == languages


def test_the_commands_name_sessions_of_the_noxfile() -> None:
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r"^@nox\.session.*\n(?:@.*\n)*def (\w+)", noxfile, re.MULTILINE))
    commands = re.findall(r"^python3 noxfile\.py(?: -s (\w+))?", README, re.MULTILINE)
    assert commands[:2] == ["demo", ""], "the demo, then the tests"
    assert set(filter(None, commands)) <= sessions


def test_contributing_names_every_folder_and_module_once() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+/|\w+\.py)` \|", text, re.MULTILINE)
    folders = [f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")]
    assert sorted(named) == sorted([*folders, *(path.name for path in PACKAGE.glob("*.py"))])


def test_no_path_of_a_machine_is_named() -> None:
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users)/", README)


class TestDemo:
    """The program of `python3 noxfile.py -s demo`."""

    def test_conversations_are_mapped_as_the_docstring_says(self) -> None:
        pytest.importorskip("chitchat_dataset")
        keys = frozenset({"id", "start", "prompt", "ratings"})
        lacking: Counter[frozenset[str]] = Counter()
        for record in demo.chitchat_conversations():
            roles = [entry.role.value for entry in record.conversations]
            assert roles == (["user", "assistant"] * len(roles))[: len(roles)]
            lacking[keys.difference(record.metadata)] += 1
        assert lacking == {
            frozenset(): 5988,
            frozenset({"ratings"}): 941,
            frozenset({"prompt", "ratings"}): 239,
        }

    def test_runs_twice_in_one_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("chitchat_dataset")
        some = list(islice(demo.chitchat_conversations(), 500))
        monkeypatch.setattr(demo, "chitchat_conversations", lambda: iter(some))
        monkeypatch.chdir(tmp_path)
        for _ in range(2):
            assert demo.main([]) == 0
            told = capsys.readouterr()
            assert "500 of 500 are equal to the saved ones" in told.out
            assert str(tmp_path) not in told.out
            assert told.err == ""
        assert "Removed chitchat-demo/chitchat.duckdb of an earlier run." in told.out
        assert "Now open chitchat-demo/chitchat.html in a browser." in told.out
        assert Path("chitchat-demo/chitchat.html").read_text("utf-8").count("<article") == 300

    @pytest.mark.process
    def test_the_commands_that_it_proposes_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
        beside = str(Path(sys.executable).parent)
        monkeypatch.setenv("PATH", os.pathsep.join([beside, os.environ["PATH"]]))
        store = SQLStorage("chitchat.duckdb")
        store.save_conversations([conversation("Teleport!"), conversation("Fly.")])
        commands = demo.next_commands(Path("chitchat.duckdb"))
        assert all(
            word in each for word, each in zip(["head", "export", "sql"], commands, strict=False)
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, command
            lacks = "Without reasoning of 2 conversations.\n" if "export" in command else ""
            assert done.stderr == lacks, command
            assert done.stdout, command
        assert Path("train.jsonl").exists()

    def test_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "chitchat_dataset", None)
        assert demo.main(["--dir", str(tmp_path)]) == 1
        assert "pip install 'afterimage-storage[demo]'" in capsys.readouterr().err
