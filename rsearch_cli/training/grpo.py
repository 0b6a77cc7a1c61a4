"""GRPO: TRL's `GRPOTrainer` around our rollouts.

TRL calls `rollout_func` with every prompt repeated `num_generations` times and takes one reward per
row. A row leaves its group's baseline only if every reward function returns None for it, so there
is a single reward function. The loss mask comes from the segments of a trajectory and nowhere else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsearch_cli.distributed import (
    fail_together,
    gather,
    is_main,
    rank,
    wait_for_all,
    world_size,
)
from rsearch_cli.errors import OutOfMemory, PolicyCollapsed, is_shortage
from rsearch_cli.policy.adapter_check import check_adapter
from rsearch_cli.policy.generation import Sampling
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.composite import score_trajectories, shuffle_answer_scores, weights_at
from rsearch_cli.reward.judge import AnswerJudge
from rsearch_cli.reward.normalised import training_rewards
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.runs.files import ADAPTER, METRICS, TRAJECTORIES, checkpoint_name
from rsearch_cli.runs.run_folder import RunFolder, checkpoint_step
from rsearch_cli.services.budget import Budget
from rsearch_cli.training.alarms import Alarm, CollapseWatch
from rsearch_cli.training.observer import Observer
from rsearch_cli.training.resampling import Scored, find_ties, replace_ties
from rsearch_cli.training.step_metrics import StepMetrics
from rsearch_cli.training.step_recovery import StepRecovery
from rsearch_cli.training.step_spend import StepSpend
from rsearch_cli.training.trainer import (
    build_config,
    describe_shortage,
    make_dataset,
    make_step_callback,
    make_trainer_class,
    return_reward,
    settle_reference,
)
from rsearch_cli.training.validation import Validation
from rsearch_cli.types import Question, RewardParts, Trajectory


class GrpoTraining:
    """One GRPO training run.

    Args:
        policy: Trained in place.
        rollout: Generates with that policy.
        questions: Training questions with distinct texts.
        recipe: All settings of the run.
        folder: Where metrics, trajectories and checkpoints are written.
        observers: Receive every finished step, validation and alarm.
        judge: Scores the answers if `reward.answer` is `judge`; the caller closes it.
        budget: What the run has spent; None spends nothing.
        stop_wanted: Called after every step; True makes it the last.
        validation: Scores the policy every few steps and keeps the best adapter.
    """

    def __init__(
        self,
        policy: LocalPolicy,
        rollout: Rollout,
        questions: Sequence[Question],
        recipe: Recipe,
        folder: RunFolder,
        observers: Sequence[Observer] = (),
        judge: AnswerJudge | None = None,
        budget: Budget | None = None,
        stop_wanted: Callable[[], bool] = lambda: False,
        validation: Validation | None = None,
    ) -> None:
        self.policy = policy
        self.rollout = rollout
        self.recipe = recipe
        self.folder = folder
        self.observers = observers
        self.judge = judge
        self.budget = budget or Budget()
        self.step_metrics = StepMetrics()
        self._step_spend = StepSpend(folder, self.budget)
        self.recovery = StepRecovery(folder, recipe.budget.max_failed_share)
        self.stop_wanted = stop_wanted
        self.validation = validation
        self.collapse: tuple[int, Alarm] | None = None
        train = recipe.train
        rollouts = train.batch_size * train.gradient_accumulation_steps * world_size()
        rows = folder.read_rows(METRICS)
        self._watch = CollapseWatch(recipe.alarms, recipe.reward.extra, rollouts, rows)
        self._questions = {q.text: q for q in questions}
        with policy.active():
            self.trainer = self._make_trainer(questions)

    def run(self, resume_from: Path | None = None) -> None:
        """Train to the last step and save the adapter, or stop early if `stop_wanted` returns True.

        Raises:
            RsearchError: A step cannot be finished; the step before it is saved.
            PolicyCollapsed: There is an alarm, and the recipe sets `alarms.stop_on_collapse`.
        """
        if resume_from and checkpoint_step(resume_from) >= self.recipe.train.max_steps:
            # Nothing is left to train; the trainer would train one more step.
            self._load_adapter(resume_from)
            self.trainer.state.global_step = self.recipe.train.max_steps
            self.validate(self.recipe.train.max_steps)
        else:
            check_adapter(self.policy)
            finished = checkpoint_step(resume_from) if resume_from else 0
            self.step_metrics.begin(self._step_spend.resume(finished + 1))
            with self.policy.active():
                self.trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        self._step_spend.begin(0)
        if self.collapse:
            raise PolicyCollapsed(self._describe_collapse(*self.collapse))
        if self.stop_wanted():
            return
        if self.recipe.train.keep == "best":
            self._load_adapter(self.folder.best)
        with self.folder.staged(ADAPTER) as adapter:
            self.save_adapter(adapter)
        wait_for_all()

    def save_adapter(self, path: Path) -> None:
        """Write the current adapter and the tokenizer, in the main process only."""
        if not is_main():
            return
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
            f"the policy is collapsing: after step {step}, {alarm.line} (alarms.{alarm.name}); the "
            f"step is saved in {self.folder.path / checkpoint_name(step)}{kept}; --resume "
            "continues anyway, and a lower --lr may help a new run"
        )

    def roll_out(self, prompts: list[list[dict[str, str]]], trainer: Any) -> dict[str, Any]:
        """TRL's `rollout_func`: return ids, masks and rewards for `[B*G]` prompts.

        Raises:
            RsearchError: The step cannot be finished; the step before it is saved.
        """
        with self.recovery.watch(trainer):
            return self._roll_out(prompts, trainer.state.global_step)

    def _roll_out(self, prompts: list[list[dict[str, str]]], step: int) -> dict[str, Any]:
        sampled: list[Scored] = []
        everyone = self._sample([self._questions[p[-1]["content"]] for p in prompts], step, sampled)
        if self.recipe.train.resample_ties:

            def sample(questions: Sequence[Question]) -> list[list[Scored]]:
                return self._sample(questions, step, sampled)

            known = list(self._questions.values())
            everyone, replaced = replace_ties(everyone, known, self.recipe, step, sample)
            self.step_metrics.discard(replaced)
        kept = [row for rows in everyone for row in rows]
        self.step_metrics.record([row.trajectory for row in kept], [row.parts for row in kept])
        if self.recipe.train.scale_rewards == "batch":  # TRL looks at the whole step then
            size = self.recipe.train.num_generations
            self.step_metrics.tied = len(find_ties(kept, size)) * size / len(kept)
        mine = everyone[rank()]
        return {
            "prompt_ids": [list(row.trajectory.prompt_ids) for row in mine],
            "completion_ids": [row.trajectory.completion_ids for row in mine],
            "logprobs": None,  # computed by the trainer, which would trust any value
            "env_mask": [self._loss_mask(row.trajectory) for row in mine],
            "reward": [row.reward for row in mine],
        }

    def _sample(
        self, questions: Sequence[Question], step: int, sampled: list[Scored]
    ) -> list[list[Scored]]:
        """Roll out and score the questions of all processes.

        Args:
            questions: Those of this process, repeated; the completions of one follow each other.
            step: Optimiser steps finished before this one.
            sampled: What the step has sampled so far, in all processes; the new rollouts are added.

        Returns:
            By process, its scored rollouts.

        Raises:
            RsearchError: A process cannot continue, or too many searches or verdicts of the step
                have failed.
        """
        sampling = Sampling(self.recipe.rollout.temperature, self.recipe.rollout.top_p)
        times = self.rollout.times.copy()
        with fail_together():
            trajectories = self.rollout.run(questions, sampling)
            started = time.perf_counter()
            parts = self.score(trajectories, step)
        spent = self.rollout.times
        self.step_metrics.add_seconds(
            generate=spent.generate - times.generate,
            search=spent.search - times.search,
            reward=time.perf_counter() - started,
        )
        reason = self.judge.last_failure if self.judge else None
        rewards = training_rewards(parts, self.recipe, step)
        everyone = gather((trajectories, parts, rewards, reason))
        reasons = [reason for _, _, _, reason in everyone if reason]
        scored = [[Scored(*row) for row in zip(t, p, r, strict=True)] for t, p, r, _ in everyone]
        sampled += [row for rows in scored for row in rows]
        with fail_together():
            self.recovery.check(
                [row.trajectory for row in sampled],
                [row.parts for row in sampled],
                reasons[-1] if reasons else None,
            )
        return scored

    def score(self, trajectories: Sequence[Trajectory], step: int) -> list[RewardParts]:
        """Return the rewards of a step's rollouts; `step` counts finished steps, from 0."""
        recipe = self.recipe
        parts = score_trajectories(trajectories, recipe, step, self.judge)
        if recipe.reward.shuffle_answers:
            rng = random.Random(f"{recipe.seed} {step}")
            weights = weights_at(step, recipe.reward)
            parts = shuffle_answer_scores(parts, weights, recipe.reward, rng)
        return parts

    @contextmanager
    def watch_update(self, trainer: Any) -> Iterator[None]:
        """Wrap a forward and backward pass, and the rollouts that it may start with.

        Raises:
            OutOfMemory: Memory ran out; the last finished step is saved.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            with self.recovery.watch(trainer):
                raise OutOfMemory(describe_shortage(self.recipe, error)) from error

    def end_step(self, step: int, logs: dict[str, Any]) -> bool:
        """Record a step with the trainer's measurements; return whether it is the last."""
        if not self.step_metrics.trajectories:  # the summary after the last step
            return False
        self.finish_step(step, logs)
        if self.stop_wanted():
            return True  # the resumed run starts with the validation
        self.validate(step)
        return self.collapse is not None or self.stop_wanted()

    def finish_step(self, step: int, logs: dict[str, Any]) -> None:
        """Write the rows of a finished step, and report it and its new alarms to the observers."""
        rollouts = self.step_metrics.rows(step)
        self.folder.append(TRAJECTORIES, rollouts)
        start, now = self.step_metrics.spend, self.budget.snapshot()
        row = self.step_metrics.close(step, logs, now)
        row["oom/halved"] = int(self.rollout.halved_to is not None)
        alarms = self._watch.check(row)
        self.recovery.remember()
        self.folder.append(METRICS, [row])
        self.step_metrics.spend = self._step_spend.finish(step, start, now)
        for observer in self.observers:
            observer.on_step(row, rollouts)
            for alarm in alarms:
                observer.on_alarm(step, alarm.name, alarm.line)
        unfinished = step < self.recipe.train.max_steps
        if alarms and unfinished and self.recipe.alarms.stop_on_collapse:
            self.collapse = step, alarms[0]

    def validate(self, step: int) -> None:
        """Validate the policy after `step` if that is due; the time counts for no step.

        Raises:
            RsearchError: The evaluation cannot be finished; the step is saved.
        """
        if self.validation and self.validation.is_due(step):
            self._step_spend.begin(0)
            with self.recovery.watch(self.trainer):
                row, best = self.validation.run(step, self.save_adapter)
                for observer in self.observers:
                    observer.on_validation(row, best)
            self.step_metrics.begin(self._step_spend.begin(step + 1))

    def _loss_mask(self, trajectory: Trajectory) -> list[int]:
        if self.recipe.train.mask_truncated and trajectory.stop == "length":
            return [0] * len(trajectory.completion_ids)
        return trajectory.model_mask

    def _make_trainer(self, questions: Sequence[Question]) -> Any:
        from transformers import PrinterCallback

        config = build_config(self.recipe, self.folder.path)
        shuffled = self.recipe.questions.order == "shuffled"
        trainer = make_trainer_class(self)(
            model=self.policy.model,
            processing_class=self.policy.tokenizer,
            args=config,
            train_dataset=make_dataset(questions, config, shuffled=shuffled),
            reward_funcs=[return_reward],
            rollout_func=self.roll_out,
            callbacks=[make_step_callback(self)],
        )
        trainer.remove_callback(PrinterCallback)  # it prints every log to stdout
        settle_reference(self.policy.model, self.recipe)
        return trainer
