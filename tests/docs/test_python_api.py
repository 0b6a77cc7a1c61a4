"""The examples of docs/python-api.md run, and what they print is what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import rsearch_cli


@pytest.mark.stack
def test_the_examples_run_as_one_script(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "python-api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 5
    script = tmp_path / "notebook.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "SearchPlan(" in done.stdout and " tokens, " in done.stdout
    assert "did you mean train.max_steps?" in done.stdout and " 12\n" in done.stdout
    assert (tmp_path / "runs" / "notebook" / "summary.json").is_file()
    assert (tmp_path / "evals" / "notebook" / "report.md").is_file()


def test_importing_the_package_imports_nothing_large() -> None:
    script = """
import sys
import rsearch_cli
assert set(rsearch_cli.__all__) <= set(dir(rsearch_cli))
print(sorted({"torch", "pydantic", "typer", "rich", "yaml", "httpx"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", rsearch_cli.__all__)
def test_public_names_are_documented(name: str, repository: Path) -> None:
    value = getattr(rsearch_cli, name)
    assert value.__doc__ and value.__doc__[0].isupper()
    page = (repository / "docs" / "python-api.md").read_text(encoding="utf-8")
    assert name in page or name in ("EvaluationReport", "Recipe", "TrainingReport")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Agnet'"):
        _ = rsearch_cli.Agnet
