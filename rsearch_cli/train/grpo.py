"""Training: TRL's GRPOTrainer around our rollouts.

Place in the path: rollouts and rewards come in, an adapter and a run folder go out. TRL asks for
completions through `rollout_func`, with every prompt already repeated `num_generations` times, and
takes one reward a row. On failure: an error inside a step leaves the last checkpoint and the rows
of all finished steps in the run folder.

Two of TRL's ways shape this module. A row is dropped from its group's baseline only when *every*
reward function returns None for it; so there is a single reward function. And a model is trained on
what the mask says; so the mask comes from the trajectory's segments and from nowhere else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsearch_cli.errors import OutOfMemory, PolicyCollapsed, TrainingIneffective
from rsearch_cli.policy.adapter_check import check_adapter
from rsearch_cli.policy.generation import Sampling
from rsearch_cli.policy.local import LocalPolicy, shortage
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.composite import score_trajectories, shuffle_answer_scores, weights_at
from rsearch_cli.reward.judge import AnswerJudge
from rsearch_cli.rollout import Rollout
from rsearch_cli.services.purse import Purse
from rsearch_cli.train.alarms import Alarm, CollapseWatch
from rsearch_cli.train.checkpoints import drop_old_checkpoints, seal_checkpoint
from rsearch_cli.train.guard import StepGuard
from rsearch_cli.train.ledger import StepLedger
from rsearch_cli.train.question_order import order_questions
from rsearch_cli.train.run_folder import (
    ADAPTER,
    METRICS,
    TRAJECTORIES,
    RunFolder,
    checkpoint_step,
)
from rsearch_cli.train.validation import Validation
from rsearch_cli.types import Question, RewardParts, Trajectory

OnStep = Callable[[dict[str, Any], list[dict[str, Any]]], None]
OnAlarm = Callable[[int, Alarm], None]


class GrpoTraining:
    """One training run.

    Args:
        policy: Trained in place.
        rollout: Rolls out with that policy.
        questions: Training questions; their texts are distinct.
        recipe: All of it is read.
        folder: Where metrics, trajectories and checkpoints go.
        on_step: Told of every finished step: its metrics row and its `[B*G]` rollouts, as they
            are in `trajectories.jsonl`.
        judge: Scores the answers, if the recipe's answer score is `judge`; the caller closes it.
        purse: Knows what the run has spent; without one nothing is.
        stop_wanted: Asked after every step whether it shall be the last.
        validation: Judges the policy every few steps and keeps the best adapter.
        on_alarm: Told of every new sign of a collapse, with its step.
    """

    def __init__(
        self,
        policy: LocalPolicy,
        rollout: Rollout,
        questions: Sequence[Question],
        recipe: Recipe,
        folder: RunFolder,
        on_step: OnStep,
        judge: AnswerJudge | None = None,
        purse: Purse | None = None,
        stop_wanted: Callable[[], bool] = lambda: False,
        validation: Validation | None = None,
        on_alarm: OnAlarm = lambda step, alarm: None,
    ) -> None:
        self.policy = policy
        self.rollout = rollout
        self.recipe = recipe
        self.folder = folder
        self.on_step = on_step
        self.judge = judge
        self.purse = purse or Purse()
        self.ledger = StepLedger(self.purse.snapshot())
        self.guard = StepGuard(folder, recipe.budget.max_failed_share)
        self.stop_wanted = stop_wanted
        self.validation = validation
        self.on_alarm = on_alarm
        self.collapse: tuple[int, Alarm] | None = None
        rollouts = recipe.train.batch_size * recipe.train.gradient_accumulation_steps
        self._watch = CollapseWatch(recipe.alarms, rollouts, folder.read_rows(METRICS))
        self._questions = {q.text: q for q in questions}
        self.trainer = self._make_trainer(questions)

    def run(self, resume_from: Path | None = None) -> None:
        """Train to the last step and save the adapter, or stop after a step if that is wanted.

        Raises:
            RsearchError: A step cannot go on; the one before it is saved.
            PolicyCollapsed: An alarm went off, and the recipe wants the run to end then.
        """
        if resume_from and checkpoint_step(resume_from) >= self.recipe.train.max_steps:
            # Nothing is left to train, and the trainer would train one more step.
            self._load_adapter(resume_from)
        else:
            check_adapter(self.policy)
            self.trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        if self.collapse:
            raise PolicyCollapsed(self._describe_collapse(*self.collapse))
        if self.stop_wanted():
            return
        if self.recipe.train.keep == "best":
            self._load_adapter(self.folder.best)
        with self.folder.staged(ADAPTER) as adapter:
            self.save_adapter(adapter)

    def save_adapter(self, path: Path) -> None:
        """Write adapter and tokenizer as they are now."""
        self.policy.model.save_pretrained(path)
        self.policy.tokenizer.save_pretrained(path)

    def _load_adapter(self, path: Path) -> None:
        model = self.policy.model
        model.load_adapter(str(path), model.active_adapter, is_trainable=True)

    def _describe_collapse(self, step: int, alarm: Alarm) -> str:
        kept = ""
        if self.validation and (best := self.validation.best):
            kept = f"; the best adapter, of step {best['step']}, is in {self.folder.best}"
        return (
            f"the policy collapses: after step {step}, {alarm.line} (alarms.{alarm.name}); the "
            f"step is saved in {self.folder.path / f'checkpoint-{step}'}{kept}; --resume goes on "
            "regardless, a lower --lr may help a new run"
        )

    def roll_out(self, prompts: list[list[dict[str, str]]], trainer: Any) -> dict[str, Any]:
        """TRL's `rollout_func`: `[B*G]` prompts in, ids, mask and rewards of as many rows out.

        Raises:
            RsearchError: The step cannot go on; the one before it is saved.
        """
        with self.guard.watch(trainer):
            return self._roll_out(prompts, trainer.state.global_step)

    def _roll_out(self, prompts: list[list[dict[str, str]]], step: int) -> dict[str, Any]:
        sampling = Sampling(self.recipe.rollout.temperature, self.recipe.rollout.top_p)
        before = self.rollout.times.copy()
        trajectories = self.rollout.run(
            [self._questions[prompt[-1]["content"]] for prompt in prompts], sampling
        )
        started = time.perf_counter()
        parts = self.score(trajectories, step)
        self.guard.check(trajectories, parts, self.judge.last_failure if self.judge else None)
        spent = self.rollout.times
        self.ledger.record(
            trajectories,
            parts,
            {
                "generate": spent.generate - before.generate,
                "search": spent.search - before.search,
                "reward": time.perf_counter() - started,
            },
        )
        return {
            "prompt_ids": [list(t.prompt_ids) for t in trajectories],
            "completion_ids": [t.completion_ids for t in trajectories],
            "logprobs": None,  # the trainer computes its own; made-up values would be trusted
            "env_mask": [self._loss_mask(t) for t in trajectories],
            "reward": [p.total for p in parts],
        }

    def score(self, trajectories: Sequence[Trajectory], step: int) -> list[RewardParts]:
        """Rewards of a step's rollouts; `step` counts finished optimiser steps, the first is 0."""
        recipe = self.recipe
        parts = score_trajectories(trajectories, recipe.reward, recipe.protocol, step, self.judge)
        if recipe.reward.shuffle_answers:
            rng = random.Random(f"{recipe.seed} {step}")
            weights = weights_at(step, recipe.reward)
            parts = shuffle_answer_scores(parts, weights, recipe.reward, rng)
        return parts

    @contextmanager
    def watch_update(self, trainer: Any) -> Iterator[None]:
        """Around a forward and backward pass, and the rollouts before it where they are due.

        Raises:
            OutOfMemory: The device's memory does not hold them; the last finished step is saved.
        """
        import torch

        try:
            yield
        except torch.OutOfMemoryError as error:
            with self.guard.watch(trainer):
                raise OutOfMemory(describe_shortage(self.recipe, error)) from error

    def finish_step(self, step: int, logs: dict[str, Any]) -> None:
        """Write the rows of a finished step, show it, and tell of new signs of a collapse."""
        rollouts = self.ledger.rows(step)
        self.folder.append(TRAJECTORIES, rollouts)
        row = self.ledger.close(step, logs, self.purse.snapshot())
        row["oom/halved"] = int(self.rollout.halved_to is not None)
        alarms = self._watch.check(row)
        self.guard.remember()
        self.folder.append(METRICS, [row])
        self.on_step(row, rollouts)
        for alarm in alarms:
            self.on_alarm(step, alarm)
        unfinished = step < self.recipe.train.max_steps
        if alarms and unfinished and self.recipe.alarms.stop_on_collapse:
            self.collapse = step, alarms[0]

    def validate(self, step: int) -> None:
        """Validate the policy after `step`, if it is time; no later step is charged for it.

        Raises:
            RsearchError: The evaluation cannot go on; the step is saved.
        """
        if self.validation and self.validation.is_due(step):
            with self.guard.watch(self.trainer):
                self.validation.run(step, self.save_adapter)
            self.ledger.skip(self.purse.snapshot())

    def _loss_mask(self, trajectory: Trajectory) -> list[int]:
        if self.recipe.train.mask_truncated and trajectory.stop == "length":
            return [0] * len(trajectory.completion_ids)
        return trajectory.model_mask

    def _make_trainer(self, questions: Sequence[Question]) -> Any:
        from transformers import PrinterCallback

        config = build_config(self.recipe, self.folder.path)
        trainer = make_trainer_class(self)(
            model=self.policy.model,
            processing_class=self.policy.tokenizer,
            args=config,
            train_dataset=make_dataset(questions, config),
            reward_funcs=[give_reward],
            rollout_func=self.roll_out,
            callbacks=[make_step_callback(self)],
        )
        trainer.remove_callback(PrinterCallback)  # it writes every log to stdout
        if "ref" in self.policy.model.peft_config:
            # A copy of our adapter, which has no effect yet: the base model is the same reference.
            # With the copy in a checkpoint, the trainer would resume without our own adapter.
            self.policy.model.delete_adapter("ref")
        return trainer


def make_trainer_class(training: GrpoTraining) -> Any:
    """GRPOTrainer whose steps are watched, whose checkpoints are whole, and without a card."""
    from trl import GRPOTrainer

    folder, keep = training.folder, training.recipe.train.keep_checkpoints

    class Trainer(GRPOTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            """Make the rollouts where they are due, one forward and one backward pass."""
            with training.watch_update(self):
                return super().training_step(*args, **kwargs)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Leave the card to `rsearch push`."""

        def _get_output_dir(self, trial: Any) -> str:
            return str(folder.staging)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            with folder.staged(f"checkpoint-{self.state.global_step}") as checkpoint:
                super()._save_checkpoint(model, trial)
                seal_checkpoint(checkpoint)
            drop_old_checkpoints(folder, keep)

    return Trainer


def make_dataset(questions: Sequence[Question], config: Any) -> Any:
    """Every question of the whole run, in the order in which `config` will have it asked."""
    from datasets import Dataset

    a_step = config.generation_batch_size // config.num_generations
    asked = order_questions(len(questions), config.max_steps * a_step, config.seed)
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": questions[i].text}]} for i in asked]
    )


def describe_shortage(recipe: Recipe, error: Exception) -> str:
    """What to turn when a forward or backward pass does not fit, in one line."""
    return (
        f"memory ran out in the update ({shortage(error)}); lower train.batch_size (now "
        f"{recipe.train.batch_size}; raise train.gradient_accumulation_steps in turn), "
        f"rollout.max_new_tokens (now {recipe.rollout.max_new_tokens}) or search.passage_chars, "
        "or set policy.gradient_checkpointing=true; `rsearch plan` shows what each saves"
    )


def give_reward(
    prompts: Any, completions: Any, reward: list[float | None] | None = None, **_: Any
) -> list[float | None]:
    """TRL's reward function: the totals that came with the rollouts, None for «unscored».

    Raises:
        TrainingIneffective: No rollouts came; the trainer has made completions of its own.
    """
    if reward is None:
        raise TrainingIneffective(
            "the trainer made completions without asking for rollouts: they never searched, and "
            "training on them would be for nothing; install the versions of trl and unsloth that "
            "rsearch asks for"
        )
    return reward


def make_step_callback(training: GrpoTraining) -> Any:
    """A trainer callback that closes the ledger's step as soon as TRL has measured it.

    The trainer saves after it logs, so a step that is to be the last is still saved.
    """
    from transformers import TrainerCallback

    class StepCallback(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # The policy it starts from; after a resume, a validation that the run did not reach.
            training.validate(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if training.ledger.trajectories:  # not for the summary that follows the last step
                training.finish_step(state.global_step, logs)
                training.validate(state.global_step)
                if training.collapse or training.stop_wanted():
                    control.should_save = control.should_training_stop = True

    return StepCallback()


def build_config(recipe: Recipe, output_dir: Path) -> Any:
    """Translate the recipe into a `GRPOConfig`."""
    import torch
    from trl import GRPOConfig

    from rsearch_cli.policy.transformers_backend import compute_dtype

    train = recipe.train
    cuda = torch.cuda.is_available()
    checkpointing = recipe.policy.gradient_checkpointing
    rows = train.batch_size * train.gradient_accumulation_steps
    return GRPOConfig(
        output_dir=str(output_dir),
        max_steps=train.max_steps,
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        generation_batch_size=rows,
        num_generations=train.num_generations,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler,
        warmup_steps=train.warmup_steps,
        max_grad_norm=train.max_grad_norm,
        beta=train.beta,
        epsilon=train.epsilon,
        epsilon_high=train.epsilon_high,
        loss_type=train.loss_type,
        scale_rewards=train.scale_rewards,
        temperature=recipe.rollout.temperature,
        top_p=recipe.rollout.top_p,
        max_completion_length=recipe.rollout.max_new_tokens,
        mask_truncated_completions=False,  # every row ends in eos; `mask_truncated` does it here
        use_vllm=False,
        # Unsloth switches `use_vllm` on for a model with an engine, and we return no log-probs.
        vllm_importance_sampling_correction=False,
        use_cpu=not cuda,
        bf16=cuda and compute_dtype(recipe.policy) == "bfloat16",
        fp16=cuda and compute_dtype(recipe.policy) == "float16",
        gradient_checkpointing=cuda if checkpointing is None else checkpointing,
        dataloader_pin_memory=cuda,
        seed=recipe.seed,
        data_seed=recipe.seed,
        save_strategy="steps",
        save_steps=train.save_steps,
        save_total_limit=None,  # the trainer would go by the time of change, which a copy loses
        shuffle_dataset=False,  # the questions come in the order in which they are asked
        logging_strategy="steps",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
