"""One virtual environment per system, so that no package hides one of another system."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.harness.registry import ROOT, Environment

__all__ = ["HOME", "clean_environ", "ensure", "python_of", "versions"]

HOME = ROOT / ".venv" / "benchmarks"

_LIST_VERSIONS = """
import importlib.metadata, json
print(json.dumps({d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}))
"""


def python_of(environment: Environment) -> Path:
    """The interpreter of an environment."""
    folder = HOME / environment.name
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure(environment: Environment, *, fresh: bool = False) -> None:
    """Create the environment, unless it exists with the same requirements."""
    folder = HOME / environment.name
    stamp = folder / "requirements.sha256"
    wanted = _fingerprint(environment)
    if not fresh and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print(f"Installing {' '.join(environment.requirements)} into {shown(folder)} ...", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    install = [str(python_of(environment)), "-m", "pip", "install", "-qq"]
    install += ["--disable-pip-version-check", *environment.requirements]
    subprocess.run(install, check=True)
    stamp.write_text(wanted, encoding="utf-8")


def clean_environ(
    environment: Environment, scratch: Path, source: Path = ROOT / "src"
) -> dict[str, str]:
    """The environment variables of a program in this environment.

    No Python variable of the caller is passed on, and the caches of libraries are in `scratch`.
    `source` is the folder that this project's package is imported from.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept |= {
        "PYTHONNOUSERSITE": "1",
        "AFTERIMAGE_JSONL_DIR": str(scratch),
        "HF_HOME": str(scratch / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "MPLCONFIGDIR": str(scratch / "matplotlib"),
    }
    if environment.sees_source:
        kept["PYTHONPATH"] = str(source)
    return kept


def versions(environment: Environment) -> dict[str, str]:
    """The versions of Python and of every installed package."""
    listed = subprocess.run(
        [str(python_of(environment)), "-I", "-c", _LIST_VERSIONS],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(listed.stdout)
    return {"Python": sys.version.split()[0], **dict(sorted(found.items(), key=_caseless))}


def shown(path: Path) -> str:
    """The path relative to the project, so that results contain no paths of this machine."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _caseless(item: tuple[str, str]) -> str:
    return item[0].lower()


def _fingerprint(environment: Environment) -> str:
    parts = [sys.version, *environment.requirements]
    if any(str(ROOT) in requirement for requirement in environment.requirements):
        # An editable install: only its requirements can become outdated.
        parts.append((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
