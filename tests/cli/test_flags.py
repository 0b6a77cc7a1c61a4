from __future__ import annotations

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.recipe.problems import FLAG_NAMES


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
    result = CliRunner().invoke(app, ["train", flag, value, "--set", f"{key}=5"])
    assert (result.exit_code, result.stderr) == (13, f"rsearch: {flag}: {sentence}\n")


def test_the_named_flags_are_options_of_train_or_eval() -> None:
    commands = [get_command(app).commands[name] for name in ("train", "eval")]  # type: ignore[attr-defined]
    options = {option for c in commands for parameter in c.params for option in parameter.opts}
    assert set(FLAG_NAMES.values()) <= options
