from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsearch_cli import __version__
from rsearch_cli.app import app
from rsearch_cli.recipe import loading

REPOSITORY = Path(__file__).resolve().parents[2]

HEAVY = """accelerate bitsandbytes datasets diskcache exa_py huggingface_hub numpy openai peft
plotext pyarrow pydantic tokenizers torch transformers trl unsloth wandb yaml""".split()


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"rsearch {__version__}\n")


def test_help_loads_no_heavy_module() -> None:
    script = f"""
import json, sys
from rsearch_cli.app import app
try:
    app(["--help"], prog_name="rsearch")
finally:
    heavy = {HEAVY!r}
    print(json.dumps([name for name in heavy if name in sys.modules]), file=sys.stderr)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Usage: rsearch" in done.stdout
    assert json.loads(done.stderr) == []


def test_python_m_is_the_same_program() -> None:
    command = [sys.executable, "-m", "rsearch_cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"rsearch {__version__}\n"


def test_without_a_command_the_help_is_shown() -> None:
    result = CliRunner().invoke(app, [])
    assert "Usage:" in result.output
    assert "rsearch train --recipe quickstart" in result.output


def test_a_usage_error_is_2() -> None:
    result = CliRunner().invoke(app, ["recipes", "shwo"])
    assert result.exit_code == 2
    assert "Did you mean 'show'?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (
            ["quikstart"],
            11,
            "no recipe is called 'quikstart'; did you mean quickstart? "
            "List them with: rsearch recipes",
        ),
        (
            ["quickstart", "--set", "lora_r=8"],
            12,
            "--set: unknown key lora_r; did you mean policy.lora.r?",
        ),
        (
            ["quickstart", "--set", "train.max_steps=0"],
            13,
            "--set: train.max_steps must be at least 1, got 0",
        ),
        (["quickstart", "--set", "x"], 10, "--set: 'x' is not KEY=VALUE, as in train.max_steps=20"),
    ],
)
def test_an_error_of_ours_is_one_line_and_its_own_code(
    arguments: list[str], code: int, line: str
) -> None:
    result = CliRunner().invoke(app, ["recipes", "show", *arguments])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"rsearch: {line}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--debug", "recipes", "show", "quikstart"],
        ["recipes", "show", "quikstart", "--debug"],
    ],
)
def test_debug_shows_the_traceback_and_keeps_line_and_code(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 11
    assert result.stderr.splitlines()[1] == "Traceback (most recent call last):"
    assert result.stderr.splitlines()[-1].startswith("rsearch: no recipe is called 'quikstart'; ")


def raise_from_list_recipes(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(loading, "list_recipes", fail)


def test_control_c_is_130_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_from_list_recipes(monkeypatch, KeyboardInterrupt())
    result = CliRunner().invoke(app, ["recipes"])
    assert (result.exit_code, result.stderr) == (130, "rsearch: interrupted\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ZeroDivisionError("by zero\nreally"), "unexpected error: ZeroDivisionError: by zero"),
        (KeyError(), "unexpected error: KeyError: no message"),
    ],
)
def test_a_bug_is_1_and_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_from_list_recipes(monkeypatch, error)
    result = CliRunner().invoke(app, ["recipes"])
    assert result.exit_code == 1
    assert result.stderr == f"rsearch: {line}; run again with --debug for the traceback\n"


def test_a_library_that_does_not_import_leads_to_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_from_list_recipes(
        monkeypatch, ImportError("libcudart.so.13: cannot open shared object file")
    )
    result = CliRunner().invoke(app, ["recipes"])
    assert result.exit_code == 1
    assert result.stderr == (
        "rsearch: libcudart.so.13: cannot open shared object file: a library does not import; "
        "`rsearch doctor` checks them all\n"
    )


def test_a_bug_with_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_from_list_recipes(monkeypatch, ZeroDivisionError("by zero"))
    result = CliRunner().invoke(app, ["--debug", "recipes"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1] == "Traceback (most recent call last):"
    assert result.stderr.endswith("\nrsearch: unexpected error: ZeroDivisionError: by zero\n")


@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "show", "quickstart"]])
def test_a_closed_pipe_ends_quietly(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "rsearch_cli", *arguments]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
