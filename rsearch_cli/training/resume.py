"""What a resumed run must have in common with the run it continues, and where it starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsearch_cli.distributed import gather, is_main, wait_for_all
from rsearch_cli.errors import RecipeError, RunFolderError
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.recipe.alarms import AlarmsConfig
from rsearch_cli.recipe.dialogue import DialogueConfig
from rsearch_cli.recipe.loading import dump_recipe, load_recipe
from rsearch_cli.recipe.policy import PolicyConfig, RolloutConfig
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.services import (
    BudgetConfig,
    CacheConfig,
    HubConfig,
    ServiceConfig,
    WandbConfig,
)
from rsearch_cli.recipe.training import TeacherConfig, TrainConfig
from rsearch_cli.recipe.trust import is_own, refusal
from rsearch_cli.runs.files import RECIPE
from rsearch_cli.runs.run_folder import RunFolder, checkpoint_step
from rsearch_cli.training.checkpoints import choose_checkpoint

logger = logging.getLogger(__name__)


def check_same_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse to resume a run with settings that would have changed its finished steps.

    The number of steps, budget, prices of searches, cache, service limits, micro-batches, alarms,
    tracking, publishing, the output folder, address and prices of a teacher, and what the recipe
    says about itself may change.

    Raises:
        RunFolderError: Names the first setting that differs, or too few steps.
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
    if not is_own(path):
        logger.warning(
            f"{path} was edited, or was written on another machine: the finished steps may have "
            "been trained with other settings"
        )
    last = folder.last_checkpoint()
    done = checkpoint_step(last) if last else 0
    if note := change_of_steps(before.train, recipe.train, done):
        logger.warning(note)


def change_of_steps(before: TrainConfig, now: TrainConfig, done: int) -> str | None:
    """Return what another number of steps changes about a resumed run, or None for nothing.

    Args:
        before: The `train` section that the run was started with.
        now: The section that it is resumed with.
        done: Steps finished at the last checkpoint.

    Raises:
        RunFolderError: The run has already finished more steps than it is to have.
    """
    if now.max_steps < done:
        raise RunFolderError(
            f"--max-steps {now.max_steps}: the run has already trained {done} steps; give at least "
            "as many, or omit the flag"
        )
    if now.max_steps == before.max_steps or now.lr_scheduler == "constant" or done == 0:
        return None
    return (
        f"train.max_steps is {now.max_steps}, and the first {done} steps were trained for a total "
        f"of {before.max_steps}: the {now.lr_scheduler} schedule is recomputed from here on, so "
        f"the run will differ from one that was started with {now.max_steps} steps"
    )


def without_limits(recipe: Recipe) -> Recipe:
    """Return the recipe with every setting that a resumed run may change at its default."""
    judge = recipe.reward.judge.model_copy(update={"service": ServiceConfig()})
    sources = recipe.search.sources.items()
    search = {
        "service": ServiceConfig(),
        "read_service": ServiceConfig(),
        "usd_per_search": None,
        "sources": {n: source.model_copy(update={"usd_per_search": None}) for n, source in sources},
    }
    defaults = RolloutConfig()
    batching = {
        name: getattr(defaults, name)
        for name in ("micro_batch", "micro_batch_tokens", "reuse_cache", "vllm_url", "vllm_folder")
    }
    sections = {
        "purpose": "",
        "hardware": "",
        "needs": "",
        "output_dir": "",
        "dialogue": DialogueConfig(),
        "budget": BudgetConfig(),
        "cache": CacheConfig(),
        "alarms": AlarmsConfig(),
        "wandb": WandbConfig(),
        "hub": HubConfig(),
        "search": recipe.search.model_copy(update=search),
        "reward": recipe.reward.model_copy(update={"judge": judge}),
        "rollout": recipe.rollout.model_copy(update=batching),
        "train": recipe.train.model_copy(update={"max_steps": 1}),
        "sft": recipe.sft.model_copy(
            update={"max_steps": None, "epochs": 1, "teacher": _without_address(recipe)}
        ),
    }
    return recipe.model_copy(update=sections)


def _without_address(recipe: Recipe) -> TeacherConfig:
    """Return the teacher without its address, prices and limits: its answers are stored."""
    teacher = recipe.sft.teacher
    return TeacherConfig(model=teacher.model, results=teacher.results, samples=teacher.samples)


def with_start_adapter(policy: PolicyConfig, folder: RunFolder, *, resume: bool) -> PolicyConfig:
    """Return the policy section with the adapter to start from; a resumed run has its own copy."""
    if resume and folder.start.is_dir():
        return policy.model_copy(update={"adapter": str(folder.start)})
    return policy


def keep_start_adapter(policy: LocalPolicy, config: PolicyConfig, folder: RunFolder) -> None:
    """Copy the adapter that the run starts from, the reference of the KL term after a resume."""
    if config.adapter and not folder.start.is_dir():
        with folder.staged(folder.start.name) as start:
            policy.model.save_pretrained(start)


def run_of_recipe(recipe: str) -> Path | None:
    """Return the run folder that a recipe file is in, which may have been moved, or None."""
    path = Path(recipe)
    is_run = path.name == RECIPE and RunFolder(path.parent).is_started
    return path.parent if is_run else None


def require_own_recipe(recipe: str, overrides: Sequence[str], flags: Mapping[str, Any]) -> None:
    """Refuse the recipe of a run from elsewhere if it contains settings that need trust.

    Args:
        recipe: File of the recipe.
        overrides: `--set` settings.
        flags: Further settings, as `load_recipe` takes them.

    Raises:
        RecipeError: Names the settings.
    """
    if is_own(Path(recipe)):
        return
    if untrusted := load_recipe(recipe, overrides, flags, trusted=False).left_out:
        raise RecipeError(refusal(recipe, untrusted))


def rewind(folder: RunFolder, recipe: Recipe) -> Path | None:
    """Cut the rows of a run after its last usable checkpoint, and return that checkpoint.

    Returns:
        The checkpoint folder, or None to start with the first step.
    """
    checkpoint = gather(choose_checkpoint(folder) if is_main() else None)[0]
    step = checkpoint_step(checkpoint) if checkpoint else 0
    rollouts = recipe.train.batch_size * recipe.train.gradient_accumulation_steps
    for line in folder.keep_rows_until(step, rollouts):
        logger.warning(line)
    wait_for_all()
    return checkpoint
