"""Traces of a stronger model on a server, which answers the training questions with real searches.

Its answers are stored as predictions, batch by batch, and a resumed run reads them before it asks
further questions. Replies in the cache cost nothing, such as those of a batch that was cut off.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from rsearch_cli.errors import RunFolderError
from rsearch_cli.evaluation.answering import OnDone, answer_questions, check_failures
from rsearch_cli.evaluation.methods import AGENT
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.samples import start_batch
from rsearch_cli.evaluation.stored import Batch
from rsearch_cli.policy.endpoint import EndpointPolicy
from rsearch_cli.policy.endpoint_calls import AS_TEACHER
from rsearch_cli.policy.prompts import fit_examples
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.teacher import recipe_of_teacher
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.rollout.state import Executor
from rsearch_cli.runs.files import TEACHER_ANSWERS
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.services.runtime import Services
from rsearch_cli.services.spend import Spend
from rsearch_cli.training.stored_traces import TraceChoice, read_candidate
from rsearch_cli.training.traces import Trace, TraceStats, require_traces
from rsearch_cli.types import Question
from rsearch_cli.ui.progress import phase

logger = logging.getLogger(__name__)

_LEAST_BATCH = 8
_NEXT_STEP = "fix that and start again with --resume: the answers so far are kept"


class Teacher(AbstractContextManager["Teacher"]):
    """The model that `sft.teacher` names, with the search layer of the run.

    Args:
        recipe: The recipe of the run.
        executor: Searches.
        services: Requests to the server go through them.

    Raises:
        RecipeValueError: OpenAI's own server without a price.
    """

    def __init__(self, recipe: Recipe, executor: Executor, services: Services) -> None:
        self.at_once = recipe.sft.teacher.service.concurrency
        self._recipe = recipe_of_teacher(recipe)
        self._executor = executor
        self._policy = EndpointPolicy(self._recipe.policy, services, AS_TEACHER)
        self._rollout: Rollout | None = None

    def start(self) -> Rollout:
        """Connect to the server and check that it can be used; only once.

        Raises:
            PolicyError: The server does not know the model, or refuses the requests.
            ServiceFailure: It does not answer.
            AccessDenied: It needs a key, and there is none, or it refuses the key.
        """
        if self._rollout is None:
            self._policy.start()
            recipe, notes = fit_examples(self._recipe, self._policy.describe_problem)
            for note in notes:
                logger.warning(f"the teacher: {note}")
            self._rollout = Rollout(self._policy, self._executor, recipe)
        return self._rollout

    def answer(
        self, questions: Sequence[Question], sample: int, on_done: OnDone
    ) -> list[EvalResult]:
        """Sample one answer to each question.

        Args:
            questions: `[B]` questions.
            sample: Which sample of each this is, from 0; part of the cache key.
            on_done: Called with the number of answers completed since the previous call.

        Returns:
            `[B]` results, in order; the failure of a request is a field of its result.

        Raises:
            BudgetExceeded: A call could exceed the budget.
        """
        rollout = self.start()
        sampling = start_batch(Batch(AGENT, questions, sample), rollout.recipe, on_server=True)
        results = answer_questions(rollout, questions, AGENT, sampling, on_done)
        # What a run stores does not depend on the clock.
        return [replace(result, seconds=None, sample=sample) for result in results]

    def __exit__(self, *error: object) -> None:
        self._policy.close()


def sample_traces(
    teacher: Teacher,
    questions: Sequence[Question],
    recipe: Recipe,
    folder: RunFolder,
    spend: Callable[[], Spend],
) -> tuple[list[Trace], TraceStats]:
    """Ask the teacher until there are enough traces or no questions left.

    Answers in the run folder are used first. Which question is asked next depends on the recipe and
    on earlier answers alone.

    Args:
        teacher: The model to ask.
        questions: Questions with reference answers, all texts distinct.
        recipe: The recipe of the run.
        folder: The run folder, already opened.
        spend: Returns what the run has spent.

    Returns:
        The accepted traces, in the order of asking, and the counts.

    Raises:
        FailureShareExceeded: Too many requests or searches failed.
        BudgetExceeded: A call could exceed the budget.
        RunFolderError: The stored answers are to other questions.
        DataEmpty: No trace is left.
    """
    sampling = _Sampling(teacher, recipe, folder)
    for sample in range(recipe.sft.teacher.samples):
        waiting = deque(q for q in questions if sampling.choice.lacks(q))
        if not sampling.next_count(len(waiting)):
            break
        name = "asking the teacher" + (f", sample {sample + 1}" if sample else "")
        with phase(name, len(waiting), spend) as advance:
            while waiting and (count := sampling.next_count(len(waiting))):
                sampling.ask([waiting.popleft() for _ in range(count)], sample, advance)
    choice = sampling.choice
    require_traces(choice.traces, choice.stats, recipe)
    return choice.traces, choice.stats


class _Sampling:
    """The answers so far, stored ones first, and the traces that were accepted."""

    def __init__(self, teacher: Teacher, recipe: Recipe, folder: RunFolder) -> None:
        self.choice = TraceChoice(recipe)
        self._teacher = teacher
        self._recipe = recipe
        self._folder = folder
        self._answers: list[EvalResult] = []
        with folder.reading(TEACHER_ANSWERS):
            rows = folder.read_rows(TEACHER_ANSWERS)
            self._stored = deque(EvalResult.from_json(row) for row in rows)
        folder.write_rows(TEACHER_ANSWERS, rows)  # without a row that was cut off

    def next_count(self, waiting: int) -> int:
        """Return how many questions to ask at once: never more than traces are missing."""
        most = self._recipe.sft.max_traces
        room = waiting if most is None else most - len(self.choice.traces)
        # Twice as many as may be in flight: one half searches while the other one generates. But
        # not so few that a single failure is too large a share of them.
        return min(waiting, room, max(_LEAST_BATCH, 2 * self._teacher.at_once))

    def ask(self, batch: list[Question], sample: int, on_done: OnDone) -> None:
        """Take the stored answers to a batch, ask for the others, and choose among all of them."""
        stored = [self._stored.popleft() for _ in batch[: len(self._stored)]]
        for question, answer in zip(batch, stored, strict=False):
            self._check_stored(answer, question, sample)
        on_done(len(stored))
        self._answers += stored
        if missing := batch[len(stored) :]:
            answers = self._teacher.answer(missing, sample, on_done)
            self._answers += answers
            limit = self._recipe.budget.max_failed_share
            check_failures(self._answers, limit, None, _NEXT_STEP, "the teacher")
            self._folder.append(TEACHER_ANSWERS, [answer.as_json() for answer in answers])
            stored += answers
        for answer in stored:
            row = answer.as_json()
            self.choice.consider(read_candidate({**row, "references": list(row["references"])}))

    def _check_stored(self, answer: EvalResult, question: Question, sample: int) -> None:
        asked = (question.id, question.text, question.answers, sample)
        if (answer.id, answer.text, answer.references, answer.sample) != asked:
            raise RunFolderError(
                f"{self._folder.path / TEACHER_ANSWERS} answers question {answer.id} where "
                f"{question.id} comes next: the training questions have changed; restore them, or "
                "start over with --overwrite"
            )
