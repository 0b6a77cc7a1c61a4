"""docs/extending.md, followed step by step on a copy of the package; then its own tests run."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import ROOT, read

import rsearch_cli

PAGE = ROOT / "docs/extending.md"
_STEP = re.compile(r"^The (module|line|test), (.*?):\n\n```python\n(.*?)```$", re.M | re.S)
_PLACE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Step:
    """One block of the page: what it is, where it goes (a file; for a line, a name in a file)."""

    kind: str
    name: str
    file: str
    code: str


def sections() -> dict[str, list[Step]]:
    found = {}
    for section in read(PAGE).split("\n## ")[1:]:
        steps = []
        for kind, sentence, code in _STEP.findall(section):
            name, file = [*_PLACE.findall(sentence), ""][:2]
            steps.append(Step(kind, name, file if kind == "line" else name, code))
        if steps:
            found[section.partition("\n")[0]] = steps
    return found


def insert(file: Path, anchor: str, code: str) -> None:
    """Add code below the line of a file that starts with `anchor`."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    (at,) = (i for i, line in enumerate(lines) if line.startswith(anchor))
    file.write_text("".join([*lines[: at + 1], code, *lines[at + 1 :]]), encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which somebody has followed the whole page."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(Path(rsearch_cli.__file__).parent, root / "rsearch_cli")
    shutil.copytree(ROOT / "recipes", root / "recipes")
    for steps in sections().values():
        for step in steps:
            file = root / step.file
            if step.kind == "line":
                insert(file, step.name, step.code)
            else:
                assert not file.exists(), f"{file} would be replaced"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(step.code, encoding="utf-8")
    return root


def test_every_extension_is_a_module_a_line_and_a_test() -> None:
    kinds = {section: [step.kind for step in steps] for section, steps in sections().items()}
    assert len(kinds) >= 5
    assert set(map(tuple, kinds.values())) == {("module", "line", "test")}


def test_its_modules_have_the_type_annotations_that_mypy_demands() -> None:
    modules = [s.code for steps in sections().values() for s in steps if s.kind == "module"]
    functions = [
        node
        for code in modules
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 5
    for function in functions:
        given = [*function.args.args, *function.args.kwonlyargs]
        bare = [arg.arg for arg in given if arg.annotation is None and arg.arg != "self"]
        assert function.returns is not None and not bare, function.name


def test_the_tests_of_the_page_pass(extended: Path) -> None:
    tests = [step.file for steps in sections().values() for step in steps if step.kind == "test"]
    if find_spec("torch") is None:  # as under `tox -e quick`
        tests = [test for test in tests if "/policy/" not in test]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    ran = subprocess.run(
        [*command, "--rootdir", str(extended), "--import-mode", "importlib", *tests],
        cwd=extended,
        env={**os.environ, "PYTHONPATH": str(extended)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(tests)} passed" in ran.stdout
