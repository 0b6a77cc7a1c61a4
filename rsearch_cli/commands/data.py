"""`rsearch data`: a question file out of a question set.

Place in the path: a command over `questions.building`. On failure: nothing is written; what is
wrong with the set, a row or the output is a `DataError` or one of its kinds.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.streams import echo
from rsearch_cli.terminal import on_one_line
from rsearch_cli.ui.output import print_json

if TYPE_CHECKING:
    from rsearch_cli.questions.building import Build
    from rsearch_cli.questions.cleaning import Removal

logger = logging.getLogger(__name__)

FORMATS = (".json", ".jsonl", ".parquet")
_EXAMPLES = 5


class Level(StrEnum):
    """How hard a question is, where its set says so."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


class Split(StrEnum):
    """Part of a set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def data(
    source: Annotated[
        str,
        typer.Option(help="world, custom, hotpotqa, hotpotqa:fullwiki, flashrag:NAME, ..."),
    ],
    output: Annotated[
        Path, typer.Option(help=f"File to write: {', '.join(FORMATS)}; an old one is replaced.")
    ],
    path: Annotated[
        str | None,
        typer.Option(help="Read this file (flashrag: or folder) instead of the Hub."),
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="Split to take; default all of a file, train of any other set."),
    ] = None,
    difficulty: Annotated[
        list[Level] | None, typer.Option(help="Level to keep; may be repeated. Default all.")
    ] = None,
    max_samples: Annotated[
        int | None, typer.Option(min=1, help="Most questions: a random sample. Default all.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Leave out questions that stand in this file, besides those of the other split.",
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Write the passages that come with the set too."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Build a question file, without duplicates and without leaks from the other split.

    Example: rsearch data --source world --split train --max-samples 100 --output train.jsonl
    """
    from rsearch_cli.questions.building import build_questions
    from rsearch_cli.questions.files import write_corpus, write_rows
    from rsearch_cli.questions.sets import open_question_set
    from rsearch_cli.recipe.schema import QuestionsConfig

    if output.suffix.lower() not in FORMATS:
        raise typer.BadParameter(
            f"{output} must end in {', '.join(FORMATS)}", param_hint="--output"
        )
    if source == "custom" and path is None:
        raise typer.BadParameter("--source custom needs the --path of a file", param_hint="--path")
    opened = open_question_set(QuestionsConfig(source=source, path=path), seed)
    build = build_questions(opened, split, difficulty, max_samples, seed, against)
    passages = None if corpus is None else write_corpus(opened.corpus(), corpus)
    write_rows([record.fields for record in build.records], output)
    report = _report(build, max_samples) | {
        "source": source,
        "description": opened.description,
        "output": str(output),
        "corpus": None if corpus is None else {"file": str(corpus), "passages": passages},
        "seed": seed,
    }
    print_json(report) if as_json else _print(report)


def _report(build: Build, asked: int | None) -> dict[str, Any]:
    questions = [record.question for record in build.records]
    differ = sum(removal.answers_differ for removal in build.duplicates)
    return {
        "split": build.split,
        "asked": asked,
        "available": build.available,
        "written": len(questions),
        "missing": max(0, (asked or 0) - len(questions)),
        "duplicates": _tell(build.duplicates) | {"answers_differ": differ},
        "leaks": _tell(build.leaks) | {"checked": build.checked, "unchecked": build.unchecked},
        "by_type": _count(q.type for q in questions),
        "by_level": _count(q.level for q in questions),
    }


def _tell(removals: list[Removal]) -> dict[str, Any]:
    examples = [{"id": r.id, "same_as": r.same_as} for r in removals[:_EXAMPLES]]
    return {"removed": len(removals), "examples": examples}


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(name or "not given" for name in names).items()))


def _print(report: dict[str, Any]) -> None:
    duplicates, leaks = report["duplicates"], report["leaks"]
    echo(f"{report['written']} questions written to {report['output']}")
    echo(f"from   {report['description']}, {report['split'] or 'all splits'}")
    for name in ("type", "level"):
        counts = (f"{n} {on_one_line(value)}" for value, n in report[f"by_{name}"].items())
        echo(f"{name:<7}{', '.join(counts)}")
    if report["corpus"]:
        echo(f"corpus {report['corpus']['passages']} passages to {report['corpus']['file']}")
    if report["missing"]:
        _warn(f"{report['missing']} fewer than the {report['asked']} asked for: there are no more")
    if duplicates["removed"]:
        differ = f", {duplicates['answers_differ']} with another answer"
        differ = differ if duplicates["answers_differ"] else ""
        _note(f"{duplicates['removed']} duplicates removed{differ}{_such_as(duplicates)}")
    if leaks["removed"]:
        _note(f"{leaks['removed']} leaks removed{_such_as(leaks)}")
    if leaks["checked"]:
        echo(f"no question stands in {' or '.join(leaks['checked'])} too")
    else:
        _warn("leaks were not looked for: there is no other split, and no --against")
    for unchecked in leaks["unchecked"]:
        _warn(f"leaks were not looked for in {unchecked}")


def _such_as(removals: dict[str, Any]) -> str:
    pairs = (f"{e['id']} (as {e['same_as']})" for e in removals["examples"])
    return f": {', '.join(pairs)}{', ...' if removals['removed'] > _EXAMPLES else ''}"


def _note(line: str) -> None:
    logger.info(on_one_line(line))


def _warn(line: str) -> None:
    logger.warning(on_one_line(line))
