"""Open everything that a training run needs, in the order in which it can fail.

Bad input is reported before the model is loaded; the run folder changes only after that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rsearch_cli.distributed import fail_together, gather
from rsearch_cli.evaluation.training_evaluation import score_slice
from rsearch_cli.evaluation.validation_slice import load_slice
from rsearch_cli.interrupts import Interrupts
from rsearch_cli.policy.adapter import find_adapter
from rsearch_cli.policy.loading import describe_backend, load_policy, open_tokenizer
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prompts import refuse_long_prompts, render_question
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.policy.transformers_backend import compute_dtype
from rsearch_cli.policy.vllm_engine import check_engine
from rsearch_cli.questions.profile import Choice
from rsearch_cli.questions.sets import QuestionSet, open_question_set
from rsearch_cli.recipe.loading import dump_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.training import TEACHER, WORLD
from rsearch_cli.recipe.trust import remember_own
from rsearch_cli.reward.judge import AnswerJudge, open_judge
from rsearch_cli.reward.lexical import describe_unspaced
from rsearch_cli.reward.parts import find_parts
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.runs.files import ENVIRONMENT, PROFILE, RECIPE
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.search.executor import open_executor
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.runtime import open_services
from rsearch_cli.training.environment import describe_environment
from rsearch_cli.training.grpo import GrpoTraining
from rsearch_cli.training.observer import Observer
from rsearch_cli.training.questions import load_training_questions, require_answers
from rsearch_cli.training.resume import check_same_recipe, keep_start_adapter, with_start_adapter
from rsearch_cli.training.sft import SftTraining, count_sft_steps
from rsearch_cli.training.sft_dataset import SftDataset, build_sft_dataset
from rsearch_cli.training.tracking import Tracker, open_tracker
from rsearch_cli.training.validation import Validation
from rsearch_cli.types import Question

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run that is ready to train.

    Attributes:
        recipe: All settings, with prompts that the model's chat template can render.
        folder: The run folder.
        interrupts: Ctrl-C, SIGTERM and SIGHUP.
        questions: The question set.
        evaluated: Questions evaluated before and after training.
        validated: Questions of the validation slice; empty without validations.
        trained: Questions to train on.
        choice: How they were chosen by their pass rates, or None.
        sft_dataset: Traces of a supervised run, or None.
        policy: The model with its adapter.
        rollout: Generates with that policy and searches.
        judge: Scores answers, or None.
        budget: What the run has spent.
        tracker: Weights & Biases, or a tracker that does nothing.
    """

    recipe: Recipe
    folder: RunFolder
    interrupts: Interrupts
    questions: QuestionSet
    evaluated: Sequence[Question]
    validated: Sequence[Question]
    trained: Sequence[Question]
    choice: Choice | None
    sft_dataset: SftDataset | None
    policy: LocalPolicy
    rollout: Rollout
    judge: AnswerJudge | None
    budget: Budget
    tracker: Tracker

    def stop_wanted(self) -> bool:
        """Whether a signal has asked any of the processes to stop; all of them must call this."""
        return any(gather(self.interrupts.received))


@contextmanager
def open_run(
    recipe: Recipe, folder: RunFolder, *, overwrite: bool, resume: bool
) -> Iterator[TrainingRun]:
    """Check everything, load the model and create the folder.

    Raises:
        RsearchError: Anything that is wrong with the input, in all processes at once.
    """
    with ExitStack() as stack:
        with fail_together():
            run = _open(recipe, folder, stack, overwrite=overwrite, resume=resume)
        yield run


def _open(
    recipe: Recipe, folder: RunFolder, stack: ExitStack, *, overwrite: bool, resume: bool
) -> TrainingRun:
    stack.enter_context(folder.locked(overwrite=overwrite, resume=resume))
    if resume:
        check_same_recipe(folder, recipe)
    policy_config = with_start_adapter(recipe.policy, folder, resume=resume)
    locate_model(policy_config.model)
    find_adapter(policy_config)
    check_engine(policy_config, recipe.rollout)
    question_set = open_question_set(recipe.questions, recipe.seed)
    interrupts = stack.enter_context(Interrupts(folder.describe_resume))
    services = stack.enter_context(open_services(recipe, folder.path))
    find_parts(recipe.reward)
    # Judge and sources check their keys first: a question set from the Hub takes minutes to load.
    judge = open_judge(recipe, services) if recipe.stage == "grpo" else None
    if judge:
        stack.enter_context(judge)
    logger.info("opening the search sources")
    executor = stack.enter_context(open_executor(recipe, question_set.corpus, services))
    if judge:
        judge.check()
    evaluated = question_set.load(recipe.evaluate.split, recipe.evaluate.limit)
    stored = folder.path / PROFILE if resume else None
    trained, choice = load_training_questions(question_set, recipe, stored)
    validated = load_slice(question_set, recipe, evaluated)
    if recipe.stage == "grpo":
        require_answers(recipe, trained, validated)
    log_questions(recipe, question_set.description, trained, evaluated)
    recipe_as_given = recipe
    recipe, tokenizer, notes = open_tokenizer(recipe)
    # Before a teacher is paid for traces that no run could use.
    prompted = [*evaluated, *validated, *(() if recipe.stage == "sft" else trained)]
    refuse_long_prompts(prompted, lambda q: render_question(q, tokenizer, recipe), recipe.policy)
    begin = partial(_begin, folder, recipe_as_given, resume=resume)
    sft_dataset = None
    if recipe.stage == "sft":
        logger.info("collecting traces")
        sft_dataset = build_sft_dataset(
            recipe_as_given,
            trained,
            evaluated,
            executor,
            services,
            folder,
            resume=resume,
            begin=begin,
        )
    if sft_dataset:
        sft_dataset.encode(tokenizer, recipe)
        logger.info(sft_dataset.stats.describe())
    logger.info(f"loading {recipe.policy.model}")
    policy = load_policy(policy_config, recipe.seed, recipe.rollout, chat_tokenizer=tokenizer)
    logger.info(describe_backend(policy))
    begin()
    keep_start_adapter(policy, recipe.policy, folder)
    _record_start(folder, policy, recipe, notes, choice, sft_dataset)
    return TrainingRun(
        recipe=recipe,
        folder=folder,
        interrupts=interrupts,
        questions=question_set,
        evaluated=evaluated,
        validated=validated,
        trained=trained,
        choice=choice,
        sft_dataset=sft_dataset,
        policy=policy,
        rollout=Rollout(policy, executor, recipe),
        judge=judge,
        budget=services.budget,
        tracker=stack.enter_context(open_tracker(recipe, folder)),
    )


def _begin(folder: RunFolder, recipe: Recipe, *, resume: bool) -> None:
    """Open the run folder and store the recipe; do nothing the second time."""
    if not folder.opened:
        folder.open(resume=resume)
        folder.write_text(RECIPE, dump_recipe(recipe))
        remember_own(dump_recipe(recipe))


def _record_start(
    folder: RunFolder,
    policy: LocalPolicy,
    recipe: Recipe,
    notes: Sequence[str],
    choice: Choice | None,
    sft_dataset: SftDataset | None,
) -> None:
    """Write what a run learns from, and at its first start where it runs."""
    if choice:
        folder.write_text(PROFILE, choice.profile.as_text())
    if sft_dataset:
        sft_dataset.store(folder)
    if not (folder.path / ENVIRONMENT).exists():
        dtype = compute_dtype(recipe.policy)
        environment = describe_environment(
            recipe.seed, policy.backend, policy.backend_reason, dtype
        )
        folder.write_json(ENVIRONMENT, {**environment, "prompts": notes})


def make_training(run: TrainingRun, observers: Sequence[Observer]) -> GrpoTraining | SftTraining:
    """Return the training loop of the recipe's stage."""
    recipe, folder, policy = run.recipe, run.folder, run.policy
    if run.sft_dataset:
        examples = run.sft_dataset.examples
        return SftTraining(policy, examples, recipe, folder, observers, run.stop_wanted)

    def score() -> Mapping[str, Any]:
        with run.interrupts.immediate():
            return score_slice(run.rollout, run.validated)

    validation = None
    if every := recipe.evaluate.every_steps:
        validation = Validation(score, folder, every, recipe.train.max_steps)
    return GrpoTraining(
        policy,
        run.rollout,
        run.trained,
        recipe,
        folder,
        observers,
        run.judge,
        run.budget,
        run.stop_wanted,
        validation,
    )


def count_steps(run: TrainingRun) -> int:
    """Return the optimiser steps of the whole run, those before a resume included."""
    if run.sft_dataset:
        return count_sft_steps(len(run.sft_dataset.examples), run.recipe.sft)
    return run.recipe.train.max_steps


def log_questions(
    recipe: Recipe, description: str, trained: Sequence[Question], evaluated: Sequence[Question]
) -> None:
    """Log how many questions a run uses, and warn about what makes its scores misleading."""
    if recipe.stage == "sft":
        taught = f"{len(trained)} for the teacher, " if recipe.sft.traces == TEACHER else ""
        logger.info(f"questions: {taught}{len(evaluated)} to evaluate; {description}")
        if recipe.sft.traces == WORLD != recipe.questions.source:
            logger.warning(
                "sft.traces is world: the run trains on questions about the fictional world only"
            )
    else:
        logger.info(
            f"questions: {len(trained)} to train on, {len(evaluated)} to evaluate; {description}"
        )
        texts = {question.text for question in trained}
        if shared := sum(question.text in texts for question in evaluated):
            logger.warning(
                f"{shared} of the {len(evaluated)} questions to evaluate are also trained on "
                "(questions.train_split, evaluate.split): their scores are not held-out scores"
            )
    answers = [question.answers for question in (*trained, *evaluated)]
    if warning := describe_unspaced(answers, recipe.reward.normalisation):
        logger.warning(warning)
