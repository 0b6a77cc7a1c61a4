"""How much of a token's time is launching kernels? Unsloth's decoding with and without CUDA graphs.

Loads a 7B Qwen2 of random weights in 4 bit, as `hotpot-hard` does, and continues 4 prompts of about
600 tokens, and then one, by greedy decoding: kernel by kernel, and with each layer replayed as a
CUDA graph. Unsloth uses graphs only in TRL's own generation and for Llama and Qwen3; here they are
switched on for Qwen2 too, and every token must be the same. `rsearch train` does not use them.
The last line on stdout is one JSON object. Without CUDA a tiny model runs, and there are no graphs.

Usage:  python benchmarks/decode_graphs.py [--model DIR] [--tokens 128]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_fit import SEVEN_B, TINY, call

from rsearch_cli.policy.loading import choose_backend, load_policy
from rsearch_cli.recipe.loading import load_recipe

LENGTHS = (560, 600, 610, 613)
EAGER, GRAPHS = "0", "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="Keep the model here, or take it from here.")
    parser.add_argument("--tokens", type=int, default=128, help="Tokens that each row writes.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or Path(scratch) / "model"
        cuda = json.loads(call("describe"))["device"] != "cpu"
        if not (model / "config.json").exists():
            call("build", model, SEVEN_B if cuda else TINY)
        print(json.dumps(compare(model, arguments.tokens)))


def compare(folder: Path, tokens: int) -> dict[str, Any]:
    """Decode with and without graphs; milliseconds a token, and whether the tokens are the same."""
    choose_backend("unsloth")  # before anything that it patches
    import torch
    from unsloth.models import _decode_graphs

    recipe = load_recipe("hotpot-hard", [], {"policy.model": str(folder)}).recipe
    policy = load_policy(recipe.policy, recipe.seed)
    _decode_graphs._SUPPORTED_MODEL_TYPES.add("qwen2")
    words = random.Random(0)
    prompts = [[words.randrange(5, 1500) for _ in range(length)] for length in LENGTHS]

    def decode(rows: int, switch: str) -> tuple[float, list[tuple[int, ...]]]:
        os.environ["UNSLOTH_DECODE_CUDA_GRAPHS"] = switch
        started = time.perf_counter()
        written = policy.generate_ids(prompts[:rows], ["</never written>"], [tokens] * rows)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ids = [generation.token_ids for generation in written]
        return 1000 * (time.perf_counter() - started) / max(map(len, ids)), ids

    result: dict[str, Any] = {"tokens": tokens}
    for rows in (len(prompts), 1):
        runs = {switch: [decode(rows, switch) for _ in range(3)] for switch in (EAGER, GRAPHS)}
        written = [ids for kind in runs.values() for _, ids in kind]
        result[f"{rows} rows"] = {
            "eager_ms_a_token": [round(ms, 2) for ms, _ in runs[EAGER]],
            "graphs_ms_a_token": [round(ms, 2) for ms, _ in runs[GRAPHS]],
            "same_tokens": all(ids == written[0] for ids in written),
        }
    return result


if __name__ == "__main__":
    main()
