"""Pass rates of sampled answers: what is right, and what counts for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from rsearch_cli.evaluation.pass_rates import is_right, measure_pass_rates
from rsearch_cli.recipe.training import RewardConfig


@pytest.mark.parametrize(
    ("reward", "sample", "right"),
    [
        ({"answer": "f1"}, {"f1": 0.8}, True),
        ({"answer": "f1"}, {"f1": 0.79}, False),
        ({"answer": "em"}, {"em": 0.0, "f1": 0.9}, False),
        ({"answer": "judge"}, {"em": 0.0, "judge": 0.8, "judged": True}, True),
        ({"answer": "judge"}, {"em": 1.0, "judge": 0.5, "judged": True}, False),
        ({"answer": "judge"}, {"judge": None, "judged": True}, None),
        ({"answer": "f1"}, {"plan_valid": 0.0}, False),
        ({"answer": "f1", "require_valid_plan": False}, {"plan_valid": 0.0}, True),
        ({"answer": "f1"}, {"failure": "the server did not answer"}, None),
        ({"answer": "f1"}, {"failed_searches": 1}, None),
    ],
)
def test_an_answer_is_right_if_the_reward_says_so(
    reward: dict[str, Any], sample: dict[str, Any], right: bool | None, result: Any
) -> None:
    assert is_right(result("a", **sample), RewardConfig(**reward)) is right


def test_a_rate_is_over_the_scored_samples_of_its_question(result: Any) -> None:
    down = {"failure": "down", "em": 0.0}
    samples = [
        *(result("a", em, sample=n) for n, em in enumerate((1.0, 0.0, 1.0))),
        *(result("b", sample=n, **(down if n else {"em": 0.0})) for n in range(3)),
        *(result("c", sample=n, **down) for n in range(3)),
        *(result("d", sample=n, em=None, f1=None, references=()) for n in range(3)),
    ]
    rates = measure_pass_rates(samples, RewardConfig())
    assert [(row.id, row.rate, row.scored, row.failed) for row in rates] == [
        ("a", 2 / 3, 3, 0),
        ("b", 0.0, 1, 2),
        ("c", None, 0, 3),
        ("d", None, 0, 0),
    ]
    assert (rates[0].question, rates[0].answers) == ("Question a?", ("Paris",))
