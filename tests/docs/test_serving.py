"""The examples of docs/serving.md, run as printed against a server on a free port."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT
from served_agent import ServedAgent

from rsearch_cli.serving.app import WEB_FOLDER

TEXT = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str, containing: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return [block for block in found if containing in block]


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.stack
@pytest.mark.parametrize("program", blocks("python", "openai"), ids=["whole", "streamed"])
def test_programs(program: str, served_agent: ServedAgent) -> None:
    printed = run([sys.executable, "-c", program.replace(ADDRESS, served_agent.url)])
    assert "founded by" in printed or "finished" in printed


@pytest.mark.stack
def test_curl(served_agent: ServedAgent) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (line,) = blocks("bash", "curl")
    line = line.replace(ADDRESS, served_agent.url)
    assert json.loads(run(["bash", "-c", line]))["rsearch"]["answer"]


@pytest.mark.stack
def test_llm(served_agent: ServedAgent, tmp_path: Path) -> None:
    (entry,) = blocks("yaml", "model_id")
    (line,) = blocks("bash", "llm")
    path = tmp_path / "extra-openai-models.yaml"
    path.write_text(entry.replace(ADDRESS, served_agent.url), encoding="utf-8")
    program = f"{sys.executable} -m llm"
    assert run(["bash", "-c", line.replace("llm", program, 1)], LLM_USER_PATH=str(tmp_path)).strip()


def error_codes() -> set[str]:
    """The `code` of every error that the server makes."""
    folder = ROOT / "rsearch_cli/serving"
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in folder.glob("*.py")
        if path.name != "view_server.py"
    ]
    calls = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Call)]
    errors = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "ApiError"]
    return {c.args[2].value for c in errors if isinstance(c.args[2], ast.Constant)}


def test_every_error_code_is_listed() -> None:
    codes = error_codes()
    assert {"server_busy", "budget_exceeded"} <= codes
    assert [code for code in sorted(codes) if f"`{code}`" not in TEXT] == []


@pytest.mark.stack
def test_every_metric_is_listed(served_agent: ServedAgent) -> None:
    lines = served_agent.text("/metrics").splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    names = {name for name in names if not name.endswith("_created")}
    assert [name for name in sorted(names) if name not in TEXT] == []


@pytest.mark.stack
def test_the_page_is_served(served_agent: ServedAgent) -> None:
    assert (WEB_FOLDER / "index.html").is_file()
    assert "<html" in served_agent.text("/")
