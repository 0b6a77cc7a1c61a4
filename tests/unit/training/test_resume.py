from __future__ import annotations

from pathlib import Path

import pytest

from rsearch_cli.evaluation.spec import EvalSpec, describe_settings
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.training.resume import without_limits


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ("search.service.retries=9", True),
        ("search.read_service.timeout_seconds=60", True),
        ("search.usd_per_search=0.005", True),
        ("search.sources.News.usd_per_search=0.005", True),
        ("sft.teacher.url=http://localhost:8000/v1", True),
        ("sft.teacher.usd_per_million_output_tokens=30", True),
        ("search.read_top=2", False),
        ("search.sources.News.type=exa", False),
    ],
)
def test_limits_and_prices_may_change_and_what_is_found_may_not(setting: str, same: bool) -> None:
    before, now = load_recipe("quickstart").recipe, load_recipe("quickstart", [setting]).recipe
    assert (without_limits(before) == without_limits(now)) is same
    stored, given = (
        describe_settings(
            EvalSpec(recipe, None, ("rsearch",), "test", 1, 1, Path("evals")), (), {}, {}
        )
        for recipe in (before, now)
    )
    assert (stored == given) is same


def test_a_resumed_run_keeps_its_teacher() -> None:
    named = ("stage=sft", "sft.traces=teacher", "sft.teacher.url=http://localhost:8000/v1")
    before = load_recipe("quickstart", [*named, "sft.teacher.model=wise"]).recipe
    for setting in ("sft.teacher.model=wiser", "sft.teacher.samples=4", "sft.min_f1=0.5"):
        now = load_recipe("quickstart", [*named, "sft.teacher.model=wise", setting]).recipe
        assert without_limits(before) != without_limits(now), setting
