"""Everything a developer, or CI, runs. No setup is needed but Python 3.11 or newer.

python3 noxfile.py                  lint, types and all tests
python3 noxfile.py -s demo          the main job, on 7,168 real conversations
python3 noxfile.py -s tests -- -k parquet
                                    the words after ``--`` go to pytest (or to the demo)
python3 noxfile.py --list           the sessions

Where nox is not installed, this file makes itself an environment in .venv/nox and goes on there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def nox_python() -> Path:
    """Return the interpreter of .venv/nox, which has nox; make that environment where it is not."""
    home = ROOT / ".venv" / "nox"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    has_nox = [str(python), "-c", "import nox"]
    # A run that was stopped half-way, or a Python that moved, leaves an environment without nox.
    if not python.exists() or subprocess.run(has_nox, capture_output=True, check=False).returncode:
        print(f"Installing nox into {home.relative_to(ROOT)} (once) ...", flush=True)
        venv.create(home, clear=True, with_pip=True)  # needs ensurepip: Debian's python3-venv
        install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*install, "nox>=2025.2.9"], check=True)
    return python


if sys.version_info < (3, 11):  # noqa: UP036 (this file is what tells so)
    sys.exit(
        f"afterimage-storage needs Python 3.11 or newer, this is {sys.version.split()[0]}: "
        "run `python3.11 noxfile.py` or newer."
    )

try:
    import nox
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    try:
        command = [str(nox_python()), __file__, *sys.argv[1:]]
    except subprocess.CalledProcessError as error:
        said = (error.output or b"").decode(errors="replace").strip()
        sys.exit(
            f"nox could not be installed (exit code {error.returncode}). {said}\n"
            "On Debian and Ubuntu, `apt install python3-venv` brings what Python's venv needs."
        )
    sys.exit(subprocess.run(command, check=False).returncode)

PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")["project"]

# What the two ends of the range in pyproject.toml mean; the tests run on both.
DUCKDB_EDGES = {"1.5": "duckdb>=1.5,<1.6", "2.0": "duckdb>=2.0,<2.1"}
NEWEST_DUCKDB = list(DUCKDB_EDGES)[-1]

# What generates the conversations; our files are read by it, and its files by us.
PUBLISHED = "afterimage==0.18.1"
PUBLISHED_WITH_SERVER = PUBLISHED.replace("==", "[server]==")

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests", "libraries"]
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True


def run_pytest(session: nox.Session, **options: dict[str, str]) -> None:
    """Run pytest on both cores; a file's tests stay together, as some share data they load."""
    session.run("pytest", "-n", "2", "--dist", "loadscope", *session.posargs, **options)


def other_environment(session: nox.Session, name: str, *packages: str) -> Path:
    """Return an interpreter that has what is named; of a folder, as its sources are now."""
    home = ROOT / ".venv" / name
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(home, clear=True, with_pip=True)
    install = ["-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    session.run(str(python), *install, *packages, external=True)
    return python


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: the rules and the format."""
    session.install(*PROJECT["optional-dependencies"]["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over the package."""
    session.install("-e", ".[lint,cli]")
    session.run("mypy")


@nox.session
@nox.parametrize("duckdb", list(DUCKDB_EDGES))
def tests(session: nox.Session, duckdb: str) -> None:
    """Pytest, doctests and the README included, on one edge of DuckDB."""
    session.install("-e", ".[test]", DUCKDB_EDGES[duckdb])
    others = {
        "AFTERIMAGE_PUBLISHED_PYTHON": str(other_environment(session, "published", PUBLISHED))
    }
    if duckdb == NEWEST_DUCKDB:  # which is what that environment gets, too
        beside = other_environment(session, "beside", PUBLISHED_WITH_SERVER, str(ROOT))
        others["AFTERIMAGE_BESIDE_PYTHON"] = str(beside)
    run_pytest(session, env=others)


@nox.session
def libraries(session: nox.Session) -> None:
    """Pytest of the notebooks, and of what other libraries take from us, with all of them there."""
    session.install("-e", ".[test,libraries,notebooks]", DUCKDB_EDGES[NEWEST_DUCKDB])
    files = ["tests/interop/test_other_libraries.py", "tests/interop/test_docs.py"]
    session.run("pytest", *files, "tests/interop/test_notebooks.py", *session.posargs)


@nox.session(default=False)
def notebooks(session: nox.Session) -> None:
    """Run the notebooks and keep what comes out in them; CI runs them in `libraries`."""
    session.install("-e", ".[notebooks]", DUCKDB_EDGES[NEWEST_DUCKDB])
    session.run("python", "notebooks/run.py", *session.posargs)


@nox.session(default=False)
def oldest(session: nox.Session) -> None:
    """Pytest on the lowest version that pyproject.toml allows of every dependency."""
    lower_bounds = [bounds.split(",")[0].replace(">=", "==") for bounds in PROJECT["dependencies"]]
    session.install("-e", ".[test]", *lower_bounds)
    run_pytest(session)


@nox.session(default=False)
def demo(session: nox.Session) -> None:
    """The main job on real data; the files stay in chitchat-demo/."""
    session.install("-e", ".[demo]")
    session.run("python", "-m", "afterimage.storage.demo", *session.posargs)


if __name__ == "__main__":
    sys.argv[1:1] = ["--noxfile", __file__]
    nox.main()
