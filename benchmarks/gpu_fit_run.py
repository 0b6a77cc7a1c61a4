"""One measurement of `gpu_fit.py`, in a process of its own: GRPO steps with rows of a set length.

A model of random weights never closes a tag by itself, so `ForcedPolicy` writes to the token what
the setting says; everything else is what `rsearch train` runs: back end, rollout, search, trainer.
The last line on stdout is the result as JSON.

Usage:  python benchmarks/gpu_fit_run.py describe | build FOLDER SHAPE | measure FOLDER SETTING
                                         (SHAPE and SETTING are JSON)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from rsearch_cli.errors import OutOfMemory
from rsearch_cli.memory.components import PHASES
from rsearch_cli.memory.prediction import predict_memory
from rsearch_cli.memory.shape import find_shape
from rsearch_cli.memory.units import GIB
from rsearch_cli.memory.workload import Row
from rsearch_cli.policy.generation import GREEDY, Generation, Sampling
from rsearch_cli.policy.loading import choose_backend, load_policy
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.protocol.transcript import SEARCH_CLOSE
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import open_services
from rsearch_cli.training.environment import describe_environment
from rsearch_cli.training.grpo import GrpoTraining
from rsearch_cli.types import Question

NEVER = "</never written>"
PLAN = "<search>\nNodes:\nA: report (General)\nEdges:\n</search>"
ANSWER = "<answer> x </answer>"
WORD = " report"
PASSAGE_WORDS = 2500
QUESTIONS = 8


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        name: Its key in the results.
        backend: What runs the weights.
        overrides: Of the recipe, as `--set` takes them.
        recipe: Its name.
        prompt: Tokens before the model's first, about.
        inserted: Tokens of the search results, about.
        written: Tokens that the model writes, exactly.
        steps: Optimiser steps.
        cap_gb: Memory that the allocator may take, in GB; None for all.
    """

    name: str
    backend: str
    overrides: list[str] = field(default_factory=list)
    recipe: str = "hotpot-hard"
    prompt: int = 600
    inserted: int = 900
    written: int = 1024
    steps: int = 3
    cap_gb: float | None = 24.0


class PeakMemory:
    """Peak of CUDA's allocator in each phase of a run, in bytes; zeros without CUDA.

    What follows a phase is told apart by it: after `loss` comes its backward pass, after `rollout`
    the log-probabilities of the reference.
    """

    AFTER: ClassVar = {"load": "start", "rollout": "reference", "loss": "backward"}

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda if torch.cuda.is_available() else None
        self._now = "start"
        self.allocated: dict[str, int] = {}
        self.reserved = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens in a `with` block is this phase."""
        self._enter(name)
        try:
            yield
        finally:
            self._enter(self.AFTER[name])

    def _enter(self, name: str) -> None:
        self.close()
        self._now = name

    def close(self) -> None:
        """Enter the peak since the last call under the phase that it belongs to."""
        if self._cuda is None:
            return
        peak = self._cuda.max_memory_allocated()
        self.allocated[self._now] = max(self.allocated.get(self._now, 0), peak)
        self.reserved = max(self.reserved, self._cuda.max_memory_reserved())
        self._cuda.reset_peak_memory_stats()

    def by_phase(self) -> dict[str, float]:
        """The peaks in GB of 2^30 bytes."""
        return {phase: round(peak / GIB, 2) for phase, peak in self.allocated.items()}


class ForcedPolicy(LocalPolicy):
    """Writes a plan after half of its tokens and an answer after the other half."""

    written = 0
    memory: PeakMemory

    def generate_ids(
        self,
        contexts: Sequence[Sequence[int]],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
        cache: PrefixCache | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Generation]:
        """Sample as many tokens as are left beside the tag, and append it."""
        searching = SEARCH_CLOSE in stops
        half = self.written // 2 if searching else self.written - self.written // 2
        tail = PLAN if searching else ANSWER
        ids = tuple(self.encode(tail))
        room = [half - len(ids)] * len(contexts)
        with self.memory.phase("rollout"):
            states = super().generate_ids(contexts, [NEVER], room, sampling, cache)
        return [Generation(d.token_ids + ids, d.text + tail, "tag") for d in states]

    def _generation_config(self, max_new_tokens: int, sampling: Sampling, **options: Any) -> Any:
        config = super()._generation_config(max_new_tokens, sampling, **options)
        config.min_new_tokens = max_new_tokens
        return config


def main() -> None:
    command, *given = sys.argv[1:]
    if command == "describe":
        print(json.dumps(describe_environment(42, "see each run", "see each run", "bfloat16")))
        return
    folder = Path(given[0])
    if command == "build":
        build_model(folder, json.loads(given[1]))
        return
    setting = Setting(**json.loads(given[1]))
    # Before torch's CUDA is asked for anything: Unsloth wants to be imported first.
    backend, passed_over = choose_backend(setting.backend)
    result = {**asdict(setting), "ran_with": backend, "passed_over": passed_over}
    print(json.dumps({**result, **measure(folder, setting, backend)}))


def build_model(folder: Path, shape: dict[str, Any]) -> None:
    """Save a Qwen2 of random weights in bfloat16, with the nano model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(locate_model("builtin:nano"))
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2Config(**shape, **special, bos_token_id=None, max_position_embeddings=131072)
    config.dtype = torch.bfloat16
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    partial = folder.with_name(f"{folder.name}.partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder)  # a folder with a config is a whole model


class StepRecorder:
    """Keeps the rows and rollouts of a training run, and prints a line for every step."""

    def __init__(self, memory: PeakMemory) -> None:
        self.memory = memory
        self.rows: list[Mapping[str, Any]] = []
        self.samples: list[Mapping[str, Any]] = []

    def on_step(self, row: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]]) -> None:
        self.rows.append(row)
        self.samples.extend(rollouts)
        seconds = {key: row[f"seconds/{key}"] for key in ("generate", "update", "step")}
        line = f"step {row['step']}: {seconds}, GB {self.memory.by_phase()}"
        print(line, file=sys.stderr, flush=True)

    def on_validation(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        pass

    def on_alarm(self, step: int, name: str, reason: str) -> None:
        pass


def measure(folder: Path, setting: Setting, backend: str) -> dict[str, Any]:
    """Train; seconds and memory by part, beside what was planned."""
    import torch

    cuda = torch.cuda.is_available()
    if cuda and setting.cap_gb:
        total = torch.cuda.get_device_properties(0).total_memory / GIB
        torch.cuda.set_per_process_memory_fraction(min(1.0, setting.cap_gb / total))
    memory = PeakMemory()
    steps = StepRecorder(memory)
    rows, samples = steps.rows, steps.samples
    with tempfile.TemporaryDirectory() as work:
        recipe = make_recipe(folder, Path(work), setting, backend)
        try:
            loading = train(recipe, Path(work), setting, steps, memory)
        except (OutOfMemory, RuntimeError) as error:  # ours, torch's, or a kernel's launcher's
            if not isinstance(error, OutOfMemory) and "out of memory" not in str(error).lower():
                raise
            memory.close()
            return {
                "out_of_memory": str(error).splitlines()[0],
                "steps_done": len(rows),
                "phases_allocated_gb": memory.by_phase(),
            }
        row = longest(samples)
        plan = predict_memory(find_shape(str(folder)), recipe, backend, row)
        settled = rows[1:] or rows  # the first step compiles
        written = setting.written * recipe.train.batch_size
        written *= recipe.train.gradient_accumulation_steps
        seconds = {
            key: round(median(r[f"seconds/{key}"] for r in settled), 2)
            for key in ("generate", "search", "reward", "update", "step")
        }
        return {
            "row": asdict(row),
            "halved": bool(rows[-1]["oom/halved"]),
            "seconds": seconds,
            "seconds_to_load": round(loading, 1),
            "seconds_of_each_step": [round(r["seconds/step"], 1) for r in rows],
            "written_tokens_per_second": round(written / seconds["generate"], 1),
            "planned_gb": round(plan.total_gb, 2),
            "planned_parts_gb": {p.name: round(p.size / GIB, 2) for p in plan.components},
            "planned_phases_gb": {phase: round(plan.phase_gb(phase), 2) for phase in PHASES},
            **(read_memory(plan.total_gb, memory) if cuda else {"measured_gb": None}),
        }


def read_memory(planned_gb: float, memory: PeakMemory) -> dict[str, Any]:
    """What the process took of the card at its peak, in GB of 2^30 bytes.

    The allocator's peak, and what the process has of the card beside it, which is CUDA itself.
    """
    import torch

    memory.close()
    beside = process_memory() - torch.cuda.memory_reserved() / GIB
    reserved = memory.reserved / GIB
    measured = reserved + beside
    return {
        "measured_gb": round(measured, 2),
        "reserved_gb": round(reserved, 2),
        "allocated_gb": round(max(memory.allocated.values()) / GIB, 2),
        "phases_allocated_gb": memory.by_phase(),
        "beside_allocator_gb": round(beside, 2),
        "planned_over_measured": round(planned_gb / measured, 3),
    }


def process_memory() -> float:
    """What this process has of the card now, in GB; by the driver, and of all processes without."""
    import torch

    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        listed = ""
    used = dict(line.split(", ") for line in listed.splitlines() if ", " in line)
    mine = used.get(str(os.getpid()), "")
    if mine.isdigit():
        return int(mine) / 1024
    free, total = torch.cuda.mem_get_info()
    return (total - free) / GIB


def make_recipe(folder: Path, work: Path, setting: Setting, backend: str) -> Recipe:
    """The recipe with this model, one local corpus for all sources, and rows of set length."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    per_word = len(tokenizer.encode(WORD * 100, add_special_tokens=False)) / 100
    words = round(setting.inserted / per_word)
    passages = -(-words // PASSAGE_WORDS)
    text = (WORD * (words // passages)).strip()
    corpus = work / "corpus.jsonl"
    lines = [{"id": str(i), "title": "", "text": text} for i in range(passages)]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sources = load_recipe(setting.recipe).recipe.search.sources
    overrides = [
        *(f"search.sources.{name}.type=bm25" for name in sources),
        *(f"search.sources.{name}.corpus={corpus}" for name in sources),
        f"search.top_k={passages}",
        f"search.passage_chars={max(40, len(text))}",
        "reward.answer=f1",
        "evaluate.limit=1",
        f"policy.backend={backend}",
        f"policy.max_seq_length={2 * (setting.prompt + setting.inserted + setting.written)}",
        f"rollout.max_new_tokens={setting.written}",
        f"train.max_steps={setting.steps}",
        "train.save_steps=1000000",
        *setting.overrides,
    ]
    flags = {
        "policy.model": str(folder),
        "protocol.system_prompt": (WORD * round(setting.prompt / per_word)).strip(),
    }
    return load_recipe(setting.recipe, overrides, flags).recipe


def train(
    recipe: Recipe, work: Path, setting: Setting, steps: StepRecorder, memory: PeakMemory
) -> float:
    """The steps, through the product's own policy, rollout, search and trainer.

    Returns:
        Seconds that loading the model took.
    """
    folder = RunFolder(work / "run")
    folder.open(resume=False)
    started = time.perf_counter()
    with memory.phase("load"):
        loaded = load_policy(recipe.policy, recipe.seed)
    loading = time.perf_counter() - started
    policy = ForcedPolicy(loaded.model, loaded.tokenizer, loaded.backend)
    policy.written, policy.memory = setting.written, memory
    questions = [Question(str(i), f"Which report is {i}?", ("x",)) for i in range(QUESTIONS)]
    with open_services(recipe, None, work / "cache") as services:
        sources = open_sources(recipe.search, list, work / "index")
        with PlanExecutor(sources, recipe.search, services) as executor:
            rollout = Rollout(policy, executor, recipe)
            training = GrpoTraining(policy, rollout, questions, recipe, folder, [steps])
            training.trainer.compute_loss = memory.phase("loss")(training.trainer.compute_loss)
            training.run()
    return loading


def longest(samples: Sequence[Mapping[str, Any]]) -> Row:
    """The longest of the rows that were seen, as `trajectories.jsonl` has them."""
    rows = [
        Row(sample["prompt_tokens"], sum(segment["tokens"] for segment in sample["segments"]))
        for sample in samples
    ]
    return max(rows, key=lambda row: row.total)


if __name__ == "__main__":
    main()
