"""Keys as flags: they reach the environment, and leave the command line."""

from __future__ import annotations

import os
import sys

import pytest
from typer.testing import CliRunner

from rsearch_cli import key_flags
from rsearch_cli.app import app


@pytest.mark.parametrize(
    ("given", "rest", "found"),
    [
        ([], [], {}),
        (["train", "--exa-api-key", "k", "--resume"], ["train", "--resume"], {"EXA_API_KEY": "k"}),
        (["train", "--openai-api-key=a=b"], ["train"], {"OPENAI_API_KEY": "a=b"}),
        (["--hub-token", "t", "--hub-token", "u"], [], {"HF_TOKEN": "u"}),
        (["train", "--wandb-api-key"], ["train", "--wandb-api-key"], {}),
        (["infer", "--", "--exa-api-key", "k"], ["infer", "--", "--exa-api-key", "k"], {}),
        (["train", "--exa-api-key="], ["train"], {"EXA_API_KEY": ""}),
    ],
)
def test_keys_are_split_off(given: list[str], rest: list[str], found: dict[str, str]) -> None:
    assert key_flags.split_keys(given) == (rest, found)


def test_a_process_with_a_key_on_its_command_line_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    arguments = ["train", "--exa-api-key", "secret", "--resume"]
    monkeypatch.setattr(sys, "argv", ["rsearch", *arguments])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "bin/rsearch", *arguments])
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    key_flags.hide_keys()
    [(program, command, environment)] = calls
    assert program == sys.executable
    assert command == ["python", "-u", "bin/rsearch", "train", "--resume"]
    assert environment == {**os.environ, "EXA_API_KEY": "secret"}


def test_a_process_without_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rsearch", "train"])
    monkeypatch.setattr(os, "execve", lambda *call: pytest.fail("nothing to hide"))
    key_flags.hide_keys()


def test_a_key_given_to_train_is_where_the_services_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXA_API_KEY", "old")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("RSEARCH_CACHE_DIR", "old")
    line = ["train", "--recipe", "nowhere", "--exa-api-key", "new", "--cache-dir", "there"]
    assert CliRunner().invoke(app, line).exit_code == 11
    assert os.environ["EXA_API_KEY"] == "new"
    assert os.environ["RSEARCH_CACHE_DIR"] == "there"
    assert "OPENAI_API_KEY" not in os.environ
