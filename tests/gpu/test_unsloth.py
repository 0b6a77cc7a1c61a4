"""The real Unsloth: on a GPU, or on the CPU backend that 2026.10.9 and later have.

Run by `pytest --backend unsloth`, in a process of its own: Unsloth patches transformers and trl
for good.
"""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

pytestmark = pytest.mark.unsloth

SMALL = [
    "--recipe", "quickstart",
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", "policy.backend=unsloth",
    "--set", "train.batch_size=8",
    "--set", "evaluate.limit=4",
    "--num-generations", "4",
    "--max-steps", "2",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def unsloth():
    """Unsloth, imported before anything it patches."""
    from rsearch_cli.compat.unsloth import start_unsloth

    reason = start_unsloth()
    if reason:
        pytest.fail(f"this environment exists to run Unsloth, and {reason}")


@pytest.mark.parametrize("four_bit", [False, True], ids=["16-bit", "4-bit"])
def test_two_steps_through_fast_language_model(tmp_path, four_bit):
    from rsearch_cli.app import app

    width = ["--set", f"policy.load_in_4bit={str(four_bit).lower()}"]
    precision = ["--set", "policy.dtype=bfloat16"]
    run = [
        "train",
        "--recipe",
        "quickstart",
        *SMALL,
        *width,
        *precision,
        "--force",  # in 4 bits on a CPU too
        "--output-dir",
        str(tmp_path / "run"),
    ]
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["backend"] == "unsloth"
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        assert row["masked_tokens"] > 0
        assert row["entropy"] > 0
        assert row["grad_norm"] is not None
    assert len(rows) == 2
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


def test_a_batch_gives_what_each_row_gives_alone(quickstart):
    from rsearch_cli.policy.loading import load_policy

    recipe = quickstart.policy.model_copy(update={"backend": "unsloth"})
    policy = load_policy(recipe, seed=0)
    assert policy.backend == "unsloth"
    questions = ["Where was Giszos Nenfu born?", "Who wrote The Hedan Lantern?", "Who leads Klil?"]
    prompts = [policy.render([{"role": "user", "content": q}]).token_ids for q in questions]
    fail_together = policy.generate_ids(prompts, ["</search>"], [40] * 3)
    alone = [policy.generate_ids([p], ["</search>"], [40])[0] for p in prompts]
    assert fail_together == alone


def test_a_perturbed_adapter_changes_what_is_sampled(quickstart):
    """Some builds have sampled from the base model and left the adapter out, without a word."""
    import torch

    from rsearch_cli.policy.loading import load_policy

    recipe = quickstart.policy.model_copy(update={"backend": "unsloth"})
    policy = load_policy(recipe, seed=0)
    prompt = policy.render([{"role": "user", "content": "Where was Giszos Nenfu born?"}]).token_ids
    before = policy.generate_ids([prompt], ["</search>"], [40])
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.2)
    assert policy.generate_ids([prompt], ["</search>"], [40]) != before


def test_a_kept_cache_changes_nothing_that_is_written(quickstart):
    """Where Unsloth hands no cache back that could be kept, the two paths are one."""
    from rsearch_cli.policy.loading import load_policy
    from rsearch_cli.policy.prefix_cache import PrefixCache

    recipe = quickstart.policy.model_copy(update={"backend": "unsloth"})
    policy = load_policy(recipe, seed=0)
    questions = ["Where was Giszos Nenfu born?", "Who wrote The Hedan Lantern?", "Who leads Klil?"]
    prompts = [policy.render([{"role": "user", "content": q}]).token_ids for q in questions]
    block = policy.encode("\n<result>\nA: Giszos Nenfu was born in Klil.\n</result>\n")

    def two_phases(cache):
        plans = policy.generate_ids(prompts, ["</search>"], [40] * 3, cache=cache)
        contexts = [[*p, *g.token_ids, *block] for p, g in zip(prompts, plans, strict=True)]
        return plans + policy.generate_ids(contexts[1:], ["</answer>"], [40] * 2, cache=cache)

    assert two_phases(PrefixCache()) == two_phases(None)


def test_the_adapter_check_passes(quickstart):
    from rsearch_cli.policy.adapter_check import check_adapter
    from rsearch_cli.policy.loading import load_policy

    recipe = quickstart.policy.model_copy(update={"backend": "unsloth"})
    check_adapter(load_policy(recipe, seed=0))
