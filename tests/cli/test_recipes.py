from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.recipe.loading import list_recipes, load_recipe


def run(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["recipes", *arguments])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_the_table_has_name_purpose_and_hardware_of_every_recipe() -> None:
    heading, *rows = run().splitlines()
    assert heading.split() == ["NAME", "PURPOSE", "HARDWARE"]
    assert len(rows) == len(list_recipes())
    for row, loaded in zip(rows, list_recipes(), strict=True):
        assert row.startswith(loaded.name)
        assert loaded.recipe.purpose in row
        assert loaded.recipe.hardware in row


def test_the_list_as_json() -> None:
    listed = json.loads(run("--json"))
    assert [entry["name"] for entry in listed] == [loaded.name for loaded in list_recipes()]
    for entry in listed:
        assert set(entry) == {"name", "purpose", "hardware", "needs", "path"}
        assert Path(entry["path"]).is_file()


@pytest.mark.parametrize("name", [loaded.name for loaded in list_recipes()])
def test_what_show_prints_is_the_recipe(name: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(run("show", name), encoding="utf-8")
    assert load_recipe(str(path)).recipe == load_recipe(name).recipe


def test_show_applies_set_and_takes_a_path(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("extends: quickstart\ntrain: {max_steps: 7}\n", encoding="utf-8")
    shown = yaml.safe_load(run("show", str(path), "--set", "train.save_steps=3", "--set", "seed=5"))
    assert shown["train"]["max_steps"] == 7
    assert shown["train"]["save_steps"] == 3
    assert shown["seed"] == 5


def test_the_example_in_the_help_of_show_works() -> None:
    example = "rsearch recipes show quickstart --set train.max_steps=20"
    assert example in run("show", "--help")
    assert yaml.safe_load(run(*example.split()[2:]))["train"]["max_steps"] == 20


def test_show_as_json() -> None:
    shown = json.loads(run("show", "quickstart", "--json"))
    assert shown == load_recipe("quickstart").recipe.model_dump()
