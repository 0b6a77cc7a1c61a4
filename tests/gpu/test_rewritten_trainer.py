"""The GRPO trainer that Unsloth rewrites, which is what every run on CUDA trains with.

Run by `pytest --backend unsloth`. On a machine without a GPU the rewritten trainer runs all the
same, on the model of Unsloth's CPU backend; `rewritten_trainer.py` says how. Only the kernels are
not the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unsloth

SCRIPT = Path(__file__).with_name("rewritten_trainer.py")
# Rows of a batch are packed into one sequence unless that is switched off; Unsloth goes back to
# padded rows by itself where packing changes the result.
LAYOUTS = {"packed": "1", "padded": "0"}


@pytest.fixture(scope="module", params=LAYOUTS)
def seen(request, tmp_path_factory):
    """What was seen in two optimiser steps of two passes each."""
    environment = os.environ | {
        "UNSLOTH_COMPILE_DISABLE": "1",  # compiling takes longer than the training
        "UNSLOTH_GRPO_SEQ_PACKING": LAYOUTS[request.param],
    }
    folder = tmp_path_factory.mktemp(request.param)
    done = subprocess.run(
        [sys.executable, SCRIPT, folder],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"layout": request.param}


def test_the_trainer_is_unsloths(seen):
    assert "UnslothGRPOTrainer" in seen["trainer"]
    rows = {shape[0] for shapes in seen["layouts"] for shape in shapes}
    if seen["device"] == "cpu":
        assert rows == {1 if seen["layout"] == "packed" else 4}


def test_unsloth_changes_no_argument_of_ours(seen):
    assert seen["arguments"] == {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "generation_batch_size": 8,
        "steps_per_generation": 2,
        "num_generations": 4,
        "max_completion_length": 80,
        "mask_truncated_completions": False,
        "loss_type": "dapo",
        "scale_rewards": "group",
        "beta": 0.001,
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
    }


def test_nothing_is_weighed_by_importance(seen):
    """A batch is trained on once: with log-probs of the rollout, its ratios would not all be 1."""
    for loss in seen["losses"]:
        assert not {"old_per_token_logps", "sampling_per_token_logps"} & set(loss["inputs"])
    assert [row["clip_ratio"] for row in seen["rows"]] == [0, 0]


def test_two_steps_change_the_policy(seen):
    first, second = seen["rows"]
    assert first["grad_norm"] > 0 and second["grad_norm"] > 0
    # How far one step leads depends on what was sampled: 2e-8 to 1e-4 were seen.
    assert first["kl"] < 1e-6 and second["kl"] > 10 * first["kl"]


def test_entropy_is_measured_once_a_pass(seen):
    measured = [loss["entropies"] for loss in seen["losses"]]
    assert [len(entropies) for entropies in measured] == [1] * 4
    means = [(a + b) / 2 for (a,), (b,) in (measured[:2], measured[2:])]
    assert all(mean > 0 for mean in means)
    assert [row["entropy"] for row in seen["rows"]] == pytest.approx(means)


def test_inserted_tokens_get_exactly_no_gradient(seen):
    inserted = sum(row["masked_tokens"] for row in seen["rows"])
    written = sum(8 * row["completion_length"] for row in seen["rows"])
    assert inserted > 200
    assert seen["reached"]["inserted"] == [inserted, 0]
    assert seen["reached"]["written"][0] == written
    assert seen["reached"]["written"][1] > 0.5 * written
    assert seen["reached"]["prompt"][1] == seen["reached"]["end of row"][1] == 0


def test_loss_gradient_and_entropy_are_those_of_trl(seen):
    if seen["device"] != "cpu":
        pytest.skip("compared in float32, which is what the CPU trains in")
    agreement = seen["agreement"]
    assert agreement["stock"] == "trl.trainer.grpo_trainer.GRPOTrainer"
    unsloth, trl = agreement["unsloth"], agreement["trl"]
    assert abs(trl["loss"]) > 0.01
    assert unsloth["loss"] == pytest.approx(trl["loss"], rel=1e-4)
    assert agreement["gradient_error"] < 1e-3
    assert unsloth["logged"]["entropy"] == pytest.approx(trl["logged"]["entropy"], rel=1e-3)
