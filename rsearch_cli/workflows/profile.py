"""Measure how often a model answers each training question right, and write the pass rates."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.methods import AGENT
from rsearch_cli.evaluation.pass_rates import measure_pass_rates
from rsearch_cli.evaluation.spec import EvalSpec
from rsearch_cli.questions.profile import Profile, rate_settings
from rsearch_cli.questions.records import write_text
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.unread import log_notes
from rsearch_cli.runs.evaluation_folder import EvaluationFolder
from rsearch_cli.types import Question
from rsearch_cli.workflows.evaluate import Progress, no_progress, run_evaluation
from rsearch_cli.workflows.open_policy import choose_policy
from rsearch_cli.workflows.specify_evaluation import MAX_BATCH

logger = logging.getLogger(__name__)

SAMPLES = 8
"""Default number of samples."""


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """Pass rates that were written.

    Attributes:
        profile: The pass rates.
        output: Their file.
        folder: The evaluation folder with the sampled answers.
        usd: What the samples cost.
    """

    profile: Profile
    output: Path
    folder: Path
    usd: float

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`; `rates` counts questions by pass rate."""
        rows = self.profile.rates
        known = sorted(row.rate for row in rows if row.rate is not None)
        return {
            "questions": len(rows),
            "samples": self.profile.samples,
            "mean": sum(known) / len(known) if known else None,
            "rates": {f"{rate:.4g}": count for rate, count in Counter(known).items()},
            "unrated": len(rows) - len(known),
            "failed_samples": sum(row.failed for row in rows),
            "model": self.profile.model,
            "usd": round(self.usd, 6),
            "output": str(self.output),
            "folder": str(self.folder),
        }


def profile_questions(
    model: str,
    output: Path,
    *,
    recipe: Recipe | str | None = None,
    samples: int = SAMPLES,
    endpoint: str | None = None,
    settings: Mapping[str, object] | None = None,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    overwrite: bool = False,
    trust_settings: bool = False,
    trust_remote_code: bool = False,
    progress: Progress = no_progress,
) -> ProfileReport:
    """Sample answers to the training questions of a recipe, and write the pass rates to a file.

    The answers are kept in an evaluation folder. Called again with the same arguments after a stop,
    it continues from them; once all are there, they are only read.

    Args:
        model: Run folder, adapter, model folder, Hub id or `builtin:nano`; with `endpoint`, the
            name of the model on the server.
        output: JSON file to write.
        recipe: A recipe, or the name or path of one; None takes the recipe of the run that `model`
            names, else `quickstart`.
        samples: Answers to each question.
        endpoint: URL of an OpenAI-compatible server to ask instead of local weights.
        settings: Settings by dotted key, as `load_recipe` takes them; None is not given.
        overrides: Settings as `key=value`, as for `--set`.
        folder: The evaluation folder; None takes the name of `output` with `-answers`.
        overwrite: Start over if the folder contains an evaluation.
        trust_settings: Accept all settings of a recipe that somebody else wrote.
        trust_remote_code: Run Python code that comes with the model.
        progress: Shows the number of answers.

    Raises:
        RsearchError: It cannot start or continue; stored answers are kept.
    """
    loaded, adapter = choose_policy(
        recipe,
        overrides,
        None if endpoint else model,
        endpoint,
        model if endpoint else None,
        {**(settings or {}), "policy.trust_remote_code": trust_remote_code or None},
        trust_settings=trust_settings,
    )
    log_notes(loaded, "data --profile")
    chosen = loaded.recipe
    spec = EvalSpec(
        recipe=chosen,
        adapter=adapter,
        methods=(AGENT,),
        split=chosen.questions.train_split,
        limit=chosen.questions.max_samples,
        batch_size=min(chosen.rollout.micro_batch, MAX_BATCH),
        output_dir=folder or output.with_name(f"{output.stem}-answers"),
        samples=samples,
    )
    report = run_evaluation(spec, overwrite=overwrite, progress=progress, check=_require_answers)
    profile = Profile(
        policy=EvaluationFolder(report.folder).read_settings()["policy"],
        samples=samples,
        seed=chosen.seed,
        settings=rate_settings(chosen),
        rates=measure_pass_rates(report.answers, chosen.reward),
    )
    write_text(profile.as_text(), output)
    usd = sum(spent["usd"] for spent in report.results["spend"].values())
    return ProfileReport(profile, output, report.folder, usd)


def _require_answers(questions: Sequence[Question]) -> None:
    """Refuse a question set without answers: no sample could be right or wrong."""
    if not any(question.answers for question in questions):
        raise DataError(
            f"none of the {len(questions)} questions has an answer, and a pass rate is the share "
            "of right answers; give them a field 'answer'"
        )
