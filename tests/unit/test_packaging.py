"""The wheel that users install holds everything that a checkout does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import rsearch_cli

LOAD_ALL = """
import json
import rsearch_cli
from rsearch_cli.recipe.loading import list_recipes
print(json.dumps({"package": rsearch_cli.__file__, "recipes": [r.name for r in list_recipes()]}))
"""


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling (extra `test`)")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, repository], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_name_and_version(wheel: Path) -> None:
    assert wheel.name == f"rsearch_cli-{rsearch_cli.__version__}-py3-none-any.whl"


def test_all_files_of_the_package_are_in_it(wheel: Path, repository: Path) -> None:
    package = repository / "rsearch_cli"
    files = {p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    recipes = {p for p in (repository / "recipes").rglob("*") if p.is_file()}
    expected = {f"rsearch_cli/{p.relative_to(package).as_posix()}" for p in files}
    expected |= {
        f"rsearch_cli/_recipes/{p.relative_to(repository / 'recipes').as_posix()}" for p in recipes
    }
    assert recipes
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_socks_proxies_need_no_further_package(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
    assert "Requires-Dist: httpx[socks]" in files.read(metadata).decode()


def test_every_recipe_loads_out_of_it(wheel: Path, repository: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    said = subprocess.run(
        [sys.executable, "-c", LOAD_ALL],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    ).stdout
    loaded: dict[str, Any] = json.loads(said)
    assert Path(loaded["package"]).is_relative_to(tmp_path)
    assert loaded["recipes"] == sorted(p.stem for p in (repository / "recipes").glob("*.yaml"))


def test_the_command_is_declared(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "rsearch = rsearch_cli.app:main" in archive.read(entry_points).decode()
