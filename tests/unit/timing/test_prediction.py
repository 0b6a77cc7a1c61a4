"""The time of a run: what it depends on, and that it agrees with what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rsearch_cli.errors import UsageError
from rsearch_cli.memory.shape import KNOWN
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.timing.devices import DEVICES, find_device, match_card
from rsearch_cli.timing.lengths import Lengths, Turn, expect_lengths, measure_lengths
from rsearch_cli.timing.prediction import (
    BEFORE,
    GENERATE,
    REWARD,
    SEARCH,
    UPDATE,
    VALIDATIONS,
    Services,
    TimeModel,
)
from rsearch_cli.workflows.estimate_time import FASTER, SLOWER

SEVEN = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]
ALONE = Services(0.0, 10.0, 32, judged=False)
FOLDER = Path(__file__).parents[3] / "benchmarks/results"
RESULTS, H100 = FOLDER / "gpu_fit_nvidia_h200.json", FOLDER / "gpu_check_nvidia_h100_80gb_hbm3.json"


def model(*settings: str, card: str = "rtx-4090", services: Services = ALONE) -> TimeModel:
    recipe = load_recipe("hotpot-hard", settings).recipe
    lengths = expect_lengths(recipe, nodes=3)
    return TimeModel(SEVEN, recipe, "unsloth", DEVICES[card], lengths, 100, services)


def test_the_step_that_was_measured_on_an_h200_is_predicted() -> None:
    run = json.loads(RESULTS.read_text())["runs"]["unsloth"]
    half = Turn((run["written"] / 2,), 1.0)
    lengths = Lengths(run["row"]["prompt"], (half, half), run["inserted"], nodes=1.0)
    step = replace(model(card="h200"), lengths=lengths).step()
    # Decoding is one of the two runs that the host's speed was read from; the update is not.
    assert step[GENERATE] == pytest.approx(run["seconds"]["generate"], rel=0.02)
    assert step[UPDATE] == pytest.approx(run["seconds"]["update"], rel=0.2)


def test_the_range_reaches_the_generation_that_was_measured_on_an_h100() -> None:
    measured = json.loads(H100.read_text())
    for recipe, key, inserted, written in (
        ("hotpot-hard", "unsloth", 900, 1024),
        ("hotpot-overnight-offline", "hotpot-overnight-offline", 2000, 512),
    ):
        half = Turn((written / 2,), 1.0)
        lengths = Lengths(measured[key]["row"]["prompt"], (half, half), inserted, nodes=1.0)
        settled = load_recipe(recipe, ["train.resample_ties=0", "train.keep=last"]).recipe
        step = replace(model(card="h100"), recipe=settled, lengths=lengths).step()
        took = measured[key]["first_steps"][0]["generate"]
        assert step[GENERATE] * FASTER < took < step[GENERATE] * SLOWER


def test_a_faster_card_is_faster_where_the_card_counts() -> None:
    slow, fast = (model(card=card).step() for card in ("rtx-3090", "h100"))
    assert slow[UPDATE] > 3 * fast[UPDATE]
    # The host starts one operation after the other on either.
    assert fast[GENERATE] < slow[GENERATE] < 1.5 * fast[GENERATE]


def test_a_batch_generates_until_its_longest_row_has_ended() -> None:
    turn = Turn((10.0, 20.0, 30.0), 1.0)
    assert turn.longest(1) == pytest.approx(20.0)
    # Of two rows: 5/9 that one has 30, 3/9 that the longest has 20, 1/9 that both have 10.
    assert turn.longest(2) == pytest.approx(5 / 9 * 30 + 3 / 9 * 20 + 1 / 9 * 10)
    assert turn.longest(100) == pytest.approx(30.0)


def test_evaluations_follow_their_settings() -> None:
    once, twice = (
        model(f"evaluate.sampled={sampled}").seconds()[BEFORE] for sampled in ("false", "true")
    )
    assert twice == pytest.approx(2 * once)
    # Before step 1, and after steps 50 and 100.
    every = ("evaluate.every_steps=50", "evaluate.slice=100")
    assert model(*every).seconds()[VALIDATIONS] == pytest.approx(3 * once)
    assert model().seconds()[VALIDATIONS] == 0


def test_searches_wait_for_the_service_unless_another_batch_generates_meanwhile() -> None:
    outside = Services(1.0, 10.0, 32, judged=True)
    assert (model().step()[SEARCH], model().step()[REWARD]) == (0.0, 0.0)
    step = model(services=outside).step()
    assert (step[SEARCH], step[REWARD]) == (2.0, 1.0)
    # 4 rows x 3 nodes at one request in two seconds.
    slow = replace(outside, requests_per_second=0.5)
    assert model(services=slow).step()[SEARCH] == pytest.approx(24.0)
    assert model("rollout.micro_batch=2", services=outside).step()[SEARCH] == 0.0


def test_groups_that_tie_are_drawn_again() -> None:
    once = model().step()
    again = replace(model("train.resample_ties=2"), ties=0.5).step()
    assert again[GENERATE] == pytest.approx(1.75 * once[GENERATE])
    assert again[UPDATE] == once[UPDATE]


def test_longer_rows_take_longer() -> None:
    times = [
        replace(m, lengths=expect_lengths(m.recipe, 3, share)).step()
        for m in (model(),)
        for share in (0.3, 0.6, 1.0)
    ]
    for part in (GENERATE, UPDATE):
        assert times[0][part] < times[1][part] < times[2][part]


def rollout(*segments: tuple[str, int], searched: bool = True) -> dict[str, object]:
    parts = [{"author": author, "tokens": tokens} for author, tokens in segments]
    rounds = [{"results": [{}, {}]}] if searched else []
    return {"prompt_tokens": 50, "segments": parts, "rounds": rounds}


def test_lengths_are_read_from_rollouts() -> None:
    lengths = measure_lengths(
        [
            rollout(("model", 30), ("system", 100), ("model", 10), ("system", 1)),
            rollout(("model", 50), ("system", 1), searched=False),
        ]
    )
    assert lengths == Lengths(50, (Turn((30.0, 50.0), 1.0), Turn((10.0,), 0.5)), 100.0, 2.0)
    assert lengths.completion == 40 + 0.5 * 10 + 0.5 * 100
    assert measure_lengths([]) is None


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4080", None),
    ],
)
def test_cards_are_known_by_the_names_that_drivers_give(told: str, name: str | None) -> None:
    assert match_card(told) is (None if name is None else DEVICES[name])


@pytest.mark.parametrize("spelled", ["rtx-4090", "RTX4090", "rtx 4090", "rtx_4090", "4090"])
def test_the_name_of_a_card_may_be_spelled_otherwise(spelled: str) -> None:
    assert find_device(spelled) is DEVICES["rtx-4090"]


@pytest.mark.parametrize("other", ["", "rtx", "rtx-4080", "a10", "rtx-4090-super"])
def test_another_card_is_not_taken_for_a_known_one(other: str) -> None:
    with pytest.raises(UsageError, match="known cards: rtx-3090, rtx-4090, a100, h100, h200, and"):
        find_device(other)
