"""What changes in the plan when vLLM generates the rollouts."""

from __future__ import annotations

import pytest

from rsearch_cli.memory.components import Card
from rsearch_cli.memory.prediction import MemoryPrediction, predict_memory
from rsearch_cli.memory.shape import KNOWN
from rsearch_cli.memory.suggestions import suggest_settings
from rsearch_cli.memory.workload import Row
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe

SHAPE = KNOWN["Qwen/Qwen2.5-7B-Instruct"]
ROW = Row(600, 1924)
ROW_GB = ROW.total * 28 * 2 * 4 * 128 * 2 / 2**30
SERVER = ("rollout.engine=vllm-server", "rollout.vllm_url=http://localhost:8000")


def recipe(*settings: str) -> Recipe:
    return load_recipe("hotpot-hard", settings).recipe


def plan(*settings: str, card: Card | None = None) -> MemoryPrediction:
    return predict_memory(SHAPE, recipe(*settings), "unsloth", ROW, card)


def names(planned: MemoryPrediction) -> set[str]:
    return {part.name for part in planned.components}


def test_vllm_takes_its_share_with_the_weights_and_keeps_it_in_every_phase() -> None:
    card = Card(24.0)
    half = plan("rollout.engine=vllm", card=card)
    assert half.size_gb("vllm") == 12.0
    assert not {"weights", "kv_cache", "prefill"} & names(half)
    third = plan("rollout.engine=vllm", "rollout.vllm_memory_share=0.3", card=card)
    assert half.total_gb - third.total_gb == pytest.approx(24 * 0.2)


def test_without_a_card_vllm_counts_as_what_it_needs_for_all_rows() -> None:
    one, all_rows = plan("rollout.engine=vllm").engine_least_gb, plan("rollout.engine=vllm")
    assert all_rows.size_gb("vllm") == pytest.approx(all_rows.engine_gb)
    rows = all_rows.workload.rollout_rows
    assert all_rows.engine_gb - one == pytest.approx((rows - 1) * ROW_GB)
    # Shared weights in 4 bit; passes and graphs come on top.
    assert one > plan().size_gb("weights") + ROW_GB


def test_a_share_that_holds_no_row_does_not_fit() -> None:
    small = plan("rollout.engine=vllm", "rollout.vllm_memory_share=0.2", card=Card(24.0))
    assert small.total_gb < 24 and small.lacks_share(24.0) and not small.fits(24.0)
    assert plan("rollout.engine=vllm", card=Card(24.0)).fits(24.0)


def test_a_share_that_would_hold_no_row_is_not_suggested() -> None:
    for share, wanted in ((0.5, False), (0.8, True)):
        given = recipe("rollout.engine=vllm", f"rollout.vllm_memory_share={share}")
        told = {str(s) for s in suggest_settings(SHAPE, given, "unsloth", Card(24.0))}
        assert (f"--set rollout.vllm_memory_share={share / 2:g}" in told) is wanted


def test_a_server_elsewhere_leaves_only_training_on_the_card() -> None:
    local, served = plan(), plan(*SERVER)
    assert names(local) - names(served) == {"kv_cache", "prefill"}
    assert served.total_gb < local.total_gb
    # The base model in 16 bit.
    assert served.engine_least_gb > SHAPE.parameters * 2 / 2**30 + ROW_GB


def test_a_server_on_the_same_card_is_added() -> None:
    apart, together = plan(*SERVER), plan(*SERVER, card=Card(80.0, has_server=True))
    assert together.total_gb - apart.total_gb == pytest.approx(together.engine_gb)
