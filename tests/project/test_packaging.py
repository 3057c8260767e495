"""The files of the wheel, the modules that an import loads, and the dependencies."""

from __future__ import annotations

import email
import inspect
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "afterimage" / "storage"
HEAVY = ("duckdb", "duckdb_engine", "numpy", "pandas", "polars", "pyarrow", "sqlalchemy")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this source tree without any download."""
    pytest.importorskip("hatchling", reason="hatchling, of the extra `test`, builds the wheel")
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def in_fresh_python(code: str, *, path: Path) -> str:
    """The output of `code` in a new interpreter that finds `afterimage.storage` in `path` first."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.process
class TestWheel:
    def test_holds_every_file_of_the_package_and_nothing_else(self, wheel: Path) -> None:
        shipped = {name for name in names_in(wheel) if ".dist-info/" not in name}
        in_source = {
            path.relative_to(ROOT / "src").as_posix()
            for path in PACKAGE.rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
        assert shipped == in_source
        assert "afterimage/storage/py.typed" in shipped

    def test_is_a_portion_of_the_namespace(self, wheel: Path) -> None:
        names = names_in(wheel)
        assert not (ROOT / "src" / "afterimage" / "__init__.py").exists()
        # Two files of the published `afterimage`, which may be installed together with this wheel.
        assert not {"afterimage/__init__.py", "afterimage/storage.py"} & set(names)
        ours = ("afterimage/storage/", "afterimage_storage-")
        assert all(name.startswith(ours) for name in names)

    def test_works_from_the_wheel_alone(self, wheel: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
        said = in_fresh_python(
            "import afterimage.storage as s; print(s.__file__)\n"
            "from afterimage.storage._version import __version__; print(__version__)",
            path=tmp_path,
        )
        file, version = said.splitlines()
        assert Path(file) == tmp_path / "afterimage" / "storage" / "__init__.py"
        assert wheel.name == f"afterimage_storage-{version}-py3-none-any.whl"

    def test_brings_the_command(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith("/entry_points.txt"))
            told = archive.read(name).decode()
        assert "afterimage-storage = afterimage.storage.cli:main" in told

    def test_declares_what_an_install_brings_along(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            told = email.message_from_bytes(archive.read(metadata))
            licences = [n for n in archive.namelist() if n.endswith("/licenses/LICENSE")]
        core = [line for line in told.get_all("Requires-Dist", []) if "extra ==" not in line]
        names = [re.split(r"[<>=!~ ;\[]", line, maxsplit=1)[0] for line in core]
        assert sorted(names) == [
            "duckdb",
            "duckdb-engine",
            "filelock",
            "pyarrow",
            "pydantic",
            "sqlalchemy",
        ]
        assert told["Requires-Python"] == ">=3.11"
        assert told["License-Expression"] == "MIT"
        assert "Typing :: Typed" in told.get_all("Classifier", [])
        assert len(licences) == 1


def test_dependency_groups_install_extras_that_exist() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project, groups = told["project"], told["dependency-groups"]
    named = [each for group in groups.values() for each in group]
    assert {each["include-group"] for each in named if isinstance(each, dict)} <= groups.keys()
    own = [each for each in named if str(each).startswith(project["name"])]
    extras = [re.findall(r"\[(\w+)\]$", each)[0] for each in own]
    assert {*extras} <= project["optional-dependencies"].keys()
    assert "dev" in groups  # what uv installs without being told


class TestImports:
    @pytest.mark.process
    @pytest.mark.parametrize(
        "statement",
        [
            "import afterimage.storage",
            "from afterimage.storage import JSONLStorage",
            "from afterimage.storage import BaseStorage, Document, Role, StorageError",
        ],
    )
    def test_stay_light(self, statement: str) -> None:
        loaded = in_fresh_python(
            f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])",
            path=ROOT / "src",
        )
        assert loaded.strip() == "[]"

    def test_every_public_name_is_there(self) -> None:
        import afterimage.storage

        assert sorted(afterimage.storage.__all__) == list(afterimage.storage.__all__)
        for name in afterimage.storage.__all__:
            assert getattr(afterimage.storage, name) is not None, name
        assert set(afterimage.storage.__all__) <= set(dir(afterimage.storage))

    def test_every_public_name_says_what_it_is(self) -> None:
        import afterimage.storage

        public = {name: getattr(afterimage.storage, name) for name in afterimage.storage.__all__}
        public |= {
            f"{owner.__name__}.{name}": member
            for owner in (afterimage.storage.JSONLStorage, afterimage.storage.SQLStorage)
            for name, member in inspect.getmembers(owner)
            if not name.startswith("_")
        }
        assert [name for name, member in public.items() if not inspect.getdoc(member)] == []


class TestChangelog:
    def test_names_the_version(self) -> None:
        from afterimage.storage._version import __version__

        text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        assert f"## {__version__}\n" in text


class TestBounds:
    def test_every_core_dependency_has_a_lower_bound(self) -> None:
        """`python3 noxfile.py -s oldest` installs exactly these versions."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert all(re.match(r"[a-z-]+>=\d[\d.]*(,<|$)", line) for line in project["dependencies"])
