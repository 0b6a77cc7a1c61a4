"""Predicts the time of a training run, part by part, in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from rsearch_cli.memory.shape import ModelShape
from rsearch_cli.memory.workload import Backend, Workload, describe_workload
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.timing.devices import STEP_SECONDS, TOKEN_SECONDS, Device
from rsearch_cli.timing.lengths import Lengths
from rsearch_cli.timing.work import decode, read_contexts, update

START_SECONDS = 80.0
"""Imports, loading a 7B from a local disk, and what the first step compiles: 29, 10 and 40 s on the
H200 (docs/measurements.md). A download comes on top."""

SEARCH_SECONDS = 1.0
JUDGE_SECONDS = 1.0
"""Latency of a request to a search service and of a verdict. Allowances: not measured."""

WAVES = 2
"""Searches of a plan that wait for each other: most plans have two hops."""

TIES = 0.5
"""Share of groups whose rewards are all equal, for `train.resample_ties`. A guess; in the rows of
a run it is `groups/zero_advantage`."""

BEFORE, AFTER, VALIDATIONS = "evaluation before", "evaluation after", "validations"
GENERATE, SEARCH, REWARD, UPDATE = "generate", "search", "reward", "update"
START = "start"
STEP_PARTS = (GENERATE, SEARCH, REWARD, UPDATE)
PARTS = (START, BEFORE, *STEP_PARTS, VALIDATIONS, AFTER)


@dataclass(frozen=True, slots=True)
class Services:
    """The services that a run waits for.

    Attributes:
        outside: Share in [0, 1] of the searches that leave this machine.
        requests_per_second: How many of them may start each second.
        concurrency: How many of them may be in flight.
        judged: Whether a model scores the answers of a step.
    """

    outside: float
    requests_per_second: float
    concurrency: int
    judged: bool


@dataclass(frozen=True, slots=True)
class TimeModel:
    """Everything that the time of a run is computed from.

    Attributes:
        shape: The model's dimensions.
        recipe: All settings of the run.
        backend: The back end of the policy.
        device: What it runs on.
        lengths: How long the rows get.
        evaluated: Questions of the evaluations before and after.
        services: The services that it waits for.
        ties: Share in [0, 1] of groups that `train.resample_ties` replaces.
        factors: By part, measured seconds divided by predicted ones; 1 for those left out.
        per_row: By part of a step, measured seconds of a row that are not predicted at all.
    """

    shape: ModelShape
    recipe: Recipe
    backend: Backend
    device: Device
    lengths: Lengths
    evaluated: int
    services: Services
    ties: float = TIES
    factors: Mapping[str, float] = field(default_factory=dict)
    per_row: Mapping[str, float] = field(default_factory=dict)

    @property
    def workload(self) -> Workload:
        """Rows and types, as the memory plan has them; on a CPU nothing is quantised."""
        work = describe_workload(self.recipe, self.backend)
        if self.device.queues:
            return work
        keeps = self.recipe.policy.gradient_checkpointing is not True
        return replace(work, four_bit=False, width=4, checkpointing=not keeps)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each of `PARTS`."""
        steps = self.recipe.train.max_steps
        evaluation = self._scaled(BEFORE, self._evaluate(self.evaluated, self._decodings))
        rows = self._rows
        step = {
            part: steps * (self._scaled(part, value) + rows * self.per_row.get(part, 0.0))
            for part, value in self.step().items()
        }
        return {
            START: self._scaled(START, START_SECONDS),
            BEFORE: evaluation,
            **step,
            VALIDATIONS: self._scaled(BEFORE, self._validate()),
            AFTER: evaluation,
        }

    def step(self) -> dict[str, float]:
        """Return the seconds of each of `STEP_PARTS` in one step, before they are scaled."""
        rows = self._rows
        generating, waiting = self._roll_out(rows)
        # Ties are drawn again, and those of them that tie again, up to the recipe's bound.
        drawn = sum(self.ties**again for again in range(self.recipe.train.resample_ties + 1))
        return {
            GENERATE: generating * drawn,
            SEARCH: waiting * drawn,
            REWARD: self._judge(rows) * drawn,
            UPDATE: self._update(),
        }

    def evaluation(self) -> float:
        """Return the seconds of one evaluation, before they are scaled."""
        return self._evaluate(self.evaluated, self._decodings)

    @property
    def _rows(self) -> int:
        train = self.recipe.train
        return train.batch_size * train.gradient_accumulation_steps

    @property
    def _decodings(self) -> int:
        return 2 if self.recipe.evaluate.sampled else 1

    def _scaled(self, part: str, seconds: float) -> float:
        return seconds * self.factors.get(part, 1.0)

    def _evaluate(self, questions: int, decodings: int) -> float:
        """An evaluation answers as a step does; the judge takes no part in it."""
        return decodings * sum(self._roll_out(questions))

    def _validate(self) -> float:
        """Validations before the first step, every so many steps, and after the last."""
        every, steps = self.recipe.evaluate.every_steps, self.recipe.train.max_steps
        if every is None:
            return 0.0
        return (1 + ceil(steps / every)) * self._evaluate(self.recipe.evaluate.slice, 1)

    def _roll_out(self, rows: int) -> tuple[float, float]:
        """Return the seconds of generation, and of waiting for searches, for so many rows.

        Two micro-batches take turns, so that only what is longer than the other one's generation
        is waited for; a single one waits for all of it.
        """
        batches = list(_split(rows, self.recipe.rollout.micro_batch))
        generating = sum(self._generate(batch) for batch in batches)
        searching = sum(self._search(batch) for batch in batches)
        hidden = generating / 2 if len(batches) > 1 else 0.0
        return generating, max(0.0, searching - hidden)

    def _generate(self, rows: int) -> float:
        """Return the seconds of all turns of a micro-batch."""
        lengths, work = self.lengths, self.workload
        seconds, context, unread = 0.0, lengths.prompt, lengths.prompt
        for turn in lengths.turns:
            active = rows * turn.share
            longest = turn.longest(max(1.0, active))
            seconds += read_contexts(self.shape, work, active, unread).seconds(self.device)
            token = decode(self.shape, work, active, context + longest / 2)
            seconds += longest * (token.seconds(self.device) + TOKEN_SECONDS)
            context += longest + lengths.inserted
            # transformers keeps the keys and values of a turn; Unsloth reads the context again.
            keeps = self.backend == "transformers" and self.recipe.rollout.reuse_cache
            unread = lengths.inserted if keeps else context
        return seconds

    def _search(self, rows: int) -> float:
        """Return the seconds until the plans of a micro-batch are executed."""
        limits, searches = self.services, len(self.lengths.turns) - 1
        requests = rows * self.lengths.nodes * limits.outside
        if not requests:
            return 0.0
        busy = requests * SEARCH_SECONDS / limits.concurrency
        return searches * max(WAVES * SEARCH_SECONDS, busy, requests / limits.requests_per_second)

    def _judge(self, rows: int) -> float:
        """Return the seconds until all answers of a step are scored."""
        if not self.services.judged:
            return 0.0
        limits = self.recipe.reward.judge.service
        busy = rows * JUDGE_SECONDS / limits.concurrency
        return max(JUDGE_SECONDS, busy, rows / limits.requests_per_second)

    def _update(self) -> float:
        """Return the seconds of the passes of a step, and of the optimiser."""
        train, work = self.recipe.train, self.workload
        rows = train.batch_size
        # Rows are padded to the longest of their batch.
        after = self.lengths.completion
        if rows > 1:
            after = sum(turn.longest(rows) * turn.share for turn in self.lengths.turns)
            after += self.lengths.inserted * sum(turn.share for turn in self.lengths.turns[1:])
        one = update(self.shape, work, rows, self.lengths.prompt, after).seconds(self.device)
        if train.beta:
            reference = read_contexts(self.shape, work, rows, self.lengths.prompt + after)
            one += reference.seconds(self.device)
        # On a CPU it has not been seen to matter.
        trainer = STEP_SECONDS if self.device.queues else 0.0
        return train.gradient_accumulation_steps * one + trainer


def _split(rows: int, most: int) -> Iterator[int]:
    """Yield the sizes of micro-batches."""
    while rows > 0:
        yield min(rows, most)
        rows -= most
