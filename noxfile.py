"""Everything a developer, or CI, runs. No setup is needed but Python 3.11 or newer.

python3 noxfile.py                  lint, types and tests
python3 noxfile.py -s fast          lint, types and the quick tests, in a minute
python3 noxfile.py -s demo          the main job, on 7,168 real conversations
python3 noxfile.py -s tests -- -k parquet
                                    the words after ``--`` go to pytest (or to the demo)
python3 noxfile.py --list           the sessions

Where nox is not installed, this file makes itself an environment in .venv/nox and goes on there.
"""

from __future__ import annotations

import os
import shutil
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

PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PROJECT = PYPROJECT["project"]

# What the two ends of the range in pyproject.toml mean; the tests run on both.
DUCKDB_EDGES = {"1.5": "duckdb>=1.5.5,<1.6", "2.0": "duckdb>=2.0,<2.1"}
OLDEST_DUCKDB, NEWEST_DUCKDB = DUCKDB_EDGES.values()

# What generates the conversations; our files are read by it, and its files by us.
PUBLISHED = "afterimage==0.18.1"
PUBLISHED_WITH_SERVER = PUBLISHED.replace("==", "[server]==")

TRL = "trl>=1.16"

# The minor versions of Python in the classifiers of pyproject.toml.
PYTHONS = [
    name.rpartition(" ")[2]
    for name in PROJECT["classifiers"]
    if name.startswith("Programming Language :: Python :: 3.")
]

THIS_PYTHON = "{}.{}".format(*sys.version_info[:2])

QUICK = ["-m", "not slow and not process", "--storages=jsonl,sql-memory"]
# The README, the command line, the packaging and the benchmarks do not depend on the engine.
ENGINE_TESTS = [
    f"tests/{name}"
    for name in (
        *("conformance", "engine", "figures", "index", "jsonl", "records", "schema", "system"),
        *("tables", "transfer", "users"),
    )
]
# Lakes are slower to make than files, so the tests of hundreds of queries are left out.
LAKE_STORAGES = "--storages=lake-file,lake-postgres,lake-metadata-fields"
# A server for tests of lakes in a bucket. `moto[server]` would add much that S3 does not need.
OBJECT_STORE = ("moto[s3]>=5.1", "flask", "flask-cors")
LAKE_TESTS = ["tests/lake"]
LAKE_TESTS += [f"tests/conformance/records/test_{name}.py" for name in ("editing", "exact_values")]
LAKE_TESTS += [f"tests/conformance/queries/test_{name}.py" for name in ("order", "pages")]
ENGINE_STORAGES = "--storages=jsonl,sql-file,sql-metadata-fields"
# The engine answers queries and the command line prints tables alike on every Python.
NOT_ABOUT_PYTHON = [
    f"--ignore=tests/{name}"
    for name in ("conformance/files", "conformance/queries", "cli/test_terminals.py", "project")
]

# How much the slow tests try: hypothesis' examples, and random signals for each storage.
SLOW = {"HYPOTHESIS_PROFILE": "ci", "AFTERIMAGE_STOPS": "100"}

# What the session `fast` runs of the quick tests. tests/query has small tables of the values that
# the deselected tests compare with each other.
QUICKEST_TESTS = [
    "--deselect=tests/conformance/queries/test_filters.py::TestValuesCompareAsInJson",
    "--deselect=tests/conformance/queries/test_parity.py::TestRecordsThatChangeLate",
    "tests/conformance/queries",
    "tests/conformance/records",
    "tests/jsonl",
    "tests/project/test_layout.py",
    "tests/query",
    "tests/records",
    "tests/reports",
]

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "none"  # sessions share environments: see `environment`


def environment(
    session: nox.Session, name: str, *packages: str, interpreter: str = sys.executable
) -> Path:
    """Return the folder of scripts of .venv/`name`, in which `packages` are installed.

    They are installed again only when they, the interpreter or pyproject.toml change. Remove the
    folder to get newer releases.
    """
    home = ROOT / ".venv" / name
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    stamp = home / "installed.txt"
    wanted = "\n".join([interpreter, *packages, (ROOT / "pyproject.toml").read_text("utf-8")])
    if not stamp.exists() or stamp.read_text("utf-8") != wanted or not works(python):
        session.run(interpreter, "-m", "venv", "--clear", str(home), external=True, log=False)
        pip_install(session, scripts, *packages)
        stamp.write_text(wanted, "utf-8")
    return scripts


def works(python: Path) -> bool:
    """Tell whether an environment's interpreter starts: Python may have been moved or removed."""
    try:
        return subprocess.run([str(python), "-c", ""], check=False).returncode == 0
    except OSError:
        return False


def pip_install(session: nox.Session, scripts: Path, *arguments: str) -> None:
    """Install into an environment without a word, except for errors."""
    install = ["-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    session.run(str(scripts / "python"), *install, *arguments, external=True)


def project(session: nox.Session) -> Path:
    """Return the environment that lint, types and tests share, with the newest DuckDB."""
    return environment(session, "project", "-e", ".[lint,test]", NEWEST_DUCKDB)


def run(session: nox.Session, scripts: Path, command: str, *arguments: str, **env: str) -> None:
    """Run a command of an environment as if that environment were activated."""
    path = os.pathsep.join([str(scripts), os.environ.get("PATH", "")])
    session.run(str(scripts / command), *arguments, env={"PATH": path, **env}, external=True)


def run_pytest(session: nox.Session, scripts: Path, *arguments: str, **env: str) -> None:
    """Run pytest on both cores; a file's tests stay together, as some share data they load."""
    both_cores = ["-n", "2", "--dist", "loadscope"]
    run(session, scripts, "pytest", *both_cores, *arguments, **env)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: the rules and the format. Import-linter: which folder may import which."""
    scripts = project(session)
    run(session, scripts, "ruff", "check", ".")
    run(session, scripts, "ruff", "format", "--check", ".")
    run(session, scripts, "lint-imports", "--no-logo", PYTHONPATH="src")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over the package."""
    run(session, project(session), "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Pytest on the newest DuckDB, doctests and the README included, except for slow tests."""
    run_pytest(session, project(session), *(session.posargs or ["-m", "not slow"]))


@nox.session(default=False)
def fast(session: nox.Session) -> None:
    """Lint, types and the quickest tests on two storages: to be run after every change."""
    lint(session)
    types(session)
    chosen = session.posargs or QUICKEST_TESTS
    run_pytest(session, project(session), *QUICK, *chosen, HYPOTHESIS_PROFILE="quick")


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Pytest of what takes long: large data, fuzzing, many examples, kills and writers."""
    run_pytest(session, project(session), "-m", "slow", *session.posargs, **SLOW)


@nox.session(default=False)
def older_duckdb(session: nox.Session) -> None:
    """Pytest of what depends on the engine, on the oldest supported DuckDB."""
    scripts = environment(session, "older-duckdb", "-e", ".[test]", OLDEST_DUCKDB)
    chosen = ["-m", "not slow", ENGINE_STORAGES, *ENGINE_TESTS]
    run_pytest(session, scripts, *(session.posargs or chosen))


@nox.session(default=False)
def oldest(session: nox.Session) -> None:
    """The quick tests on the lowest version that pyproject.toml allows of every dependency."""
    bounds = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cli"]]
    lowest = [bound.split(",")[0].replace(">=", "==") for bound in bounds]
    scripts = environment(session, "oldest", "-e", ".[test]", *lowest)
    run_pytest(session, scripts, *QUICK, *session.posargs, HYPOTHESIS_PROFILE="quick")


@nox.session(default=False)
@nox.parametrize("python", PYTHONS, ids=PYTHONS)
def pythons(session: nox.Session, python: str) -> None:
    """The quick tests of what can depend on Python, on a supported one, where it is installed."""
    if python == THIS_PYTHON and not session.posargs:
        session.skip(f"`python3 noxfile.py` runs all tests on Python {python}.")
        return
    interpreter = interpreter_of(python)
    if interpreter is None:
        session.skip(f"Python {python} is not installed.")
        return
    packages = ["-e", ".[test]", NEWEST_DUCKDB]
    scripts = environment(session, f"python-{python}", *packages, interpreter=interpreter)
    chosen = session.posargs or NOT_ABOUT_PYTHON
    run_pytest(session, scripts, *QUICK, *chosen, HYPOTHESIS_PROFILE="quick")


def interpreter_of(version: str) -> str | None:
    """Find an interpreter of a minor version: this one, one on the path, one of pyenv's."""
    if version == THIS_PYTHON:
        return sys.executable
    installed = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [shutil.which(f"python{version}"), *installed.glob(f"{version}.*/bin/python")]
    # A shim of pyenv may be there for a version that is not active: it does not start.
    return next((str(path) for path in found if path is not None and works(Path(path))), None)


@nox.session(default=False)
def published(session: nox.Session) -> None:
    """Pytest of what the published generators write and read, alone and with us beside them."""
    alone = environment(session, "published", PUBLISHED)
    beside = environment(session, "beside", PUBLISHED_WITH_SERVER, str(ROOT), NEWEST_DUCKDB)
    pip_install(session, beside, "--no-deps", "--force-reinstall", str(ROOT))  # as it is now
    run_pytest(
        session,
        project(session),
        "tests/interop/test_published_package.py",
        "tests/interop/test_real_generator.py",
        "tests/conformance/files/test_training_formats.py",
        AFTERIMAGE_PUBLISHED_PYTHON=str(alone / "python"),
        AFTERIMAGE_BESIDE_PYTHON=str(beside / "python"),
    )


@nox.session(default=False)
def libraries(session: nox.Session) -> None:
    """Pytest of the notebooks, their Stop button, and what other libraries read from us."""
    scripts = environment(session, "libraries", "-e", ".[test,libraries,notebooks]", NEWEST_DUCKDB)
    # Without its dependencies, of which PyTorch is one: the tests load its functions for datasets.
    pip_install(session, scripts, "--no-deps", TRL)
    topics = ("consumers", "docs", "notebooks", "object_store", "other_libraries")
    names = [f"test_{topic}.py" for topic in topics]
    files = [f"tests/interop/{name}" for name in names]
    files += ["tests/reports/test_bars.py", "tests/system/test_stops.py::TestNotebooks"]
    run_pytest(session, scripts, *files)


@nox.session(default=False)
def lake(session: nox.Session) -> None:
    """Pytest of lakes, on a PostgreSQL of the tests' own and DuckDB's extensions from PyPI."""
    install_postgresql(session)
    scripts = environment(session, "lake", "-e", ".[lake,test]", *OBJECT_STORE)
    run_pytest(
        session,
        scripts,
        *(session.posargs or ["-m", "not slow", LAKE_STORAGES, *LAKE_TESTS]),
        AFTERIMAGE_LAKES="1",
    )


def install_postgresql(session: nox.Session) -> None:
    """Install the package of Debian if there is no server. Without one, tests are skipped."""
    if shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"]
        session.run("apt-get", "update", "-qq", external=True, success_codes=[0, 100])
        session.run(*install, external=True, success_codes=[0, 100])


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """Pytest of the pages of HTML in a real browser."""
    if not shutil.which("chromium") and shutil.which("apt-get") and os.geteuid() == 0:
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
        session.run("apt-get", "update", "-qq", external=True, success_codes=[0, 100])
        session.run(*install, external=True, success_codes=[0, 100])
    scripts = environment(session, "browser", "-e", ".[browser,test]", NEWEST_DUCKDB)
    run_pytest(session, scripts, *(session.posargs or ["tests/looking", "tests/viewer"]))


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the site of the guides and the API in .venv/site; a wrong link is an error."""
    group = nox.project.dependency_groups(PYPROJECT, "docs")
    scripts = environment(session, "docs", *group)
    build = ["build", "--strict", *session.posargs]
    run(session, scripts, "mkdocs", *build, NO_MKDOCS_2_WARNING="1")
    session.log("The site is in .venv/site: open index.html, or serve it for its search.")


@nox.session(default=False)
def notebooks(session: nox.Session) -> None:
    """Run the notebooks and keep what comes out in them; CI runs them in `libraries`."""
    scripts = environment(session, "notebooks", "-e", ".[notebooks]", NEWEST_DUCKDB)
    run(session, scripts, "python", "notebooks/run.py", *session.posargs)


@nox.session(default=False)
def speed(session: nox.Session) -> None:
    """Compare the speed with an earlier commit: ``-s speed -- COMMIT --only load group``."""
    if not session.posargs:
        session.error("Name a commit: python3 noxfile.py -s speed -- COMMIT")
    script = str(ROOT / "benchmarks" / "compare.py")
    session.run(sys.executable, script, *session.posargs, external=True)


@nox.session(default=False)
def demo(session: nox.Session) -> None:
    """The main job on real data; the files stay in chitchat-demo/."""
    scripts = environment(session, "demo", "-e", ".[cli,demo]")
    run(session, scripts, "python", "-m", "afterimage.storage.demo", *session.posargs)


if __name__ == "__main__":
    sys.argv[1:1] = ["--noxfile", __file__]
    nox.main()
