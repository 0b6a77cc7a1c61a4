"""The data path: question → plan → results → answer, for train, evaluation and inference alike.

Place in the path: the middle of everything; it asks the policy for text, reads plans, has them
carried out and inserts the results, until every question has an answer or no tokens are left.

    context = prompt + what the model wrote + what the system inserted      (token ids throughout)

Nothing that was generated is ever encoded again: a completion is the concatenation of the ids that
were sampled and the ids that were inserted, and its mask tells them apart. Two micro-batches are
under way at a time and take turns, so that one is searched for while the other is generated:

    generate A1   generate B1   generate A2   generate B2   generate C1 ...
                  search A      search B

Whose turn it is never depends on how long a search takes: the order in which random numbers are
drawn is always the same. On failure: a plan that cannot be read and a search that failed are told
to the model in the result block and recorded in the trajectory; nothing is raised for them. Results
that would outgrow `policy.max_seq_length` are cut off, and end the row for length. A prompt that
leaves no room to answer raises `PolicyError`. Memory that runs out halves the micro-batches, once;
the second time it raises `OutOfMemory`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rsearch_cli.errors import OutOfMemory
from rsearch_cli.policy.generation import Sampling, TextPolicy
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.policy.prompts import encode_question, require_room, room_behind
from rsearch_cli.protocol.plan import read_plan
from rsearch_cli.protocol.results import render_invalid_plan, render_results
from rsearch_cli.protocol.transcript import ANSWER_CLOSE, SEARCH_CLOSE, answer_text, last_plan_text
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.state import (
    Executor,
    MicroBatch,
    Observer,
    PendingSearch,
    RolloutState,
    Searches,
    count_fitting,
)
from rsearch_cli.services.event_loop import wait_for
from rsearch_cli.types import (
    NodeResult,
    Question,
    SearchRound,
    Segment,
    Trajectory,
)

logger = logging.getLogger(__name__)

UNDER_WAY = 2
"""Micro-batches that take turns; a third would hide no more of a search, and cost its cache."""


@dataclass(slots=True)
class RolloutTimes:
    """Seconds of wall-clock time that rollouts took, by part; added up over calls.

    Attributes:
        generate: In the policy.
        search: Waiting for searches; what passes while another micro-batch is generated is not
            counted.
    """

    generate: float = 0.0
    search: float = 0.0

    def copy(self) -> RolloutTimes:
        """The state now, for a difference later."""
        return RolloutTimes(self.generate, self.search)


class Rollout:
    """Rolls questions out to trajectories with one policy and one search layer.

    Args:
        policy: Writes.
        executor: Searches.
        recipe: Its protocol, search, rollout and policy sections are read.
        observer: Who looks on; then one question can be asked at a time, and Ctrl-C gives up the
            search that is under way instead of waiting for what is paid for.

    Attributes:
        times: Seconds by part since the rollout was made.
        halved_to: Most rows of a micro-batch since memory ran out once; None before that.
    """

    def __init__(
        self,
        policy: TextPolicy,
        executor: Executor,
        recipe: Recipe,
        observer: Observer | None = None,
    ) -> None:
        self.policy = policy
        self.executor = executor
        self.recipe = recipe
        self.observer = observer
        self.times = RolloutTimes()
        self.halved_to: int | None = None

    def run(
        self,
        questions: Sequence[Question],
        sampling: Sampling,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:
        """Roll out one completion a question; repeat a question to sample it several times.

        Args:
            questions: `[B]` questions.
            sampling: Greedy or sampled.
            on_done: Told how many are finished after each micro-batch.

        Returns:
            `[B]` trajectories, in order.

        Raises:
            PolicyError: A prompt leaves no room to answer.
            OutOfMemory: Memory ran out for the second time, or for a single completion.
            ValueError: An observer cannot look on at several questions at once.
            KeyboardInterrupt: Ctrl-C; a search under way had some seconds, see `Searches`.
        """
        if self.observer and len(questions) > 1:
            raise ValueError(f"an observer follows one question, not {len(questions)}")
        states = [self._draft(question) for question in questions]
        with Searches(self.executor, self.observer) as searches:
            self._take_turns(states, sampling, searches, on_done)
        return [state.finish(self.policy.eos_id) for state in states]

    def _take_turns(
        self,
        states: Sequence[RolloutState],
        sampling: Sampling,
        searches: Searches,
        on_done: Callable[[int], None] | None,
    ) -> None:
        """Bring all drafts to their end, in micro-batches."""
        waiting, under_way = deque(states), deque[MicroBatch]()
        done = 0
        while waiting or under_way:
            while waiting and len(under_way) < UNDER_WAY:
                under_way.append(self._next_batch(waiting))
            batch = under_way.popleft()
            self._receive(batch)
            if batch.active and not self._write(batch, sampling):
                under_way = self._split([batch, *under_way])
            elif batch.active:
                self._search(batch, searches)
                under_way.append(batch)
            else:
                done += len(batch.states)
                if on_done:
                    on_done(done)

    def _next_batch(self, waiting: deque[RolloutState]) -> MicroBatch:
        """Take as many drafts as the recipe allows at once."""
        settings = self.recipe.rollout
        rows = min(settings.micro_batch, self.halved_to or settings.micro_batch)
        count = count_fitting(waiting, rows, settings.micro_batch_tokens)
        return self._open_batch([waiting.popleft() for _ in range(count)])

    def _open_batch(self, states: list[RolloutState]) -> MicroBatch:
        return MicroBatch(states, PrefixCache() if self.recipe.rollout.reuse_cache else None)

    def _draft(self, question: Question) -> RolloutState:
        recipe = self.recipe
        prompt_ids, opening = encode_question(question, self.policy, recipe)
        require_room(question, prompt_ids, recipe.policy)
        room = room_behind(prompt_ids, recipe.policy)
        return RolloutState(question, prompt_ids, opening, min(recipe.rollout.max_new_tokens, room))

    def _write(self, batch: MicroBatch, sampling: Sampling) -> bool:
        """Let the model continue every active draft up to its next tag; see which ones are done.

        Returns:
            Whether it did; if not, memory ran out for the first time, and nothing has changed.
        """
        states = batch.active
        searches_left = self.recipe.rollout.max_turns - len(states[0].rounds)
        stops = [SEARCH_CLOSE, ANSWER_CLOSE] if searches_left else [ANSWER_CLOSE]
        tell = self._teller(states[0])
        started = time.perf_counter()
        try:
            generations = self.policy.generate(
                [d.context for d in states],
                stops,
                [d.budget for d in states],
                sampling,
                batch.cache,
                **({"on_text": tell} if tell else {}),
            )
        except OutOfMemory as error:
            self._halve(batch, error)
            return False
        finally:
            self.times.generate += time.perf_counter() - started
        for state, written in zip(states, generations, strict=True):
            if tell:
                tell(written.text)
            state.segments.append(Segment(written.text, written.token_ids, "model"))
            state.budget -= len(written.token_ids)
            if written.stop == "eos":
                state.stop = "eos"
            elif written.stop == "length":
                state.stop = "length"
            elif ANSWER_CLOSE in written.text:
                state.stop = "answer"
            state.answer = answer_text(written.text) or state.answer
        return True

    def _teller(self, state: RolloutState) -> Callable[[str], None] | None:
        """What tells the observer about a draft's next text, with what was opened for it."""
        if (observer := self.observer) is None:
            return None
        opening = "" if state.segments else state.opening
        return lambda text: observer.wrote(opening + text)

    def _halve(self, batch: MicroBatch, error: OutOfMemory) -> None:
        """Halve all further micro-batches, unless that has been done or cannot be done.

        Raises:
            OutOfMemory: Naming the settings that take less memory.
        """
        rows = len(batch.active)
        settings, again = self.recipe.rollout, " again" if self.halved_to else ""
        were = "completions were" if rows > 1 else "completion was"
        what = f"out of memory{again} while {rows} {were} generated"
        if self.halved_to or rows == 1:
            raise OutOfMemory(
                f"{what} ({error}); lower rollout.micro_batch (now "
                f"{settings.micro_batch}), rollout.micro_batch_tokens, rollout.max_new_tokens or "
                "search.passage_chars, or set rollout.reuse_cache=false"
            ) from error
        self.halved_to = (len(batch.states) + 1) // 2
        line = (
            f"{what}; from now on at most {self.halved_to} are, as with rollout.micro_batch="
            f"{self.halved_to}"
        )
        logger.warning(line)

    def _split(self, batches: Sequence[MicroBatch]) -> deque[MicroBatch]:
        """Micro-batches in two halves each, after what they wait for; their caches are given up."""
        halves = deque[MicroBatch]()
        for batch in batches:
            self._receive(batch)
            active, finished = batch.active, [d for d in batch.states if d.stop is not None]
            middle = (len(active) + 1) // 2
            parts = (finished + active[:middle], active[middle:])
            halves.extend(self._open_batch(part) for part in parts if part)
        return halves

    def _search(self, batch: MicroBatch, searches: Searches) -> None:
        """Have the plans carried out that the active drafts have just closed."""
        states, protocol = batch.active, self.recipe.protocol
        readings = [read_plan(last_plan_text(d.segments[-1].text) or "", protocol) for d in states]
        plans = [r.plan for r in readings if r.plan is not None]
        if self.observer:
            self.observer.planned(readings[0])
        batch.search = PendingSearch(states, readings, searches.begin(plans))

    def _receive(self, batch: MicroBatch) -> None:
        """Wait for what a micro-batch has searched for, and insert it."""
        search, batch.search = batch.search, None
        if search is None:
            return
        started = time.perf_counter()
        searched = wait_for(search.found)
        found = iter(searched)
        self.times.search += time.perf_counter() - started
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
        """Append what fits of a result block; a draft that cannot go on after it ends here."""
        ids = self.policy.encode_inserted(block)
        room = room_behind(state.context, self.recipe.policy)
        if kept := ids[:room]:
            state.segments.append(Segment(self.policy.decode(kept), tuple(kept), "system"))
        state.budget = min(state.budget, room - len(kept))
        # A block that was cut leaves no room, and so is never answered.
        if state.budget < 1:
            state.stop = "length"
