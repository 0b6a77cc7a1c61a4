"""A run without a model: scripted agents on the real rollout, executor, judge and clients.

Only the policy is replaced, and the servers are local. Each question has several generations, which
overlap as real ones do. As a script it is one process of a run of several: it prints a line when it
is ready, starts when it reads one, and ends with a line of JSON:

    python tests/servers/scripted.py --cache DIR --run DIR --judge URL --questions 20
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from byte_policy import BytePolicy

from rsearch_cli.errors import RsearchError
from rsearch_cli.policy.generation import GREEDY, Context, Generation, Prompt, Sampling
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.composite import score_trajectories
from rsearch_cli.reward.judge import open_judge
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import Services, open_services
from rsearch_cli.types import Question, RewardParts, Trajectory

GENERATIONS = 4
NODES = 4
FIRST_ROW_ID = 1000  # ids below are bytes

SETTINGS = (
    "search.sources.General.type=exa",
    "search.sources.News.type=exa",
    "search.sources.Academy.type=exa",
    "search.expand_dependents=titles",
    "search.service.requests_per_second=10000",
    "reward.answer=judge",
    "reward.judge.skip_exact_match=false",
    "reward.judge.service.requests_per_second=10000",
    "policy.max_seq_length=16384",
    "rollout.max_new_tokens=4000",
)
"""Everything goes outside, and no rate limit slows a test down."""

Scored = list[tuple[Trajectory, RewardParts]]


def make_recipe(judge_url: str, *settings: str) -> Recipe:
    """The recipe of a scripted run, with settings on top."""
    judge = f"reward.judge.base_url={judge_url}"
    return load_recipe("quickstart", (*SETTINGS, judge, *settings)).recipe


def make_questions(count: int) -> list[Question]:
    """Questions whose answers are their numbers."""
    return [
        Question(str(i), f"What is the number of city {i}?", (f"Nr {i}",)) for i in range(count)
    ]


def write_plan(question: Question, generation: int) -> str:
    """A plan of four nodes in two waves.

    The first root is the same in all generations of a question, the second in two of them, and
    their children follow: one by its own words, the other only by what its parent found.
    """
    i, pair = question.id, generation // 2
    return (
        "<think> two and two </think>\n<search>\nNodes:\n"
        f"A: founder of city {i} (General)\n"
        f"B: news number {pair} about city {i} (News)\n"
        f"C: family of the founder, try {generation} (General)\n"
        "D: where it happened (Academy)\n"
        "Edges:\nA -> C\nB -> D\n</search>"
    )


def write_distinct_plan(question: Question, generation: int) -> str:
    """A plan of the same shape that shares no query with any other."""
    i = f"{question.id} {generation}"
    return (
        "<think> two and two </think>\n<search>\nNodes:\n"
        f"A: founder of city {i} (General)\nB: news about city {i} (News)\n"
        f"C: family of founder {i} (General)\nD: study of city {i} (Academy)\n"
        "Edges:\nA -> C\nB -> D\n</search>"
    )


def write_answer(question: Question, generation: int) -> str:
    """Right, right in other letters, wrong, and none at all, in turn."""
    right = question.answers[0]
    answers = (right, right.upper(), f"Nr 9{question.id}")
    return f"<answer> {answers[generation]} </answer>" if generation < 3 else "I cannot tell."


def expected_score(generation: int) -> float:
    """What `write_answer` deserves."""
    return 1.0 if generation < 2 else 0.0


class ScriptedAgents(BytePolicy):
    """Writes by script; the first id of a prompt tells its row."""

    forbidden = ()

    def __init__(self, questions: Sequence[Question], plan=write_plan) -> None:
        """Take the questions in the order in which they will be asked, each for all generations."""
        self._questions = questions
        self._plan = plan
        self._rows = 0

    def render(self, messages: list[dict[str, str]], *, open_thought: bool = False) -> Prompt:
        """Render a prompt; rows are counted in the order of these calls."""
        prompt = super().render(messages, open_thought=open_thought)
        row = self._rows
        self._rows += 1
        return replace(prompt, token_ids=(FIRST_ROW_ID + row, *prompt.token_ids))

    def generate(
        self,
        contexts: Sequence[Context],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
        cache: object = None,
        on_text: object = None,
    ) -> list[Generation]:
        """Write the plan first, the answer once there is a result."""
        return [self._write(context.token_ids) for context in contexts]

    def _write(self, context: Sequence[int]) -> Generation:
        row, generation = divmod(context[0] - FIRST_ROW_ID, GENERATIONS)
        question = self._questions[row]
        answering = "</search>" in self.decode(context)
        text = (write_answer if answering else self._plan)(question, generation)
        stop = "tag" if text.endswith(">") else "eos"
        return Generation(tuple(text.encode()), text, stop)


@contextmanager
def open_run(recipe: Recipe, cache: Path, run: Path | None) -> Iterator[Services]:
    """The services of a run in the test's own folders."""
    with open_services(recipe, run, cache) as services:
        yield services


def run_agents(
    recipe: Recipe, services: Services, questions: Sequence[Question], plan=write_plan
) -> Scored:
    """Roll out and score all generations of the questions, the way a training step does."""

    def no_corpus() -> list:
        raise AssertionError("Exa needs no corpus")

    with ExitStack() as stack:
        sources = open_sources(recipe.search, no_corpus)
        executor = stack.enter_context(PlanExecutor(sources, recipe.search, services))
        judge = open_judge(recipe, services)
        assert judge is not None
        stack.enter_context(judge)
        rollout = Rollout(ScriptedAgents(questions, plan), executor, recipe)
        asked = [question for question in questions for _ in range(GENERATIONS)]
        trajectories = rollout.run(asked, GREEDY)
        parts = score_trajectories(trajectories, recipe, 100, judge)
    return list(zip(trajectories, parts, strict=True))


def searches(scored: Scored) -> list[tuple[str, str, tuple[str, ...]]]:
    """Source, query and expansion of every node of a run."""
    return [
        (result.node.source, result.node.query, result.expansion)
        for trajectory, _ in scored
        for round_ in trajectory.rounds
        for result in round_.results
    ]


def verdicts(scored: Scored) -> list[tuple[str, str]]:
    """Question and answer of every trajectory that has one."""
    return [(t.question.id, t.answer) for t, _ in scored if t.answer is not None]


def main() -> None:
    """Run agents in threads that share the services."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=None)
    parser.add_argument("--judge", required=True, help="base URL")
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--distinct", action="store_true", help="plans that share no query")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    args = parser.parse_args()
    recipe = make_recipe(args.judge, *args.settings)
    plan = write_distinct_plan if args.distinct else write_plan
    found: list[Scored] = []
    stops: list[str] = []

    def work() -> None:
        try:
            found.append(run_agents(recipe, services, make_questions(args.questions), plan))
        except RsearchError as error:
            stops.append(type(error).__name__)

    with open_run(recipe, args.cache, args.run) as services:
        print("ready", flush=True)
        sys.stdin.readline()
        threads = [threading.Thread(target=work) for _ in range(args.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spend = services.budget.snapshot().total
    result = {
        "stops": stops,
        "searches": [len(searches(scored)) for scored in found],
        "scores": [[parts.answer for _, parts in scored] for scored in found],
        "calls": spend.calls,
        "usd": spend.usd,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
