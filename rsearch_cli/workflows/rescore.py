"""Score the answers of a finished evaluation anew, by other rules or another judge."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rsearch_cli.errors import RunFolderError, UsageError
from rsearch_cli.evaluation.answering import judge_answers
from rsearch_cli.evaluation.failed_share import Failures, check_failed_share
from rsearch_cli.evaluation.report import describe_scoring, summarise_methods
from rsearch_cli.evaluation.result import EvalResult, score_answer
from rsearch_cli.evaluation.spec import EvalSpec, check_judge, scoring_settings
from rsearch_cli.evaluation.stored import read_results
from rsearch_cli.interrupts import Interrupts
from rsearch_cli.recipe.loading import dump_recipe, load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.services import JudgeConfig
from rsearch_cli.recipe.trust import as_trusted, remember_own
from rsearch_cli.recipe.unread import log_notes
from rsearch_cli.reward.judge import AnswerJudge, open_judge
from rsearch_cli.runs.evaluation_folder import EvaluationFolder
from rsearch_cli.runs.files import ANSWERS, EVALUATION, RECIPE, REPORT, RESULTS
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import Question
from rsearch_cli.ui.tables import describe_context, report_markdown
from rsearch_cli.workflows.compare_evaluations import compare_evaluations
from rsearch_cli.workflows.evaluate import (
    NEXT_STEP,
    Progress,
    describe_resume,
    no_progress,
)
from rsearch_cli.workflows.specify_evaluation import MAX_BATCH

logger = logging.getLogger(__name__)

SUFFIX = "-rescored"
"""Added to the name of an evaluation folder for the default output folder."""

SCORING = ("normalisation", "judge")
"""Stored settings that scores depend on, and answers do not."""

PRICES = "reward.judge.usd_per_million_"

_UNREADABLE = " is not that of a finished evaluation of this version; evaluate again"


@dataclass(frozen=True, slots=True)
class RescoredEvaluation:
    """An evaluation whose answers were scored anew.

    Attributes:
        folder: The new evaluation folder.
        results: The content of its `results.json`.
        comparison: Old scores against new ones; see `compare_evaluations`.
    """

    folder: Path
    results: dict[str, Any]
    comparison: dict[str, Any]


def rescore(
    folder: str | Path,
    *,
    judge: str | None = None,
    overrides: Sequence[str] = (),
    output_dir: str | Path | None = None,
    overwrite: bool = False,
    trust_settings: bool = False,
    progress: Progress = no_progress,
) -> RescoredEvaluation:
    """Score the answers of a finished evaluation anew; nothing is generated or searched.

    Exact match and F1 follow `reward.normalisation`; the judge scores if there is one. Verdicts
    that the same judge gave in the evaluation are kept, and those in the cache cost nothing. The
    evaluation is not changed: a new folder gets the answers with their new scores. Called again
    after a stop, it continues there.

    Args:
        folder: The evaluation folder.
        judge: Model that judges the answers; None leaves it to the evaluation's recipe.
        overrides: Settings as `key=value`, as for `--set`.
        output_dir: The new evaluation folder; None takes that of `folder` with `-rescored`.
        overwrite: Start over if the new folder contains an evaluation.
        trust_settings: Accept all settings of a recipe that somebody else wrote.
        progress: Shows the number of scored answers.

    Raises:
        RunFolderError: There is no finished evaluation, or the new folder has another one.
        UsageError: The new folder is the old one.
        FailureShareExceeded: More verdicts failed than `budget.max_failed_share` permits.
        RsearchError: Scoring cannot start or continue; stored scores are kept.
    """
    source = EvaluationFolder(Path(folder))
    stored = source.read_settings()
    target = EvaluationFolder(Path(output_dir or f"{source.path}{SUFFIX}"))
    if target.path.resolve() == source.path.resolve():
        raise UsageError(f"--output-dir {target.path} is the evaluation itself; name another one")
    answers, context = _read_finished(source)
    flags = {"reward.answer": None if judge is None else "judge", "reward.judge.model": judge}
    recipe_path = str(source.path / RECIPE)
    loaded = load_recipe(recipe_path, overrides, flags, trusted=as_trusted(trust_settings))
    log_notes(loaded, "eval rescore")
    recipe = loaded.recipe
    spec = _as_spec(source, recipe, target.path)
    if judge is not None and not any(key.startswith(PRICES) for _, key in loaded.given):
        _warn_of_prices(stored.get("judge"), recipe.reward.judge)
    target.check()
    with ExitStack() as stack:
        stack.enter_context(Interrupts(lambda: describe_resume(target, overwrite)))
        stack.enter_context(target.locked(overwrite=overwrite))
        services = stack.enter_context(open_services(recipe, target.path))
        continued = target.holds_evaluation and not overwrite
        settings = {
            **{key: value for key, value in stored.items() if key not in SCORING},
            **scoring_settings(recipe, target.read_settings() if continued else None),
            "rescored": hashlib.sha256((source.path / ANSWERS).read_bytes()).hexdigest()[:16],
        }
        kept = [] if overwrite else read_results(target)
        rows = _score(answers, stored, recipe)
        asked = any(row.references and not (row.judged or row.failure) for row in rows[len(kept) :])
        if opened := open_judge(recipe, services) if asked else None:
            stack.enter_context(opened)
            if continued:
                check_judge(recipe, target)
        target.begin(settings, dump_recipe(recipe), overwrite=overwrite)
        remember_own(dump_recipe(recipe))
        target.write_rows(ANSWERS, (row.as_json() for row in kept))
        if kept:
            logger.info(f"{target.path}: scoring continues with {len(kept)} stored answers")
        scored, total = kept, len(answers) - len(kept)
        with progress("scoring", total, services.budget.snapshot) as advance:
            for start in range(len(kept), len(answers), MAX_BATCH):
                batch = _judge(rows[start : start + MAX_BATCH], scored, recipe, opened)
                target.append(ANSWERS, [row.as_json() for row in batch])
                scored = scored + batch
                advance(len(batch))
        report = {
            "context": {**context, **describe_scoring(recipe), "rescored": source.path.name},
            **summarise_methods(spec, scored, stored["policy"].get("results")),
            "spend": {name: asdict(s) for name, s in services.budget.snapshot().services.items()},
        }
        target.write_json(RESULTS, report)
        target.write_text(REPORT, report_markdown(report))
    comparison = compare_evaluations(str(source.path), str(target.path))
    return RescoredEvaluation(target.path, report, comparison)


def _read_finished(source: EvaluationFolder) -> tuple[list[EvalResult], dict[str, Any]]:
    """Return the answers of an evaluation, and the conditions in its results.

    Raises:
        RunFolderError: It is not finished, or not one of this version.
    """
    answers = read_results(source)
    if not answers or not (source.path / RESULTS).exists():
        raise RunFolderError(
            f"{source.path} contains an evaluation that is not finished (no {RESULTS}); run the "
            "same rsearch eval again to finish it"
        )
    try:
        context: dict[str, Any] = source.read_json(RESULTS)["context"]
        describe_context(context)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{source.path / RESULTS}{_UNREADABLE} ({error!r})") from error
    return answers, context


def _as_spec(source: EvaluationFolder, recipe: Recipe, output_dir: Path) -> EvalSpec:
    """Return what an evaluation evaluated, with the recipe that its answers are scored by.

    Raises:
        RunFolderError: Its settings are not those of this version.
    """
    stored = source.read_settings()
    kinds = {"split": str, "batch_size": int, "policy": dict, "samples": int | None}
    for name, kind in kinds.items():
        if not isinstance(stored.get(name), kind):
            raise RunFolderError(
                f"{source.path / EVALUATION}{_UNREADABLE} ({name} is {stored.get(name)!r:.40})"
            )
    return EvalSpec(
        recipe=recipe,
        adapter=None,
        methods=tuple(map(str, stored["methods"])),
        split=stored["split"],
        limit=stored.get("limit"),
        batch_size=stored["batch_size"],
        output_dir=output_dir,
        samples=stored.get("samples"),
    )


def _warn_of_prices(former: Any, judge: JudgeConfig) -> None:
    """Say what is assumed if the prices may be those of another model."""
    known = former.get("model") if isinstance(former, dict) else JudgeConfig().model
    if judge.model != known:
        logger.warning(
            f"the bill and budget.max_usd assume {judge.usd_per_million_input_tokens:g} and "
            f"{judge.usd_per_million_output_tokens:g} USD per million input and output tokens of "
            f"{judge.model}; give its own prices with --set {PRICES}input_tokens=… and "
            f"{PRICES}output_tokens=…"
        )


def _score(
    answers: Sequence[EvalResult], stored: Mapping[str, Any], recipe: Recipe
) -> list[EvalResult]:
    """Score answers without asking anybody; verdicts of the recipe's own judge are kept.

    Args:
        answers: The answers with their old scores.
        stored: Settings of their evaluation.
        recipe: How they are scored now.
    """
    rows = [score_answer(row, recipe.reward.normalisation) for row in answers]
    if not _has_same_judge(stored, recipe):
        return rows
    return [
        row if old.judge is None else replace(row, judge=old.judge, judged=True)
        for row, old in zip(rows, answers, strict=True)
    ]


def _has_same_judge(stored: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether the verdicts of an evaluation are those that the recipe's judge would give.

    That takes the same model, address, rubric and mode; the limit of a verdict's length changes
    none that was given. Evaluations of earlier versions may lack the address.
    """
    former, now = stored.get("judge"), scoring_settings(recipe)["judge"]
    if not isinstance(former, dict) or now is None:
        return False
    return {**former, "max_output_tokens": None} == {**now, "max_output_tokens": None}


def _judge(
    rows: Sequence[EvalResult],
    before: Sequence[EvalResult],
    recipe: Recipe,
    judge: AnswerJudge | None,
) -> list[EvalResult]:
    """Ask for the verdicts that answers lack.

    Args:
        rows: `[B]` answers, some with a verdict.
        before: Those that were scored before.
        recipe: How they are scored.
        judge: Its judge; None if there is nothing to ask.

    Returns:
        `[B]` results.

    Raises:
        FailureShareExceeded: Too many verdicts of these and those before failed.
    """
    if judge is None:
        return list(rows)
    pending = [row for row in rows if not row.judged]
    questions = [Question(row.id, row.text, row.references) for row in pending]
    answered = iter(judge_answers(pending, questions, judge))
    scored = [row if row.judged else next(answered) for row in rows]
    judged = [row for row in (*before, *scored) if row.judged]
    unscored = sum(row.unscored for row in judged)
    failures = Failures("verdicts", unscored, len(judged), judge.last_failure)
    check_failed_share([failures], recipe.budget.max_failed_share, "the evaluation", NEXT_STEP)
    return scored
