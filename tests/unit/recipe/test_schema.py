from __future__ import annotations

import pytest
from pydantic import BaseModel

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.flags import schema_fields
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.services import ServiceConfig
from rsearch_cli.recipe.training import WeightsConfig

SECTIONS = [
    section
    for base in BaseConfig.__subclasses__()
    for section in (base, *base.__subclasses__())
    if section.__module__.startswith("rsearch_cli.recipe.")
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_section_and_field_is_documented(section: type[BaseModel]) -> None:
    assert section.__doc__
    undocumented = [name for name, f in section.model_fields.items() if not f.description]
    assert undocumented == []


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_section_refuses_unknown_keys(section: type[BaseModel]) -> None:
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["strict"] is True


def test_the_walk_over_the_schema_reaches_every_section() -> None:
    keys = schema_fields()
    assert {"seed", "policy.lora.r", "search.sources.*.corpus", "questions.world.seed"} <= set(keys)
    again = len(WeightsConfig.model_fields) + 5 * len(ServiceConfig.model_fields)
    assert len(keys) == sum(len(section.model_fields) for section in SECTIONS) + again


def test_the_best_adapter_can_only_be_kept_where_there_is_a_validation() -> None:
    with pytest.raises(RecipeValueError, match=r"train\.keep best needs evaluate\.every_steps"):
        load_recipe("quickstart", ["train.keep=best"])
    recipe = load_recipe("quickstart", ["train.keep=best", "evaluate.every_steps=5"]).recipe
    assert (recipe.train.keep, recipe.evaluate.slice) == ("best", 50)


def test_dr_grpo_does_not_go_with_the_deviation_of_a_group() -> None:
    with pytest.raises(RecipeValueError, match=r"train\.?.*dr_grpo .*set scale_rewards to none"):
        load_recipe("quickstart", ["train.loss_type=dr_grpo"])
    load_recipe("quickstart", ["train.loss_type=dr_grpo", "train.scale_rewards=none"])
