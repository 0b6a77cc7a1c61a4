"""Does the 7B run fit a 24 GB card, how fast is it, and is the memory plan right?

Builds the architecture of a 7B Qwen2 with random weights (no Hub), caps each process to 24 GB and
runs three GRPO steps of `hotpot-hard` over a local corpus: 4 generations, 1,500 tokens of prompt
and results, 1,024 written. Beside it the same with TRL + PEFT + bitsandbytes alone, other settings
to hold the memory plan against, `hotpot-overnight-offline` with nearly its longest rows, and the
longest row that still fits. Each run is a process of its
own (`gpu_fit_run.py`), and the card should have no other. The last line on stdout is one JSON
object; on CUDA it is kept in `benchmarks/results/gpu_fit_CARD.json`, where runs that `--only` skips
stay as they were. Without CUDA a tiny model goes through the same steps on the CPU, and nothing is
kept.

Usage:  python benchmarks/gpu_fit.py [--only NAME ...] [--steps 3] [--cap-gb 24] [--model DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpu_fit_run import Setting

FOLDER = Path(__file__).parent / "results"
RUN = Path(__file__).parent / "gpu_fit_run.py"

SEVEN_B = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
}
TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 2048,
}

ALL_MODULES = "[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]"
OURS, PLAIN, LONGEST = "unsloth", "trl+peft+bitsandbytes", "longest row"
OVERNIGHT = "hotpot-overnight-offline"
SETTINGS = (
    Setting(OURS, "unsloth"),
    Setting(PLAIN, "transformers"),
    Setting(
        "adapter on all modules, r 64",
        "unsloth",
        [f"policy.lora.target_modules={ALL_MODULES}", "policy.lora.r=64"],
    ),
    Setting(
        "two rows an update",
        "unsloth",
        ["train.batch_size=2", "train.gradient_accumulation_steps=2"],
    ),
    Setting(
        "eight rollouts at once",
        "unsloth",
        ["train.num_generations=8", "train.gradient_accumulation_steps=8"],
    ),
    Setting("rows of 4,096 tokens", "unsloth", inserted=2472),
    Setting(
        OVERNIGHT,
        "unsloth",
        # All rewards of the forced rows are equal, so every group would be sampled twice; and two
        # steps are not validated, so none is the best.
        ["train.resample_ties=0", "train.keep=last"],
        recipe=OVERNIGHT,
        prompt=400,
        inserted=2000,
        written=512,
    ),
)


def main() -> None:
    import torch

    cuda = torch.cuda.is_available()
    names = [setting.name for setting in SETTINGS] + [LONGEST]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=names, default=None)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--cap-gb", type=float, default=24.0)
    parser.add_argument("--model", type=Path, help="Keep the model here, or take it from here.")
    arguments = parser.parse_args()
    wanted = arguments.only or (names if cuda else [OURS, PLAIN, LONGEST])
    results = Results(json.loads(call("describe")), kept=cuda)
    runs = results.runs
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or Path(scratch) / "model"
        if not (model / "config.json").exists():
            say(f"building {'a 7B' if cuda else 'a tiny model'} with random weights")
            call("build", model, SEVEN_B if cuda else TINY)
        for setting in SETTINGS:
            if setting.name in wanted:
                adapted = adapt(setting, arguments.steps, arguments.cap_gb, cuda=cuda)
                runs[setting.name] = measure(model, adapted)
                results.write()
        if LONGEST in wanted:
            runs[LONGEST] = measure_longest(model, arguments.cap_gb, cuda=cuda)
            results.write()
    print(json.dumps(results.summarise()))


def adapt(setting: Setting, steps: int, cap_gb: float, *, cuda: bool) -> Setting:
    """The setting as asked for; on a CPU with rows that take seconds."""
    if cuda:
        return replace(setting, steps=steps, cap_gb=cap_gb)
    # On a CPU bitsandbytes repacks weights to generate, and cannot train with them any more.
    overrides = [*setting.overrides, "policy.load_in_4bit=false"]
    tiny = replace(setting, overrides=overrides, prompt=60, inserted=90, written=100, steps=2)
    return replace(tiny, backend="auto" if setting.backend == "unsloth" else setting.backend)


def measure(model: Path, setting: Setting) -> dict[str, Any]:
    """Run one setting in a process of its own."""
    say(f"measuring {setting.name}")
    return json.loads(call("measure", model, asdict(setting)).splitlines()[-1])


def measure_longest(model: Path, cap_gb: float, *, cuda: bool) -> dict[str, Any]:
    """The longest row of one step that fits, by trying; most of it is search results."""
    tried: dict[int, dict[str, Any]] = {}

    def fits(tokens: int) -> bool:
        base = adapt(Setting(f"a row of {tokens}", "unsloth"), 1, cap_gb, cuda=cuda)
        written = min(base.written, 256)
        inserted = tokens - base.prompt - written
        tried[tokens] = measure(model, replace(base, inserted=inserted, written=written, steps=1))
        return "out_of_memory" not in tried[tokens]

    longest = find_longest(fits, *((4096, 65536, 2048) if cuda else (256, 512, 256)))
    told = {str(tokens): run.get("measured_gb") for tokens, run in sorted(tried.items())}
    row = tried[longest]["row"] if longest else None
    return {"tokens": longest, "row": row, "measured_gb_by_tokens": told}


def find_longest(fits: Callable[[int], bool], first: int, most: int, grain: int) -> int:
    """The largest length that fits, to within `grain`: doubled up to `most`, then halved in on."""
    good, bad = 0, None
    length = first
    while bad is None and length <= most:
        if fits(length):
            good, length = length, length * 2
        else:
            bad = length
    while bad is not None and bad - good > grain:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


class Results:
    """All runs on one card.

    Args:
        environment: Card, versions and code.
        kept: Whether there is a file of them; only a GPU's figures are worth keeping.
    """

    def __init__(self, environment: dict[str, Any], *, kept: bool) -> None:
        self.environment = environment
        card = re.sub(r"[^a-z0-9]+", "_", environment["device"].lower())
        self.file = FOLDER / f"gpu_fit_{card}.json" if kept else None
        self.runs: dict[str, Any] = {}
        if self.file and self.file.exists():
            self.runs = json.loads(self.file.read_text())["runs"]

    def write(self) -> None:
        """Write what there is."""
        if self.file:
            FOLDER.mkdir(exist_ok=True)
            self.file.write_text(json.dumps(self.summarise(), indent=2) + "\n")

    def summarise(self) -> dict[str, Any]:
        """All runs, Unsloth against plain, and how far the plan is off."""
        ours, plain = self.runs.get(OURS, {}), self.runs.get(PLAIN, {})
        compared = {}
        if ours.get("ran_with") == "unsloth" and "seconds" in ours and "seconds" in plain:
            compared["speed_ratio"] = round(plain["seconds"]["step"] / ours["seconds"]["step"], 2)
            if ours["measured_gb"]:
                less = 1 - ours["measured_gb"] / plain["measured_gb"]
                compared["memory_saved_share"] = round(less, 3)
        ratios = {
            name: run["planned_over_measured"]
            for name, run in self.runs.items()
            if "planned_over_measured" in run
        }
        within = sum(abs(ratio - 1) <= 0.1 for ratio in ratios.values())
        return {
            "environment": self.environment,
            "unsloth_against_plain": compared,
            "planned_over_measured": ratios,
            "plans_within_10_percent": within,
            "peak_at_most_20_gb": ours["measured_gb"] <= 20 if ours.get("measured_gb") else None,
            "runs": self.runs,
        }


def call(command: str, *given: Any) -> str:
    """Run the other script; its progress stays on stderr."""
    words = [str(word) if isinstance(word, Path) else json.dumps(word) for word in given]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    line = [sys.executable, str(RUN), command, *words]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return done.stdout


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
