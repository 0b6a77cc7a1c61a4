from __future__ import annotations

import pytest
from typer import rich_utils
from typer.testing import CliRunner

from rsearch_cli.app import COMMANDS, app, load_command
from rsearch_cli.recipe.flags import FLAGS, flag_of
from rsearch_cli.recipe.loading import list_recipes


@pytest.mark.parametrize(
    ("flag", "value", "sentence"),
    [
        ("--max-steps", "0", "train.max_steps must be at least 1, got 0"),
        ("--num-generations", "1", "train.num_generations must be at least 2, got 1"),
        ("--lr", "0", "train.learning_rate must be greater than 0.0, got 0.0"),
        ("--max-samples", "0", "questions.max_samples must be at least 1 or null, got 0"),
        ("--seed", "-1", "seed must be at least 0, got -1"),
    ],
)
def test_a_flag_beats_set_and_is_blamed_by_its_name(flag: str, value: str, sentence: str) -> None:
    key = sentence.split()[0]
    result = CliRunner().invoke(
        app, ["train", "--recipe", "hotpot-hard", flag, value, "--set", f"{key}=5"]
    )
    assert (result.exit_code, result.stderr) == (13, f"rsearch: {flag}: {sentence}\n")


def test_the_flags_that_messages_name_exist() -> None:
    options = {o for name in COMMANDS for p in load_command(name).params for o in p.opts}
    named = {flag_of(key) for key in FLAGS} | {
        flag_of("policy.endpoint.url"),
        flag_of("sft.max_steps"),
    }
    assert named <= options


@pytest.mark.parametrize("command", ["train", "preview", "estimate"])
@pytest.mark.parametrize("options", [[], ["--model", "builtin:nano"], ["--json"]])
def test_without_a_recipe_nothing_starts(command: str, options: list[str]) -> None:
    result = CliRunner().invoke(app, [command, *options], env={"COLUMNS": "200"})
    assert (result.exit_code, result.stdout) == (2, "")
    for loaded in list_recipes():
        assert loaded.name in result.stderr
    assert "EXA_API_KEY and OPENAI_API_KEY" in result.stderr and "about $" in result.stderr
    assert f"rsearch {command} --recipe quickstart" in result.stderr


def commands_with_help() -> list[list[str]]:
    lines = [[]]
    for name in COMMANDS:
        inner = getattr(load_command(name), "commands", {})
        lines += [[name], *([name, each] for each in inner)]
    return lines


@pytest.mark.parametrize("line", commands_with_help(), ids=" ".join)
def test_help_fits_80_columns(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", 80)
    result = CliRunner().invoke(app, [*line, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert result.exit_code == 0
    assert "…" not in result.stdout, "a word is cut off"
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("line", [line for line in commands_with_help() if line], ids=" ".join)
def test_help_is_written_for_a_reader(line: list[str]) -> None:
    command = load_command(line[0])
    for name in line[1:]:
        command = command.commands[name]
    assert "Example: rsearch " in command.help or command.commands
    texts = [text for text in command.help.splitlines() if not text.startswith("Example: ")]
    assert max(map(len, texts)) <= 78
    for param in command.params:
        if param.param_type_name == "option" and not param.hidden:
            assert param.help and param.help.endswith(".") and param.help[0].isupper(), param.opts
            assert "efault" not in param.help, "Typer shows the default"
