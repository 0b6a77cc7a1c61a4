"""The plan of a run with Unsloth against its functions, run on tensors without data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rsearch_cli.memory.components import ALWAYS, PHASES
from rsearch_cli.memory.prediction import MemoryPrediction, predict_memory
from rsearch_cli.memory.shape import adapted_modules, find_shape
from rsearch_cli.memory.units import GIB
from rsearch_cli.recipe.loading import load_recipe

pytestmark = pytest.mark.unsloth

SCRIPT = Path(__file__).with_name("unsloth_memory.py")
EVERY_MODULE = "policy.lora.target_modules=all-linear"
CASES = {
    "hotpot-hard": ("hotpot-hard", None),
    # All layers are alike, and two of them show what one adds.
    "hotpot-hard, 2 layers": ("hotpot-hard", 2),
    "hotpot-8gb, 2 layers": ("hotpot-8gb", 2),
    "hotpot-12gb, 2 layers": ("hotpot-12gb", 2),
    "hotpot-48gb, 2 layers": ("hotpot-48gb", 2),
    "hotpot-80gb, 2 layers": ("hotpot-80gb", 2),
    "MLP adapted, with dropout, 2 layers": ("hotpot-hard", 2, EVERY_MODULE),
    "hotpot-overnight, 2 layers": ("hotpot-overnight", 2),
}


def describe(name: str, layers: int | None, *settings: str):
    """What the simulation is given, and the plan."""
    recipe = load_recipe(name, settings).recipe
    shape = find_shape(recipe.policy.model)
    shape = replace(shape, layers=layers) if layers else shape
    plan = predict_memory(shape, recipe, "unsloth")
    lora, work = recipe.policy.lora, plan.workload
    case = {
        "shape": asdict(shape),
        "four_bit": work.four_bit,
        "r": lora.r,
        "dropout": lora.dropout,
        "modules": adapted_modules(lora),
        "rollout_rows": work.rollout_rows,
        "update_rows": work.update_rows,
        **asdict(work.row),
    }
    return case, plan


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> dict[str, tuple[MemoryPrediction, dict[str, int]]]:
    """The plan of each case, and what lived in each phase of its simulation."""
    described = {name: describe(*given) for name, given in CASES.items()}
    cases = json.dumps([case for case, _ in described.values()])
    done = subprocess.run(
        [sys.executable, SCRIPT, cases],
        env=os.environ | {"TORCHDYNAMO_DISABLE": "1"},
        cwd=tmp_path_factory.mktemp("unsloth"),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    peaks = json.loads(done.stdout.splitlines()[-1])
    return {n: (plan, p) for (n, (_, plan)), p in zip(described.items(), peaks, strict=True)}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", CASES)
def test_the_tensors_of_a_phase_are_within_five_percent_of_the_plan(simulated, name, phase):
    plan, peaks = simulated[name]
    tensors = sum(
        part.size
        for part in plan.components
        if part.name not in ("cuda", "slack") and {ALWAYS, phase} & set(part.phases)
    )
    assert tensors / GIB == pytest.approx(peaks[phase] / GIB, rel=0.05)
