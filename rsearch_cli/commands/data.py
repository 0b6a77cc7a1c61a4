"""`rsearch data`: make a question file from a question set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.commands.options import Json, value
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


def data(
    source: Annotated[
        str,
        value(
            "NAME",
            "Question set: world, hotpotqa, flashrag:NAME, custom, ...",
            names=flag_names("questions.source"),
        ),
    ],
    output: Annotated[
        Path,
        value("FILE", f"File to write or overwrite: {', '.join(FORMATS)}."),
    ],
    path: Annotated[
        str | None,
        value(
            "FILE",
            "Read this file (for flashrag, also a folder) instead of the Hub.",
            names=flag_names("questions.path"),
        ),
    ] = None,
    split: Annotated[
        str | None,
        value(
            "NAME",
            "Split to use.",
            names=flag_names("questions.train_split"),
            show_default="all of a file; train in other sets",
        ),
    ] = None,
    difficulty: Annotated[
        list[str] | None,
        value("LEVELS", "Levels to keep: easy,medium,hard.", show_default="all"),
    ] = None,
    max_samples: Annotated[
        int | None,
        value("N", "Size of a random sample.", min=1, show_default="all"),
    ] = None,
    against: Annotated[
        Path | None,
        value("FILE", "Also leave out the questions in this file."),
    ] = None,
    corpus: Annotated[
        Path | None,
        value("FILE", "Also write the set's passages to this JSONL file."),
    ] = None,
    seed: Annotated[int, value("N", "Seed of the sample.", min=0)] = 42,
    as_json: Json = False,
) -> None:
    """Make a question file from a question set, without duplicates.

    Questions that also occur in the other splits are left out.

    Example: rsearch data --source world --split train --max-samples 100 --output train.jsonl
    """
    from rsearch_cli.questions.building import build_question_file

    if output.suffix.lower() not in FORMATS:
        raise typer.BadParameter(
            f"{output} must end in {', '.join(FORMATS)}", param_hint="--output"
        )
    if source == "custom" and path is None:
        raise typer.BadParameter("--source custom needs --data-path FILE", param_hint="--data-path")
    report = build_question_file(
        _read_config(source, path, difficulty),
        output,
        split=split,
        limit=max_samples,
        seed=seed,
        against=against,
        corpus=corpus,
    )
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)


def _read_config(source: str, path: str | None, difficulty: list[str] | None) -> QuestionsConfig:
    from rsearch_cli.recipe.schema import QuestionsConfig

    levels = [level.strip() for value in difficulty or () for level in value.split(",")]
    if unknown := [level for level in levels if level not in LEVELS]:
        raise typer.BadParameter(
            f"{unknown[0]!r} is not one of {', '.join(LEVELS)}", param_hint="--difficulty"
        )
    return QuestionsConfig.model_validate(
        {"source": source, "path": path, "difficulty": levels or None}
    )


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
