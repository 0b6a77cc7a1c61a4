"""The trainers of transformers and TRL, configured for our runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsearch_cli.compat.trl import with_staged_checkpoints
from rsearch_cli.compat.unsloth import with_entropy
from rsearch_cli.distributed import is_main, wait_for_all, world_size
from rsearch_cli.errors import TrainingIneffective, shortage
from rsearch_cli.policy.adapter import REFERENCE, keep_reference
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.files import checkpoint_name
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.checkpoints import drop_old_checkpoints, seal_checkpoint
from rsearch_cli.training.questions import order_questions
from rsearch_cli.types import Question

if TYPE_CHECKING:
    from rsearch_cli.training.grpo import GrpoTraining


def with_sealed_checkpoints(trainer_class: Any, folder: RunFolder, keep: int) -> Any:
    """Return a trainer class whose checkpoints are complete and sealed, or absent.

    All processes write into one checkpoint; the main process moves it to its place.

    Args:
        trainer_class: The `Trainer` of transformers or a subclass.
        folder: Where the checkpoints are written.
        keep: How many of them to keep.
    """

    @contextmanager
    def place(step: int) -> Iterator[None]:
        with folder.staged(checkpoint_name(step)) as checkpoint:
            wait_for_all()  # the folder exists
            yield
            wait_for_all()  # everything is written
            if is_main():
                seal_checkpoint(checkpoint)
        wait_for_all()
        if is_main():
            drop_old_checkpoints(folder, keep)

    return with_staged_checkpoints(trainer_class, folder.staging, place)


def make_trainer_class(training: GrpoTraining) -> Any:
    """Return a `GRPOTrainer` with watched steps, sealed checkpoints and entropy in its logs."""
    from trl import GRPOTrainer

    keep = training.recipe.train.keep_checkpoints
    trainer_class = with_sealed_checkpoints(with_entropy(GRPOTrainer), training.folder, keep)

    class Trainer(trainer_class):  # type: ignore[valid-type, misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            """Generate rollouts if they are due, then run one forward and one backward pass."""
            with training.watch_update(self):
                return super().training_step(*args, **kwargs)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing: `rsearch push` writes the model card."""

    return Trainer


def make_dataset(questions: Sequence[Question], config: Any, *, shuffled: bool = True) -> Any:
    """Return the prompts of the whole run, in the order in which the trainer takes them.

    Args:
        questions: The training questions.
        config: The trainer's configuration.
        shuffled: Whether to shuffle them in every pass, or to ask them in this order.
    """
    from datasets import Dataset

    count = config.max_steps * (config.generation_batch_size // config.num_generations)
    order = order_questions(len(questions), count, config.seed, shuffled=shuffled)
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": questions[i].text}]} for i in order]
    )


def settle_reference(model: Any, recipe: Recipe) -> None:
    """Set the reference of the KL term: the policy before the first step.

    TRL adds a copy of our adapter for it. A fresh adapter has no effect yet, so the base model is
    the same reference and needs no memory. If the run starts from a trained adapter, the copy is
    that adapter even after a resume, because the trainer is created before it loads a checkpoint.
    The copy is made here, because Unsloth removes that part of the trainer.
    """
    if recipe.policy.adapter and recipe.train.beta:
        keep_reference(model)
    elif REFERENCE in model.peft_config:
        # With this copy in a checkpoint, the trainer would resume without our own adapter.
        model.delete_adapter(REFERENCE)


def describe_shortage(recipe: Recipe, error: Exception) -> str:
    """Return which settings to change when a forward or backward pass does not fit."""
    return (
        f"memory ran out in the update ({shortage(error)}); lower train.batch_size (now "
        f"{recipe.train.batch_size}; raise train.gradient_accumulation_steps in turn), "
        f"rollout.max_new_tokens (now {recipe.rollout.max_new_tokens}) or search.passage_chars, "
        "or set policy.gradient_checkpointing=true; `rsearch estimate` shows what each saves"
    )


def return_reward(
    prompts: Any, completions: Any, reward: list[float | None] | None = None, **_: Any
) -> list[float | None]:
    """TRL's reward function: return the totals of the rollouts, None for an unscored one.

    Raises:
        TrainingIneffective: There are none, because the trainer generated its own completions.
    """
    if reward is None:
        raise TrainingIneffective(
            "the trainer generated completions of its own instead of calling rollout_func: they "
            "contain no searches, and training on them would be useless; install the versions of "
            "trl and unsloth that rsearch requires"
        )
    return reward


def make_step_callback(training: GrpoTraining) -> Any:
    """Return a trainer callback that records a step as soon as TRL has logged it.

    The trainer saves after it logs, so the last step is still saved.
    """
    from transformers import TrainerCallback

    class StepCallback(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # The initial policy; after a resume, a validation that the run did not reach.
            training.validate(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if training.end_step(state.global_step, logs):
                control.should_save = control.should_training_stop = True

    return StepCallback()


def shared_arguments(recipe: Recipe, steps: int, output_dir: Path) -> dict[str, Any]:
    """Return the `TrainingArguments` that both stages have in common.

    Args:
        recipe: Its policy and train sections are read.
        steps: Optimiser steps of the whole run.
        output_dir: Where the trainer may write.
    """
    import torch

    from rsearch_cli.policy.transformers_backend import compute_dtype

    train = recipe.train
    cuda = torch.cuda.is_available()
    checkpointing = recipe.policy.gradient_checkpointing
    return {
        "output_dir": str(output_dir),
        "max_steps": steps,
        "lr_scheduler_type": train.lr_scheduler,
        "warmup_steps": train.warmup_steps,
        "max_grad_norm": train.max_grad_norm,
        # Explicit, because Unsloth has other defaults: AdamW in 8 bit, and a decay of the adapter.
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "use_cpu": not cuda,
        "bf16": cuda and compute_dtype(recipe.policy) == "bfloat16",
        "fp16": cuda and compute_dtype(recipe.policy) == "float16",
        "gradient_checkpointing": cuda if checkpointing is None else checkpointing,
        "dataloader_pin_memory": cuda,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "save_strategy": "steps",
        "save_steps": train.save_steps,
        # The trainer goes by modification time, which a copy loses; we remove old ones by step.
        "save_total_limit": None,
        "ddp_find_unused_parameters": False,  # every pass uses the whole adapter
        "logging_strategy": "steps",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }


def build_config(recipe: Recipe, output_dir: Path) -> Any:
    """Translate the recipe into a `GRPOConfig`."""
    from trl import GRPOConfig

    train = recipe.train
    rows = train.batch_size * train.gradient_accumulation_steps * world_size()
    return GRPOConfig(
        **shared_arguments(recipe, train.max_steps, output_dir),
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        generation_batch_size=rows,
        num_generations=train.num_generations,
        learning_rate=train.learning_rate,
        beta=train.beta,
        epsilon=train.epsilon,
        epsilon_high=train.epsilon_high,
        loss_type=train.loss_type,
        scale_rewards=train.scale_rewards,
        temperature=recipe.rollout.temperature,
        top_p=recipe.rollout.top_p,
        max_completion_length=recipe.rollout.max_new_tokens,
        mask_truncated_completions=False,  # every row ends in eos; we apply `mask_truncated`
        use_vllm=False,
        # Unsloth sets `use_vllm` for a model with an engine, and we return no log-probs.
        vllm_importance_sampling_correction=False,
        shuffle_dataset=False,  # the dataset is in its final order
    )
