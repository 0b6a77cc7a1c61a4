"""The arguments of our trainers."""

from __future__ import annotations

from rsearch_cli.training.trainer import shared_arguments


def test_the_optimiser_is_plain_adamw_without_decay(quickstart, tmp_path) -> None:
    told = shared_arguments(quickstart, 3, tmp_path)
    assert (told["optim"], told["weight_decay"]) == ("adamw_torch_fused", 0.0)
    assert told["max_steps"] == 3
