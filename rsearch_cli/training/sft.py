"""The supervised stage: the policy is trained on traces, as a start for GRPO.

The trainer gets encoded examples in their final order for the whole run, because its own shuffling
cannot be resumed from a checkpoint in the middle of a later epoch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rsearch_cli.distributed import wait_for_all, world_size
from rsearch_cli.errors import OutOfMemory, is_shortage, shortage
from rsearch_cli.policy.adapter import load_adapter
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.training import SftConfig
from rsearch_cli.runs.files import ADAPTER, METRICS
from rsearch_cli.runs.run_folder import RunFolder, checkpoint_step
from rsearch_cli.training.observer import Observer
from rsearch_cli.training.traces import IGNORED, Example
from rsearch_cli.training.trainer import shared_arguments, with_sealed_checkpoints


class SftTraining:
    """One supervised training run.

    Args:
        policy: Trained in place.
        examples: At least one encoded trace.
        recipe: Its policy, sft and train sections are read.
        folder: Where metrics and checkpoints are written.
        observers: Receive every finished step.
        stop_wanted: Called after every step; True makes it the last.

    Attributes:
        steps: Optimiser steps of the whole run.
    """

    def __init__(
        self,
        policy: LocalPolicy,
        examples: Sequence[Example],
        recipe: Recipe,
        folder: RunFolder,
        observers: Sequence[Observer] = (),
        stop_wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.policy = policy
        self.recipe = recipe
        self.folder = folder
        self.observers = observers
        self.stop_wanted = stop_wanted
        self.steps = count_sft_steps(len(examples), recipe.sft)
        rows = rows_per_step(recipe.sft)
        self._examples = [
            examples[i] for i in order_examples(len(examples), self.steps * rows, recipe.seed)
        ]
        self._step_started = time.perf_counter()
        with policy.active():
            self.trainer = self._make_trainer()

    def run(self, resume_from: Path | None = None) -> None:
        """Train to the last step and save the adapter, or stop early if `stop_wanted` returns True.

        Raises:
            OutOfMemory: Memory ran out in an update.
        """
        if resume_from and checkpoint_step(resume_from) >= self.steps:
            # Nothing is left to train; the trainer would train one more step.
            load_adapter(self.policy.model, resume_from)
        else:
            self._step_started = time.perf_counter()
            try:
                with self.policy.active():
                    resume = str(resume_from) if resume_from else None
                    self.trainer.train(resume_from_checkpoint=resume)
            except (RuntimeError, MemoryError) as error:
                if not is_shortage(error):
                    raise
                raise OutOfMemory(
                    f"memory ran out in the update ({shortage(error)}); lower sft.batch_size (now "
                    f"{self.recipe.sft.batch_size}; raise sft.gradient_accumulation_steps in turn) "
                    "or set policy.gradient_checkpointing=true; "
                    f"{self.folder.describe_resume()}"
                ) from error
        if self.stop_wanted():
            return
        with self.folder.staged(ADAPTER) as adapter:
            self.policy.model.save_pretrained(adapter)
            self.policy.tokenizer.save_pretrained(adapter)
        wait_for_all()

    def finish_step(self, step: int, logs: dict[str, Any]) -> None:
        """Write the row of a finished step and report it to the observers."""
        rows, now = rows_per_step(self.recipe.sft), time.perf_counter()
        batch = self._examples[(step - 1) * rows : step * rows]
        row = {
            "step": step,
            "loss": logs.get("loss"),
            "grad_norm": logs.get("grad_norm"),
            "learning_rate": logs.get("learning_rate"),
            "learnt_tokens": sum(example.trained_tokens for example in batch),
            "masked_tokens": sum(len(example.ids) - example.trained_tokens for example in batch),
            "seconds/step": round(now - self._step_started, 4),
        }
        self._step_started = now
        self.folder.append(METRICS, [row])
        for observer in self.observers:
            observer.on_step(row, [])

    def _make_trainer(self) -> Any:
        from transformers import PrinterCallback, Trainer

        trainer = with_sealed_checkpoints(Trainer, self.folder, self.recipe.train.keep_checkpoints)(
            model=self.policy.model,
            processing_class=self.policy.tokenizer,
            args=build_arguments(self.recipe, self.steps, self.folder.path),
            train_dataset=self._examples,
            data_collator=make_collator(self.policy.tokenizer.pad_token_id),
            callbacks=[make_log_callback(self)],
        )
        trainer.remove_callback(PrinterCallback)  # it prints every log to stdout
        return trainer


def rows_per_step(recipe: SftConfig) -> int:
    """Return the number of traces per optimiser step, in all processes together."""
    return recipe.batch_size * recipe.gradient_accumulation_steps * world_size()


def count_sft_steps(examples: int, recipe: SftConfig) -> int:
    """Return the steps of a run: all epochs, rounded up, but at most `sft.max_steps`."""
    steps = -(-examples * recipe.epochs // rows_per_step(recipe))
    return min(steps, recipe.max_steps or steps)


def order_examples(examples: int, count: int, seed: int) -> list[int]:
    """Return positions of the examples to train on, as one shuffled pass after another.

    Args:
        examples: Number of examples, at least 1.
        count: Number of positions wanted.
        seed: Seed of the run; the order depends on it alone.
    """
    rng = random.Random(f"{seed} traces")
    order: list[int] = []
    while len(order) < count:
        order += rng.sample(range(examples), examples)
    return order[:count]


def make_collator(pad_id: int) -> Callable[[Sequence[Example]], dict[str, Any]]:
    """Return a collator that pads on the right to `[B, L]` ids, mask and labels."""
    import torch

    def collate(batch: Sequence[Example]) -> dict[str, Any]:
        width = max(len(example.ids) for example in batch)

        def pad(rows: Sequence[Sequence[int]], filler: int) -> Any:
            return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])

        return {
            "input_ids": pad([e.ids for e in batch], pad_id),
            "attention_mask": pad([[1] * len(e.ids) for e in batch], 0),
            "labels": pad([e.labels for e in batch], IGNORED),
        }

    return collate


def make_log_callback(training: SftTraining) -> Any:
    """Return a trainer callback that records a step as soon as it is logged."""
    from transformers import TrainerCallback

    class LogCallback(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:  # not in the summary after the last step
                training.finish_step(state.global_step, logs)
                if training.stop_wanted():
                    control.should_save = control.should_training_stop = True

    return LogCallback()


def build_arguments(recipe: Recipe, steps: int, output_dir: Path) -> Any:
    """Translate the recipe into transformers' `TrainingArguments`."""
    from transformers import TrainingArguments

    sft = recipe.sft
    return TrainingArguments(
        **shared_arguments(recipe, steps, output_dir),
        per_device_train_batch_size=sft.batch_size,
        gradient_accumulation_steps=sft.gradient_accumulation_steps,
        learning_rate=sft.learning_rate,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
    )
