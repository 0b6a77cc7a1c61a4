"""Recipes, settings and configurations that no memory or no patience holds: one line, at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.errors import RecipeError
from rsearch_cli.recipe.documents import MOST_CHARS, MOST_DEPTH, MOST_VALUES, parse_document
from rsearch_cli.recipe.loading import load_recipe

SECONDS = 20.0  # each takes one or two on a machine with nothing else to do; none used to end

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)
)
LARGE = {
    "nested aliases": (LAUGHS, "more than 5000 values, with aliases expanded"),
    "nested merges": (MERGES, "more than 5000 values, with aliases expanded"),
    "keys": ("".join(f"k{n}: 1\n" for n in range(20_000)), "more than 5000 values"),
    "items": (f"a: [{'1,' * 100_000}]", "more than 5000 values"),
    "brackets": ("[" * 200_000, "more than 20 levels deep"),
    "braces": ("{a: " * 50_000, "more than 20 levels deep"),
    "closed brackets": ("[" * 90_000 + "]" * 90_000, "more than 20 levels deep"),
    "indents": ("".join(" " * n + "a:\n" for n in range(600)), "more than 20 levels deep"),
    "dashes": ("- " * 100_000, "more than 20 levels deep"),
    "questions": ("? " * 100_000, "more than 20 levels deep"),
    "a list in itself": ("a: &a [*a]", "an alias refers to a value that contains it"),
    "a mapping in itself": ("a: &a\n  b: *a\n", "an alias refers to a value that contains it"),
    "a merge of itself": ("&a {<<: *a}", "an alias refers to a value that contains it"),
    "a long number": (f"seed: {'1' * 5000}", "a number of more than 100 characters"),
    "a number to base 60": (f"seed: 1{':1' * 100_000}", "a number of more than 100 characters"),
    "bytes": (f"seed: !!binary {'A' * 100_000}", "a number of more than 100 characters"),
    "a long key": (f"{'k' * 1000}: 1", "a key of more than 200 characters"),
    "a long key of its own": (f"? {'k' * 100_000}\n: 1", "a key of more than 200 characters"),
    "characters": ("# no end\n" * 40_000, f"more than {MOST_CHARS:,} characters"),
    "half a character": ('purpose: "\\ud83d"', "half of a surrogate pair is not text"),
}


def refused(text: str) -> str:
    """What is said of a document, which must not take long."""
    started = time.monotonic()
    with pytest.raises(RecipeError) as raised:
        parse_document(text, "x.yaml")
    assert time.monotonic() - started < SECONDS
    assert str(raised.value).startswith("x.yaml:") and "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(("text", "said"), LARGE.values(), ids=LARGE)
def test_a_document_without_measure_is_one_line(text: str, said: str) -> None:
    assert said in refused(text)


def test_the_line_is_named() -> None:
    assert refused("a: 1\n" * 3 + "b: " + "[" * 30).startswith("x.yaml:4: more than 20 levels")


def test_what_lies_within_the_bounds_is_read() -> None:
    deep = "[" * (MOST_DEPTH - 2) + "]" * (MOST_DEPTH - 2)
    assert parse_document(f"a: {deep}", "x").data
    assert len(parse_document(f"[{'1,' * (MOST_VALUES - 1)}]", "x").data) == MOST_VALUES - 1
    shared = parse_document("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", "x").data
    assert shared == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


def test_a_pair_of_escapes_is_one_character_as_in_json() -> None:
    assert parse_document('{"a": "\\ud83d\\ude00"}', "x").data == {"a": "😀"}


def run(*arguments: str, code: int) -> list[str]:
    """The lines that a command says on stderr."""
    started = time.monotonic()
    result = CliRunner().invoke(app, list(arguments))
    assert time.monotonic() - started < SECONDS
    assert result.exit_code == code, result.output
    assert result.stdout == "" and "unexpected" not in result.stderr
    return result.stderr.splitlines()


@pytest.mark.parametrize("name", ["nested aliases", "brackets", "a list in itself", "keys"])
def test_every_command_that_reads_a_recipe_says_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(LARGE[name][0])
    for command in (["recipes", "show"], ["estimate", "--recipe"], ["train", "--recipe"]):
        lines = run(*command, str(path), code=10)
        assert len(lines) == 1 and LARGE[name][1] in lines[0], lines


def test_a_file_of_50_mb_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    with path.open("w") as file:
        file.writelines("purpose: x # and so on\n" for _ in range(2_300_000))
    assert path.stat().st_size > 50_000_000
    (line,) = run("recipes", "show", str(path), code=10)
    assert line.endswith("r.yaml: more than 262,144 characters")


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        (f"search={{{LAUGHS.replace(chr(10), ', ')}}}", 10, "--set search: more than 5000 values"),
        (f"train.max_steps={'9' * 5000}", 10, "--set train.max_steps: a number of more than 100"),
        (f"train.max_steps={'[' * 5000}", 10, "--set train.max_steps: more than 20 levels deep"),
        (f"{'a.' * 5000}b=1", 10, " […] "),
        (f"{'k' * 5000}=1", 10, "is not KEY=VALUE, as in train.max_steps=20"),
        ("train.max_steps={2020-01-01: 1}", 13, "train.max_steps must be a whole number, got {"),
        ("train.max_steps=.nan", 13, "train.max_steps must be a whole number, got NaN"),
        ("train.max_steps=1e400", 13, "train.max_steps must be a whole number, got Infinity"),
    ],
    ids=["aliases", "number", "levels", "dotted", "key", "date", "nan", "infinity"],
)
def test_settings_have_the_same_bounds(setting: str, code: int, said: str) -> None:
    (line,) = run("recipes", "show", "quickstart", "--set", setting, code=code)
    assert said in line and len(line) < 300


def test_of_many_problems_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("".join(f"unknown_key_{n}: 1\n" for n in range(2000)))
    first, *lines, last = run("recipes", "show", str(path), code=12)
    assert first == "rsearch: recipe r has 2002 problems:"  # purpose and hardware are missing too
    assert len(lines) == 20 and last == "  and 1982 more"


@pytest.mark.parametrize("name", ["a\0b.yaml", "n" * 5000 + ".yaml", "~nobody-of-this-name/r.yaml"])
def test_a_path_that_no_system_takes_is_a_recipe_that_is_not_there(name: str) -> None:
    (line,) = run("recipes", "show", name, code=11)
    assert "no recipe file at " in line


def test_a_configuration_of_accelerate_has_the_same_bounds(tmp_path: Path) -> None:
    path = tmp_path / "fsdp.yaml"
    path.write_text(LAUGHS)
    options = ["--recipe", "quickstart", "--accelerate-config", str(path)]
    (line,) = run("train", *options, code=10)
    assert f"--accelerate-config {path}:4: more than 5000 values" in line


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE"])
def test_an_environment_variable_that_is_no_number_is_named(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "one")
    result = CliRunner().invoke(app, ["train", "--recipe", "quickstart"])
    assert result.exit_code == 1
    said = f"rsearch: the environment variable {variable} must be a whole number, got 'one'; "
    assert result.stderr.startswith(said), result.stderr


def test_every_shipped_recipe_is_far_from_the_bounds(repository: Path) -> None:
    for path in (repository / "recipes").glob("*.yaml"):
        assert len(path.read_text()) < MOST_CHARS / 10
        assert load_recipe(str(path))
