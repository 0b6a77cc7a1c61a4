"""`benchmarks/gpu_check.py`: what holds of its steps without a graphics card."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def gpu_check(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(repository / "benchmarks")
    import gpu_check

    return gpu_check


def test_a_step_that_fails_leaves_figures_and_log(gpu_check: ModuleType, tmp_path: Path) -> None:
    script = "import sys; print('{\"peak\": 3}'); sys.exit('no card')"
    step = gpu_check.Step([sys.executable, "-c", script], 60, gpu_check.last_json)
    result = gpu_check.run("fit", step, tmp_path)
    assert result["failed"] == "exit code 1" and result["peak"] == 3
    assert json.loads((tmp_path / "fit.json").read_text()) == result
    assert "no card" in (tmp_path / "fit.log").read_text()


def test_a_step_without_figures_has_failed(gpu_check: ModuleType, tmp_path: Path) -> None:
    step = gpu_check.Step([sys.executable, "-c", ""], 60, gpu_check.last_json)
    assert gpu_check.run("fit", step, tmp_path)["failed"].startswith("no figures")


def test_a_step_that_takes_too_long_ends_with_its_children(
    gpu_check: ModuleType, tmp_path: Path
) -> None:
    """The measurement itself is a grandchild, and would go on holding the card's memory."""
    sleeper = "import time; time.sleep(600)"
    script = (
        "import json, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {sleeper!r}])\n"
        "print(json.dumps({'child': child.pid}), flush=True)\n"
        "child.wait()\n"
    )
    step = gpu_check.Step([sys.executable, "-c", script], 5, gpu_check.last_json)
    result = gpu_check.run("fit", step, tmp_path)
    assert result["failed"] == "not done after 5 s"
    deadline = time.monotonic() + 30
    while is_running(result["child"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(result["child"])


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie that nobody has waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_tests_that_did_not_pass_are_named(gpu_check: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1">'
        '<testcase name="good"/>'
        '<testcase name="bad"><failure message="assert 1 == 2"/></testcase>'
        '<testcase name="left_out"><skipped message="no card"/></testcase>'
        "</testsuite></testsuites>"
    )
    read = gpu_check.read_tests(report)
    assert (read["tests"], read["failures"], read["skipped"]) == (3, 1, 1)
    assert read["not_passed"] == {"bad": "failure: assert 1 == 2", "left_out": "skipped: no card"}
