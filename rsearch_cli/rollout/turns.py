"""The steps of a rollout, question → plan → results → answer, for some rollouts at a time.

`rollout.Rollout` takes a fixed list of questions through them, `serving` whatever is asked. An
invalid plan or a failed search is reported to the model in the result block and recorded in the
trajectory; it raises nothing. Results that exceed `policy.max_seq_length` are cut.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from rsearch_cli.errors import OutOfMemory
from rsearch_cli.policy.generation import Generation, OnText, Policy, Row, Sampling
from rsearch_cli.policy.prompts import render_question, require_room, room_behind
from rsearch_cli.protocol.plan import read_plan
from rsearch_cli.protocol.results import render_invalid_plan, render_results
from rsearch_cli.protocol.transcript import ANSWER_CLOSE, SEARCH_CLOSE, answer_text, last_plan_text
from rsearch_cli.recipe.policy import RolloutConfig
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.state import Executor, Observer, PendingSearch, RolloutState
from rsearch_cli.services.event_loop import wait_for
from rsearch_cli.types import NodeResult, Question, SearchRound

logger = logging.getLogger(__name__)


class Turns:
    """Starts rollouts, and moves them on by one step.

    Args:
        policy: Generates.
        executor: Searches.
        recipe: Its protocol, search, rollout and policy sections are read.
    """

    def __init__(self, policy: Policy, executor: Executor, recipe: Recipe) -> None:
        self.policy = policy
        self.executor = executor
        self.recipe = recipe

    def start(
        self,
        question: Question,
        observer: Observer | None = None,
        max_new_tokens: int | None = None,
    ) -> RolloutState:
        """Render the prompt of a question.

        Args:
            question: The question.
            observer: Follows the rollout.
            max_new_tokens: Most tokens to generate, at least 1, besides the recipe's limit.

        Raises:
            PolicyError: The prompt leaves no room for an answer.
        """
        recipe = self.recipe
        prompt = render_question(question, self.policy, recipe)
        require_room(question, prompt, recipe.policy)
        limits = [recipe.rollout.max_new_tokens, room_behind(prompt.tokens, recipe.policy)]
        budget = min(limits if max_new_tokens is None else [*limits, max(1, max_new_tokens)])
        return RolloutState(question, prompt, budget, observer)

    def stops(self, state: RolloutState) -> list[str]:
        """Return where the next text of a rollout ends; without searches left, at an answer."""
        searches_left = self.recipe.rollout.max_turns - len(state.rounds)
        return [SEARCH_CLOSE, ANSWER_CLOSE] if searches_left else [ANSWER_CLOSE]

    def row(self, state: RolloutState, sampling: Sampling, is_cancelled: Callable[[], bool]) -> Row:
        """Return the row of a batch that writes the next text of a rollout."""
        return Row(
            tuple(state.context.token_ids),
            tuple(self.stops(state)),
            state.budget,
            sampling,
            make_on_text(state),
            is_cancelled,
        )

    def record(self, state: RolloutState, generation: Generation) -> None:
        """Append what the policy wrote, and mark the rollout if it is finished."""
        if on_text := make_on_text(state):
            on_text(generation.text)
        segment = generation.as_segment()
        state.segments.append(segment)
        state.budget -= segment.tokens
        if generation.stop != "tag":
            state.stop = generation.stop
        elif ANSWER_CLOSE in generation.text:
            state.stop = "answer"
        state.answer = answer_text(generation.text) or state.answer

    def search(self, states: Sequence[RolloutState]) -> PendingSearch:
        """Start executing the plans that rollouts have just closed.

        Args:
            states: Those with an observer are searched for alone.
        """
        plan_texts = [last_plan_text(state.segments[-1].text) or "" for state in states]
        readings = [read_plan(text, self.recipe.protocol) for text in plan_texts]
        plans = [reading.plan for reading in readings if reading.plan is not None]
        observer = states[0].observer
        if observer:
            observer.on_plan(readings[0])
        results = self.executor.submit(plans, observer.on_result if observer else None)
        return PendingSearch(list(states), readings, results)

    def insert_results(self, search: PendingSearch) -> None:
        """Wait for a search, and append its results; raises what `PlanExecutor.execute` does."""
        all_results = wait_for(search.results)
        found = iter(all_results)
        protocol, forbidden = self.recipe.protocol, self.policy.forbidden
        for state, reading in zip(search.states, search.readings, strict=True):
            if reading.plan is None:
                results: tuple[NodeResult, ...] = ()
                block = render_invalid_plan(reading.problems, protocol)
            else:
                results = next(found)
                chars = self.recipe.search.passage_chars
                block = render_results(results, protocol, chars, forbidden)
            state.rounds.append(SearchRound(reading.plan, reading.problems, results))
            self._insert(state, block)

    def _insert(self, state: RolloutState, block: str) -> None:
        """Append what fits of a result block; a rollout without room for an answer ends here."""
        room = room_behind(state.context.tokens, self.recipe.policy)
        if room > 0:
            segment = self.policy.insert(block, room)
            state.segments.append(segment)
            room -= segment.tokens
        state.budget = min(state.budget, room)
        if state.budget < 1:
            state.stop = "length"


def make_on_text(state: RolloutState) -> OnText | None:
    """Return a callback that shows the observer a rollout's next text, with its opening."""
    if (observer := state.observer) is None:
        return None
    opening = "" if state.segments else state.prompt.opening
    return lambda text: observer.on_text(opening + text)


def halve(
    active: int, rows: int, halved_to: int | None, settings: RolloutConfig, error: OutOfMemory
) -> int:
    """Return how many rows to generate at a time after memory ran out for the first time.

    Args:
        active: Rows that were to be generated.
        rows: Rows of their batch.
        halved_to: What this returned before, or None.
        settings: Named in the message.
        error: What happened.

    Raises:
        OutOfMemory: For the second time, or for a single row; names the settings to lower.
    """
    again = " again" if halved_to else ""
    completions = "completion" if active == 1 else "completions"
    what = f"out of memory{again} while generating {active} {completions}"
    if halved_to or active == 1:
        raise OutOfMemory(
            f"{what} ({error}); lower rollout.micro_batch (now "
            f"{settings.micro_batch}), rollout.micro_batch_tokens, rollout.max_new_tokens or "
            "search.passage_chars, or set rollout.reuse_cache=false"
        ) from error
    half = (rows + 1) // 2
    logger.warning(
        f"{what}; continuing with at most {half} at a time, as with rollout.micro_batch={half}"
    )
    return half
