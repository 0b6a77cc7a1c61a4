"""Everything a training needs, opened in the order in which it can fail.

Place in the path: the first half of `rsearch train`; `training` takes the open run from here. On
failure: whatever is wrong with the input is raised before the model is loaded; the run folder
changes only after that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rsearch_cli.distributed import fail_together
from rsearch_cli.errors import DataEmpty, RunFolderError
from rsearch_cli.evaluation.validation_slice import load_slice
from rsearch_cli.policy.adapter import find_adapter
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.loading import describe_backend, load_policy, load_tokenizer, open_backend
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prompts import fit_recipe, refuse_long_prompts, render_question
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.policy.transformers_backend import compute_dtype
from rsearch_cli.policy.vllm_engine import check_engine
from rsearch_cli.questions.sets import QuestionSet, open_question_set
from rsearch_cli.recipe.alarms import AlarmsConfig
from rsearch_cli.recipe.loading import dump_recipe, load_recipe
from rsearch_cli.recipe.policy import PolicyConfig
from rsearch_cli.recipe.policy import RolloutConfig as RolloutSettings
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.services import (
    BudgetConfig,
    CacheConfig,
    HubConfig,
    ServiceConfig,
    WandbConfig,
)
from rsearch_cli.recipe.training import TrainConfig
from rsearch_cli.recipe.trust import remember_own
from rsearch_cli.reward.judge import AnswerJudge, open_judge
from rsearch_cli.reward.lexical import is_by_letter
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.runs.files import ENVIRONMENT, RECIPE
from rsearch_cli.runs.run_folder import RunFolder, checkpoint_step
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.runtime import Services, open_services
from rsearch_cli.training.environment import describe_environment
from rsearch_cli.training.interrupts import Interrupts
from rsearch_cli.training.sft_dataset import WORLD, SftDataset, build_sft_dataset
from rsearch_cli.training.tracking import Tracker, open_tracker
from rsearch_cli.types import Question

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that is ready to train.

    Attributes:
        recipe: All of its settings, with the prompts that the model's chat template can hold.
        folder: Where everything goes.
        resume: Whether it goes on from where it stopped.
        signals: Ctrl-C and SIGTERM.
        questions: The set, described.
        evaluated: What is asked before and after.
        validated: What is asked meanwhile.
        trained: What is trained on.
        sft_dataset: The traces of a cold start, or None.
        policy: The model with its adapter.
        rollout: Rolls out with it.
        judge: Scores answers, or None.
        budget: Knows what is spent.
        tracker: Weights & Biases, or nothing.
    """

    recipe: Recipe
    folder: RunFolder
    resume: bool
    signals: Interrupts
    questions: QuestionSet
    evaluated: Sequence[Question]
    validated: Sequence[Question]
    trained: Sequence[Question]
    sft_dataset: SftDataset | None
    policy: LocalPolicy
    rollout: Rollout
    judge: AnswerJudge | None
    budget: Budget
    tracker: Tracker


@contextmanager
def open_run(
    recipe: Recipe, folder: RunFolder, *, overwrite: bool, resume: bool
) -> Iterator[OpenRun]:
    """Check everything, load the model, and make the folder.

    Raises:
        RsearchError: Any of its kinds; see the modules that are called.
    """
    with ExitStack() as stack:
        with fail_together():
            run = _open(recipe, folder, stack, overwrite=overwrite, resume=resume)
        yield run


def _open(
    recipe: Recipe, folder: RunFolder, stack: ExitStack, *, overwrite: bool, resume: bool
) -> OpenRun:
    stack.enter_context(folder.locked(overwrite=overwrite, resume=resume))
    if resume:
        check_same_recipe(folder, recipe)
    settings = choose_start(recipe.policy, folder, resume=resume)
    locate_model(settings.model)
    find_adapter(settings)
    check_engine(settings, recipe.rollout)
    question_set = open_question_set(recipe.questions, recipe.seed)
    signals = stack.enter_context(Interrupts(folder.describe_resume))
    services = stack.enter_context(open_services(recipe, folder.path))
    # Keys are asked for before questions: a set from the Hub takes minutes to come.
    judge = open_judge(recipe, services) if recipe.stage == "grpo" else None
    if judge:
        stack.enter_context(judge)
    logger.info("opening the search sources")
    executor = stack.enter_context(open_executor(recipe, question_set, services))
    if judge:
        judge.check()
    evaluated = question_set.load(recipe.evaluate.split, recipe.evaluate.limit)
    trained = distinct_questions(
        question_set.load(recipe.questions.train_split, recipe.questions.max_samples)
    )
    validated = load_slice(question_set, recipe, evaluated)
    tell_questions(recipe, question_set.description, trained, evaluated)
    sft_dataset = None
    if recipe.stage == "sft":
        logger.info("gathering traces")
        sft_dataset = build_sft_dataset(recipe, evaluated, services, folder, resume=resume)
    asked_for = recipe
    recipe, chat_tokenizer, notes = open_tokenizer(recipe)
    asked = [*evaluated, *validated, *(() if sft_dataset else trained)]
    refuse_long_prompts(asked, lambda q: render_question(q, chat_tokenizer, recipe), recipe.policy)
    if sft_dataset:
        sft_dataset.encode(chat_tokenizer, recipe)
        logger.info(sft_dataset.trace_stats.describe())
    logger.info(f"loading {recipe.policy.model}")
    policy = load_policy(settings, recipe.seed, recipe.rollout, chat_tokenizer=chat_tokenizer)
    logger.info(describe_backend(policy))
    folder.open(resume=resume)
    folder.write_text(RECIPE, dump_recipe(asked_for))
    remember_own(dump_recipe(asked_for))
    keep_start(policy, recipe.policy, folder)
    if sft_dataset:
        sft_dataset.store(folder)
    if not (folder.path / ENVIRONMENT).exists():
        dtype = compute_dtype(settings)
        environment = describe_environment(
            recipe.seed, policy.backend, policy.backend_reason, dtype
        )
        folder.write_json(ENVIRONMENT, {**environment, "prompts": notes})
    return OpenRun(
        recipe=recipe,
        folder=folder,
        resume=resume,
        signals=signals,
        questions=question_set,
        evaluated=evaluated,
        validated=validated,
        trained=trained,
        sft_dataset=sft_dataset,
        policy=policy,
        rollout=Rollout(policy, executor, recipe),
        judge=judge,
        budget=services.budget,
        tracker=stack.enter_context(open_tracker(recipe, folder)),
    )


def open_tokenizer(
    recipe: Recipe, *, with_model: bool = True
) -> tuple[Recipe, ChatTokenizer, list[str]]:
    """Load the tokenizer, and fit the recipe's prompts to its chat template.

    What cannot be kept is printed, one line each.

    Args:
        recipe: Its policy, protocol and rollout sections are read.
        with_model: Whether the model will be loaded too; its back end must be imported before.

    Returns:
        The recipe that can be kept, the tokenizer, and the lines.

    Raises:
        PolicyError: The tokenizer or its chat template cannot be used.
    """
    if with_model:
        open_backend(recipe.policy, recipe.rollout)
    chat_tokenizer = load_tokenizer(recipe.policy)
    recipe, notes = fit_recipe(recipe, chat_tokenizer)
    for note in notes:
        logger.warning(note)
    return recipe, chat_tokenizer, notes


@contextmanager
def open_executor(
    recipe: Recipe, question_set: QuestionSet, services: Services
) -> Iterator[PlanExecutor]:
    """The search layer of a recipe: its sources, and what carries plans out against them."""
    offline = recipe.cache.mode == "offline"
    sources = open_sources(recipe.search, question_set.corpus, offline=offline)
    with PlanExecutor(sources, recipe.search, services) as executor:
        yield executor


def choose_start(recipe: PolicyConfig, folder: RunFolder, *, resume: bool) -> PolicyConfig:
    """The policy section with the adapter to start from: a resumed run has kept its own."""
    if resume and folder.start.is_dir():
        return recipe.model_copy(update={"adapter": str(folder.start)})
    return recipe


def keep_start(policy: LocalPolicy, recipe: PolicyConfig, folder: RunFolder) -> None:
    """Keep the adapter that the run starts from: a resumed one measures the KL term from it."""
    if recipe.adapter and not folder.start.is_dir():
        with folder.staged(folder.start.name) as start:
            policy.model.save_pretrained(start)


def distinct_questions(questions: Sequence[Question]) -> list[Question]:
    """Drop questions whose text came before: TRL hands prompts back by their text alone.

    Raises:
        DataEmpty: If there is nothing to train on.
    """
    distinct = {q.text: q for q in reversed(questions)}
    if not distinct:
        raise DataEmpty("the training split holds no question; check questions.difficulty")
    if len(distinct) < len(questions):
        logger.info(
            f"dropped {len(questions) - len(distinct)} training questions that were asked twice"
        )
    return [q for q in questions if distinct[q.text] is q]


def check_same_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse to resume with settings other than those the run was started with.

    What does not alter the steps that were trained may change: the number of steps, what may
    be spent, how cache and services are used, how many completions are generated at once, when an
    alarm is raised, where the run is tracked and published and where it lies.

    Raises:
        RunFolderError: Naming the first setting that differs, or steps that are behind already.
    """
    path = folder.path / RECIPE
    before = load_recipe(str(path), trusted=True).recipe
    stored = dump_recipe(without_limits(before)).splitlines()
    given = dump_recipe(without_limits(recipe)).splitlines()
    for old, new in zip(stored, given, strict=False):
        if old != new:
            raise RunFolderError(
                f"{path} has {old.strip()!r} where this run has {new.strip()!r}; "
                f"resume with --recipe {path}"
            )
    last = folder.last_checkpoint()
    done = checkpoint_step(last) if last else 0
    if note := change_of_steps(before.train, recipe.train, done):
        logger.warning(note)


def change_of_steps(before: TrainConfig, now: TrainConfig, done: int) -> str | None:
    """What a resumed run with another number of steps differs in.

    Args:
        before: The section `train` that the run was started with.
        now: The one that it is resumed with.
        done: Steps that its last checkpoint has trained.

    Returns:
        One line, or None where the run ends as if it had been started with these steps.

    Raises:
        RunFolderError: It has trained more steps already.
    """
    if now.max_steps < done:
        raise RunFolderError(
            f"--max-steps {now.max_steps}: the run has trained {done} steps already; give at least "
            "as many, or leave the flag out"
        )
    if now.max_steps == before.max_steps or now.lr_scheduler == "constant" or done == 0:
        return None
    return (
        f"train.max_steps is {now.max_steps}, and {done} steps were trained for a total of "
        f"{before.max_steps}: the {now.lr_scheduler} schedule is recomputed from here on, so the "
        f"run will differ from one that was started with {now.max_steps} steps"
    )


def without_limits(recipe: Recipe) -> Recipe:
    """The recipe with all that a resumed run may change at its default."""
    judge = recipe.reward.judge.model_copy(update={"service": ServiceConfig()})
    defaults = RolloutSettings()
    at_once = {
        name: getattr(defaults, name)
        for name in ("micro_batch", "micro_batch_tokens", "reuse_cache", "vllm_url", "vllm_folder")
    }
    sections = {
        "output_dir": "",
        "budget": BudgetConfig(),
        "cache": CacheConfig(),
        "alarms": AlarmsConfig(),
        "wandb": WandbConfig(),
        "hub": HubConfig(),
        "search": recipe.search.model_copy(update={"service": ServiceConfig()}),
        "reward": recipe.reward.model_copy(update={"judge": judge}),
        "rollout": recipe.rollout.model_copy(update=at_once),
        "train": recipe.train.model_copy(update={"max_steps": 1}),
        "sft": recipe.sft.model_copy(update={"max_steps": None, "epochs": 1}),
    }
    return recipe.model_copy(update=sections)


def tell_questions(
    recipe: Recipe, description: str, trained: Sequence[Question], evaluated: Sequence[Question]
) -> None:
    """Say what a run asks, and what is odd about it."""
    if recipe.stage == "sft":
        logger.info(f"questions: {len(evaluated)} to evaluate; {description}")
        if recipe.sft.traces == WORLD != recipe.questions.source:
            logger.warning("sft.traces is world: what is learnt is of the fictional world alone")
    else:
        logger.info(
            f"questions: {len(trained)} to train on, {len(evaluated)} to evaluate; {description}"
        )
        texts = {question.text for question in trained}
        if shared := sum(question.text in texts for question in evaluated):
            logger.warning(
                f"{shared} of the {len(evaluated)} questions to evaluate are trained on too "
                "(questions.train_split, evaluate.split): their scores are no held-out ones"
            )
    tell_scripts(recipe, [*trained, *evaluated])


def tell_scripts(recipe: Recipe, questions: Sequence[Question]) -> None:
    """Say where answers are in a script that the rules of the recipe do not know."""
    if recipe.reward.normalisation != "squad":
        return
    count = sum(is_by_letter(question.answers) for question in questions)
    if count:
        logger.warning(
            f"{count} of {len(questions)} questions have an answer in Chinese, Japanese, "
            "Korean, Thai or the like, which SQuAD's rules compare with its punctuation and as one "
            "word; set reward.normalisation=cjk to compare letters"
        )
