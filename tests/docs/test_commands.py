"""Every command line that the documentation prints is one that this version accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pages import PAGES, ROOT, command_lines, name_of, rsearch_calls

from rsearch_cli.app import COMMANDS, app, load_command
from rsearch_cli.recipe.loading import load_recipe, recipes_folder

PAST = {"CHANGELOG.md"}
"""Pages that name commands of earlier versions."""
CURRENT = [page for page in PAGES if name_of(page) not in PAST]
HEADERS = [
    line.removeprefix("# Launch:").removeprefix("# Override:").removeprefix("# Memory:").strip()
    for recipe in sorted(recipes_folder().glob("*.yaml"))
    for line in recipe.read_text(encoding="utf-8").splitlines()
    if re.match(r"# (Launch|Override|Memory):", line)
]
LINES = [
    *((name_of(page), line) for page in CURRENT for line in command_lines(page)),
    *(("recipes", line) for line in HEADERS),
]
CALLS = [(page, call) for page, line in LINES for call in rsearch_calls(line)]
SHIPPED = {path.stem for path in recipes_folder().glob("*.yaml")}


def problems(call: list[str]) -> list[str]:
    """What this version would refuse in a call: commands, options, shipped recipes, settings."""
    args = list(call)
    command = typer.main.get_command(app)
    known = options_of(command)
    if args and not args[0].startswith("-"):
        if args[0] not in COMMANDS:
            return [f"no command {args[0]}"]
        command = load_command(args.pop(0))
        known |= options_of(command)
        while args and args[0] in getattr(command, "commands", {}):
            command = command.commands[args.pop(0)]
            known |= options_of(command)
    found = surplus_words(command, args, known)
    options = [word.partition("=")[0] for word in args if re.match(r"-{1,2}[a-z]", word)]
    found += [f"no option {option}" for option in options if option not in known]
    pairs = list(pairwise(args))
    values = dict(pairs)
    recipe = values.get("--recipe", "quickstart")
    if re.fullmatch(r"[a-z0-9-]+", recipe) and recipe not in SHIPPED:
        found.append(f"no recipe {recipe}")
    settings = [value for flag, value in pairs if flag == "--set"]
    if settings:
        try:
            load_recipe(recipe if recipe in SHIPPED else "quickstart", settings)
        except Exception as error:
            found.append(str(error))
    return found


def options_of(command: Any) -> dict[str, bool]:
    """The options of a command, each with whether a value follows it."""
    names = {"--help": False, "-h": False}
    for parameter in command.params:
        takes_value = not getattr(parameter, "is_flag", False)
        names |= dict.fromkeys((*parameter.opts, *parameter.secondary_opts), takes_value)
    return names


def surplus_words(command: Any, args: list[str], known: Mapping[str, bool]) -> list[str]:
    """The words for which a command has no argument."""
    places = [parameter.nargs for parameter in command.params if not hasattr(parameter, "is_flag")]
    plain = [
        word
        for before, word in pairwise(["", *args])
        if not word.startswith("-") and not known.get(before, before.startswith("-"))
    ]
    return [] if -1 in places else [f"no argument {word}" for word in plain[sum(places) :]]


@pytest.mark.parametrize(("page", "call"), CALLS, ids=lambda value: " ".join(value)[:80])
def test_a_printed_command_line_is_accepted(page: str, call: list[str]) -> None:
    assert problems(call) == [], page


def test_the_pages_print_command_lines() -> None:
    assert len(CALLS) > 40


@pytest.mark.parametrize(
    "line", sorted({line for _, line in LINES if "benchmarks/" in line or "scripts/" in line})
)
def test_a_printed_script_exists_and_has_its_options(line: str) -> None:
    script = re.search(r"(?:benchmarks|scripts|docs)/\S+\.py", line)
    assert script
    text = (ROOT / script[0]).read_text(encoding="utf-8")
    options = re.findall(r" (--[a-z][a-z-]*)", line.partition(script[0])[2].partition("#")[0])
    assert [option for option in options if f'"{option}"' not in text] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("rsearch train --recipe quickstart", []),
        (".venv/bin/rsearch eval compare a b", []),
        ("rsearch trian", ["no command trian"]),
        ("rsearch train --recipy x", ["no option --recipy"]),
        ("rsearch train --recipe no-such-one", ["no recipe no-such-one"]),
        ("rsearch cache clear http", ["no argument http"]),
        ("x && rsearch infer --modle y  # --and", ["no option --modle"]),
    ],
)
def test_the_check_sees(line: str, found: list[str]) -> None:
    assert [problem for call in rsearch_calls(line) for problem in problems(call)] == found


def test_the_check_sees_settings() -> None:
    assert "train.max_step" in problems(["train", "--set", "train.max_step=3"])[0]


def test_comments_end_a_command_line() -> None:
    assert rsearch_calls("A=1 rsearch infer 'Who # is?'  # it's here") == [["infer", "Who # is?"]]


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == ROOT], ids=name_of)
def test_the_set_up_uses_the_tested_versions(page: Path) -> None:
    installs = [line for line in command_lines(page) if "pip install" in line]
    assert [line for line in installs if "-c constraints.txt" not in line] == []


def test_tox_names_tests_that_exist() -> None:
    settings = (ROOT / "tox.ini").read_text(encoding="utf-8")
    named = set(re.findall(r"tests/[\w/.]+", settings))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_tox_runs_every_test_of_unsloth() -> None:
    settings = (ROOT / "tox.ini").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^on_either_backend =\n((?: +.*\n)+)", settings, re.MULTILINE)
    run = [ROOT / path for path in re.findall(r"tests/[\w/.]+", listed)]
    marked = [
        p for p in (ROOT / "tests").rglob("test_*.py") if "mark.unsloth" in p.read_text("utf-8")
    ]
    marked.remove(Path(__file__).resolve())
    assert marked and [p for p in marked if not any(p.is_relative_to(each) for each in run)] == []
