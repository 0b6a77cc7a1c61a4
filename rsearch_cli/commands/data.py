"""`rsearch data`: make a question file from a question set, or measure its pass rates."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.commands.options import Json, switch, value
from rsearch_cli.recipe.flags import flag_names
from rsearch_cli.streams import echo
from rsearch_cli.terminal import on_one_line
from rsearch_cli.ui.output import print_json

if TYPE_CHECKING:
    from rsearch_cli.questions.building import BuildReport
    from rsearch_cli.recipe.schema import QuestionsConfig

logger = logging.getLogger(__name__)

FORMATS = (".json", ".jsonl", ".parquet")
LEVELS = ("easy", "medium", "hard")
PROFILE_PANEL = "Pass rates"

_FLAG_OF = {
    "recipe": "--recipe",
    "samples": "--samples",
    "overrides": "--set",
    "endpoint": "--endpoint",
    "folder": "--output-dir",
    "overwrite": "--overwrite",
    "trust_settings": "--trust-settings",
    "trust_remote_code": "--trust-remote-code",
}


Source = Annotated[
    str | None,
    value(
        "NAME",
        "Question set: world, hotpotqa, flashrag:NAME, custom, ...",
        names=flag_names("questions.source"),
        show_default="required; with --profile, that of the recipe",
    ),
]
Output = Annotated[
    Path,
    value("FILE", f"File to write or overwrite: {', '.join(FORMATS)}."),
]
DataPath = Annotated[
    str | None,
    value(
        "FILE",
        "Read this file (for flashrag, also a folder) instead of the Hub.",
        names=flag_names("questions.path"),
    ),
]
Split = Annotated[
    str | None,
    value(
        "NAME",
        "Split to use.",
        names=flag_names("questions.train_split"),
        show_default="all of a file; train in other sets",
    ),
]
Difficulty = Annotated[
    list[str] | None,
    value("LEVELS", "Levels to keep: easy,medium,hard.", show_default="all"),
]
MaxSamples = Annotated[
    int | None,
    value(
        "N",
        "Size of a random sample; with --profile, take the first N.",
        min=1,
        show_default="all",
    ),
]
Against = Annotated[
    Path | None,
    value("FILE", "Also leave out the questions in this file."),
]
Corpus = Annotated[
    Path | None,
    value("FILE", "Also write the set's passages to this JSONL file."),
]
Seed = Annotated[
    int | None,
    value("N", "Seed of the sample.", min=0, show_default="42; with --profile, the recipe's"),
]
Model = Annotated[
    str | None,
    value(
        "MODEL",
        "Write pass rates of a recipe's training questions, by this model's answers: a run folder, "
        "adapter, model folder, Hub id or builtin:nano.",
        PROFILE_PANEL,
    ),
]
Samples = Annotated[
    int | None,
    value("K", "Answers to each question.", PROFILE_PANEL, min=1, show_default="8"),
]
Recipe = Annotated[
    str | None,
    value(
        "NAME",
        "Name or file of the recipe.",
        PROFILE_PANEL,
        show_default="that of the run in --profile, else quickstart",
    ),
]
Overrides = Annotated[
    list[str] | None,
    value(
        "KEY=VALUE",
        "Override any setting of the recipe; may be repeated.",
        PROFILE_PANEL,
        names=("--set",),
    ),
]
Endpoint = Annotated[
    str | None,
    value(
        "URL",
        "OpenAI-compatible server to ask; --profile is the model's name there.",
        PROFILE_PANEL,
    ),
]
AnswersDir = Annotated[
    Path | None,
    value(
        "DIR",
        "Folder of the answers; those already in it are used.",
        PROFILE_PANEL,
        show_default="OUTPUT-answers",
    ),
]
Overwrite = Annotated[
    bool, switch("--overwrite", "Start over if the folder has answers.", PROFILE_PANEL)
]
TrustSettings = Annotated[
    bool,
    switch(
        "--trust-settings",
        "Accept all settings of a recipe from elsewhere, including URLs and paths.",
        PROFILE_PANEL,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    switch(
        "--trust-remote-code",
        "Run Python code that ships with the model. It can do anything you can.",
        PROFILE_PANEL,
    ),
]


def data(
    output: Output,
    source: Source = None,
    path: DataPath = None,
    split: Split = None,
    difficulty: Difficulty = None,
    max_samples: MaxSamples = None,
    against: Against = None,
    corpus: Corpus = None,
    seed: Seed = None,
    profile: Model = None,
    samples: Samples = None,
    recipe: Recipe = None,
    overrides: Overrides = None,
    endpoint: Endpoint = None,
    output_dir: AnswersDir = None,
    overwrite: Overwrite = False,
    trust_settings: TrustSettings = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Make a question file from a question set, without duplicates.

    Questions that also occur in the other splits are left out. With --profile,
    write how often a model answers each training question of a recipe right.

    Example: rsearch data --source world --split train --max-samples 100 --output train.jsonl
    """
    levels = _read_levels(difficulty)
    questions = {
        "questions.source": source,
        "questions.path": path,
        "questions.train_split": split,
        "questions.difficulty": levels,
        "questions.max_samples": max_samples,
        "seed": seed,
    }
    of_profile = {
        "recipe": recipe,
        "samples": samples,
        "overrides": overrides,
        "endpoint": endpoint,
        "folder": output_dir,
        "overwrite": overwrite,
        "trust_settings": trust_settings,
        "trust_remote_code": trust_remote_code,
    }
    given = {name: value for name, value in of_profile.items() if value}
    if profile is not None:
        if against or corpus:
            raise typer.BadParameter("--profile takes neither --against nor --corpus")
        _write_profile(profile, output, questions, given, as_json)
        return
    if given:
        raise typer.BadParameter(f"{_FLAG_OF[next(iter(given))]} needs --profile MODEL")
    if output.suffix.lower() not in FORMATS:
        raise typer.BadParameter(
            f"{output} must end in {', '.join(FORMATS)}", param_hint="--output"
        )
    from rsearch_cli.questions.building import build_question_file

    report = build_question_file(
        _read_config(source, path, levels),
        output,
        split=split,
        limit=max_samples,
        seed=42 if seed is None else seed,
        against=against,
        corpus=corpus,
    )
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)


def _write_profile(
    model: str,
    output: Path,
    settings: Mapping[str, object],
    given: Mapping[str, Any],
    as_json: bool,
) -> None:
    from rsearch_cli.ui.progress import phase
    from rsearch_cli.workflows.profile import profile_questions

    if output.suffix.lower() != ".json":
        raise typer.BadParameter(f"{output} must end in .json", param_hint="--output")
    report = profile_questions(model, output, settings=settings, progress=phase, **given)
    facts = report.as_json()
    if as_json:
        print_json(facts)
        return
    echo(f"pass rates of {facts['questions']} questions written to {output}")
    echo(f"from    {facts['samples']} samples each of {on_one_line(facts['model'])}")
    for rate, count in facts["rates"].items():
        echo(f"{rate:<8}{count} questions")
    if facts["unrated"]:
        _warn(f"{facts['unrated']} questions have no rate: none of their samples has a score")
    if facts["failed_samples"]:
        _warn(f"{facts['failed_samples']} samples failed and count for no rate")
    echo(f"answers {report.folder}")


def _read_levels(difficulty: list[str] | None) -> list[str] | None:
    levels = [level.strip() for value in difficulty or () for level in value.split(",")]
    if unknown := [level for level in levels if level not in LEVELS]:
        raise typer.BadParameter(
            f"{unknown[0]!r} is not one of {', '.join(LEVELS)}", param_hint="--difficulty"
        )
    return levels or None


def _read_config(source: str | None, path: str | None, levels: list[str] | None) -> QuestionsConfig:
    from rsearch_cli.recipe.schema import QuestionsConfig

    if source is None:
        raise typer.BadParameter("name a question set, such as world", param_hint="--source")
    if source == "custom" and path is None:
        raise typer.BadParameter("--source custom needs --data-path FILE", param_hint="--data-path")
    return QuestionsConfig.model_validate({"source": source, "path": path, "difficulty": levels})


def _print(report: BuildReport) -> None:
    facts = report.as_json()
    duplicates, leaks = facts["duplicates"], facts["leaks"]
    echo(f"{facts['written']} questions written to {report.output}")
    echo(f"from    {report.description}, {facts['split'] or 'all splits'}")
    for name in ("type", "level"):
        counts = (f"{n} {on_one_line(value)}" for value, n in facts[f"by_{name}"].items())
        echo(f"{name + 's':<8}{', '.join(counts)}")
    if report.corpus:
        echo(f"corpus  {report.passages} passages written to {report.corpus}")
    if facts["missing"]:
        _warn(f"only {facts['written']} of {facts['asked']} requested questions are available")
    if duplicates["removed"]:
        differ = duplicates["answers_differ"]
        conflicts = f", {differ} of them with a different answer" if differ else ""
        _note(f"{duplicates['removed']} duplicates removed{conflicts}{_examples(duplicates)}")
    if leaks["removed"]:
        _note(f"{leaks['removed']} leaked questions removed{_examples(leaks)}")
    if leaks["checked"]:
        echo(f"none of them occurs in {' or '.join(leaks['checked'])}")
    else:
        _warn("not checked for leaks: there is no other split and no --against file")
    for unchecked in leaks["unchecked"]:
        _warn(f"not checked for leaks from {unchecked}")


def _examples(removals: Mapping[str, Any]) -> str:
    pairs = [f"{e['id']} (same as {e['same_as']})" for e in removals["examples"]]
    return f": {', '.join(pairs)}{', ...' if removals['removed'] > len(pairs) else ''}"


def _note(line: str) -> None:
    logger.info(on_one_line(line))


def _warn(line: str) -> None:
    logger.warning(on_one_line(line))
