"""What our loop costs beside the model: in a training step, and by searching between two phases.

Run it as `python benchmarks/rollout_overhead.py --model FOLDER` where rsearch is installed; without
a folder it takes the nano model, whose forward passes are too short to say much. What the model
writes is forced, token by token, to a plan and an answer, so that every row searches and all
variants write the same; everything else is the real path, with questions, search and reward of the
world. Two figures come out:

- overhead: seconds in rollout and reward that no forward pass accounts for, as a share of a step of
  GRPO. Searches are local, so nothing of it is waiting on a network; the loop of transformers
  around the forward passes counts in full.
- ratio: generation in two phases, plans read and results inserted between them, against one
  uninterrupted generation that writes as many tokens; with keys and values kept between the phases,
  and without. The uninterrupted one reads the results at once, behind the prompt; against one that
  never reads them the ratio is given as well.

The variants take turns, so that whatever else the machine does falls on all of them; on a busy
machine without a GPU, `--clock cpu` counts the seconds of this process alone. The last line
on stdout is one JSON object; it also goes to `benchmarks/results/rollout_overhead.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsearch_cli.policy.generation import GREEDY
from rsearch_cli.policy.loading import load_policy
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.stopping import TagStop
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.runs.files import METRICS
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.search.executor import open_executor
from rsearch_cli.services.runtime import open_services
from rsearch_cli.training.grpo import GrpoTraining
from rsearch_cli.types import NodeResult, Passage, Question, Trajectory

RESULTS = Path(__file__).parent / "results" / "rollout_overhead.json"

SETTINGS = (
    "policy.backend=transformers",
    "policy.load_in_4bit=false",
    "policy.max_seq_length=2048",
    "questions.world.train_regions=4",
    "questions.world.held_out_regions=2",
    "search.top_k=3",
    "search.passage_chars=400",
    "train.batch_size=1",
    "rollout.max_new_tokens=400",
    "cache.mode=refresh",
)

THOUGHT = "First I need the place, then the person who is in charge there. "
PASSAGE = (
    "The town lies on the river, a day's walk from the coast, and has been the seat of the company "
    "since its second founding. Its mayor is elected for seven years, in autumn. "
)


class Script:
    """A logits processor that leaves each row one choice: the next token of its script."""

    def __init__(self, rows: list[list[int]], width: int) -> None:
        self.rows, self.width = rows, width

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        at = input_ids.shape[1] - self.width
        chosen = torch.tensor([[row[min(at, len(row) - 1)]] for row in self.rows])
        forced = torch.full_like(scores, float("-inf"))
        return forced.scatter(1, chosen.to(scores.device), 0.0)


class Forced:
    """Has a policy write scripts: plan and answer of each row, cut where the policy is stopped."""

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy = policy
        self.generate, self.model_generate = policy.generate_ids, policy.model.generate
        self.next_rows: list[list[int]] = []

    def plan(self, row: int) -> list[int]:
        """A plan behind a thought; rows think for different lengths of time."""
        text = (
            f"<think> {THOUGHT * (2 + row % 3)}</think>\n<search>\nNodes:\nA: seat of the company "
            f"{row} (General)\nB: mayor of the town (News)\nEdges:\nA -> B\n</search>"
        )
        return self.policy.encode(text)

    def answer(self, row: int) -> list[int]:
        text = f"<think> {THOUGHT * (1 + row % 2)}</think>\n<answer> the mayor </answer>"
        return self.policy.encode(text)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the policy's own `generate_ids` writes the scripts."""
        policy = self.policy

        def generate(contexts, stops, limits, sampling=GREEDY, cache=None, on_text=None):
            script = self.plan if len(stops) == 2 else self.answer
            self.next_rows = [script(row) for row in range(len(contexts))]
            return self.generate(contexts, stops, limits, sampling, cache)

        policy.generate_ids = generate
        policy.model.generate = self._model_generate
        try:
            yield
        finally:
            del policy.generate_ids, policy.model.generate

    def write(self, contexts: list[list[int]], scripts: list[list[int]]) -> None:
        """One uninterrupted generation of the scripts."""
        self.next_rows = scripts
        self.policy.model.generate = self._model_generate
        limits = [len(script) for script in scripts]
        try:
            written = self.generate(contexts, ["</answer>"], limits)
        finally:
            del self.policy.model.generate
        assert [list(w.token_ids) for w in written] == scripts

    def _model_generate(self, **inputs: Any) -> Any:
        rows, self.next_rows = self.next_rows, []
        if not rows:  # the check of the adapter samples freely
            return self.model_generate(**inputs)
        script = Script(rows, inputs["input_ids"].shape[1])
        return self.model_generate(**inputs, logits_processor=[script])


class Canned:
    """A search layer that answers at once; every other plan finds twice as much."""

    def submit(self, plans: Any, on_result: Any = None) -> Future[list[tuple[NodeResult, ...]]]:
        found: Future[list[tuple[NodeResult, ...]]] = Future()
        found.set_result(self.execute(plans))
        return found

    def cancel(self, grace: float = 0.0) -> None:
        """Nothing is ever in flight."""

    def execute(self, plans: Any, on_result: Any = None) -> list[tuple[NodeResult, ...]]:
        texts = [PASSAGE * (1 + row % 2) for row in range(len(plans))]
        return [
            tuple(NodeResult(n, passages=(Passage("1", "Town", text),) * 2) for n in plan.nodes)
            for text, plan in zip(texts, plans, strict=True)
        ]


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Clock:
    """Adds up the seconds that functions take, by name."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.seconds: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(name, self.now() - started)

        return call


class StepClock:
    """Notes the clock after every step of a training run."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.marks: list[dict[str, float]] = []

    def on_step(self, row: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]]) -> None:
        self.marks.append({**self.clock.seconds, "step": self.clock.now()})

    def on_validation(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        pass

    def on_alarm(self, step: int, name: str, reason: str) -> None:
        pass


def main() -> None:
    args = parse_args()
    load_before = os.getloadavg()
    settings = [*SETTINGS, f"train.gradient_accumulation_steps={args.rows}"]
    settings += [f"train.num_generations={args.rows}", f"train.max_steps={args.steps + 1}"]
    if args.model != "builtin:nano":
        settings.append("protocol.system_prompt=null")
    recipe = load_recipe("quickstart", settings, {"policy.model": args.model}).recipe
    forced = Forced(load_policy(recipe.policy, recipe.seed))
    result = {
        "model": Path(args.model).name,
        "rows": args.rows,
        "clock": args.clock,
        **measure_phases(recipe, forced, args.rows, args.repeats, CLOCKS[args.clock]),
        **measure_step(recipe, forced, Clock(CLOCKS[args.clock])),
        "cpu_cores": os.cpu_count(),
        "threads": thread_count(),
        "load": [round(load_before[0], 2), round(os.getloadavg()[0], 2)],
    }
    if args.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="builtin:nano", help="folder of an instruct model")
    parser.add_argument("--rows", type=int, default=4, help="completions of a step (default 4)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each variant (default 5)")
    parser.add_argument("--steps", type=int, default=3, help="timed training steps (default 3)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--save", action="store_true", help="write the JSON file as well")
    return parser.parse_args()


def thread_count() -> int:
    import torch

    return torch.get_num_threads()


def measure_phases(
    recipe: Recipe, forced: Forced, rows: int, repeats: int, now: Callable[[], float]
) -> dict[str, Any]:
    """Seconds of two-phase and of uninterrupted generation, taken in turns; medians and ratios."""
    questions = [Question(str(i), f"Who leads the town of company {i}?", ()) for i in range(rows)]

    def two_phases(reuse: bool) -> list[Trajectory]:
        update = {"reuse_cache": reuse}
        changed = recipe.model_copy(update={"rollout": recipe.rollout.model_copy(update=update)})
        with forced.in_place():
            return Rollout(forced.policy, Canned(), changed).run(questions, GREEDY)

    example = two_phases(True)
    prompts = [list(t.prompt_ids) for t in example]
    inserted = [list(t.segments[1].token_ids) for t in example]
    scripts = [[i for s in t.segments[::2] for i in s.token_ids] for t in example]
    variants: dict[str, Callable[[], object]] = {
        "two_phases": lambda: two_phases(True),
        "two_phases_without_reuse": lambda: two_phases(False),
        "uninterrupted": lambda: forced.write(
            [p + r for p, r in zip(prompts, inserted, strict=True)], scripts
        ),
        "uninterrupted_without_results": lambda: forced.write(prompts, scripts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats):
        names = list(variants)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = now()
            variants[name]()
            seconds[name].append(now() - started)
            print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    two, plain = medians["two_phases"], medians["two_phases_without_reuse"]
    return {
        "ratio": round(two / medians["uninterrupted"], 3),
        "ratio_without_reuse": round(plain / medians["uninterrupted"], 3),
        "ratio_to_one_without_results": round(two / medians["uninterrupted_without_results"], 3),
        "prompt_tokens": [len(p) for p in prompts],
        "result_tokens": [len(r) for r in inserted],
        "written_tokens": [len(s) for s in scripts],
        "generation_seconds": {name: round(value, 3) for name, value in medians.items()},
        "repeats": repeats,
    }


def measure_step(recipe: Recipe, forced: Forced, clock: Clock) -> dict[str, Any]:
    """A few steps of GRPO; the first one warms up and does not count."""
    policy = forced.policy
    steps = StepClock(clock)
    with tempfile.TemporaryDirectory() as name, open_services(recipe, None) as services:
        questions = open_question_set(recipe.questions, recipe.seed)
        with open_executor(recipe, questions.corpus, services) as executor:
            folder = RunFolder(Path(name) / "run")
            folder.open(resume=False)
            rollout = Rollout(policy, executor, recipe)
            training = GrpoTraining(
                policy,
                rollout,
                questions.load("train", 8),
                recipe,
                folder,
                [steps],
            )
            trainer = training.trainer
            trainer.rollout_func = clock.timed("rollout_and_reward", training.roll_out)
            training.score = clock.timed("reward", training.score)
            training.finish_step = clock.timed("record", training.finish_step)
            rollout._insert_results = clock.timed("search", rollout._insert_results)
            with forced.in_place(), watched(clock, training, policy):
                training.run()
            rows = folder.read_rows(METRICS)
    first, last = steps.marks[0], steps.marks[-1]
    seconds = {name: last.get(name, 0.0) - first.get(name, 0.0) for name in last}
    total = seconds["step"]
    ours = seconds["rollout_and_reward"] - seconds["forward"]
    seconds["other"] = ours - sum(seconds[n] for n in ("generation_loop", "search", "reward"))
    assert all(row["searches"] for row in rows), "every step must search"
    return {
        "overhead": round(ours / total, 4),
        "steps": len(rows) - 1,
        "seconds_per_step": round(total / (len(rows) - 1), 2),
        "overhead_parts": {
            name: round(seconds[name] / total, 4)
            for name in ("generation_loop", "tag_stop", "search", "reward", "other")
        },
    }


@contextmanager
def watched(clock: Clock, training: GrpoTraining, policy: LocalPolicy) -> Iterator[None]:
    """Time the model's forward passes inside `generate`, and the loop around them."""
    model = policy.model.get_base_model()
    run_model, forward, call = policy._run_model, model.forward, TagStop.__call__

    def timed_run(*args: Any, **options: Any) -> Any:
        model.forward = clock.timed("forward", forward)
        before = clock.seconds.get("forward", 0.0)
        started = clock.now()
        try:
            return run_model(*args, **options)
        finally:
            del model.forward
            inside = clock.seconds["forward"] - before
            clock.add("generation_loop", clock.now() - started - inside)

    timed_stop = clock.timed("tag_stop", call)
    policy._run_model = timed_run
    TagStop.__call__ = lambda self, *args, **kwargs: timed_stop(self, *args, **kwargs)
    try:
        yield
    finally:
        del policy._run_model
        TagStop.__call__ = call


if __name__ == "__main__":
    main()
