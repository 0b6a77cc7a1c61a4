"""Where a run is published: the caller's repository, or that of the run's recipe."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import PublishError
from rsearch_cli.publishing.upload import Target
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.workflows.publish import find_target


def test_the_repository_of_the_recipe_takes_the_caller_s_options() -> None:
    recipe = load_recipe("quickstart", ["hub.model_id=me/agent"]).recipe
    assert find_target(recipe) == Target("me/agent")
    assert find_target(recipe, private=True, create_pr=True) == Target(
        "me/agent", private=True, create_pr=True
    )
    assert find_target(recipe, "you/other", revision="v1") == Target("you/other", revision="v1")


@pytest.mark.parametrize("private", [False, True])
def test_a_recipe_can_ask_for_a_private_repository(private: bool) -> None:
    recipe = load_recipe("quickstart", ["hub.model_id=me/agent", "hub.private=true"]).recipe
    assert find_target(recipe, private=private).private
    assert find_target(recipe, "you/other", private=private).private is private


def test_without_a_repository_there_is_nothing_to_publish_to() -> None:
    with pytest.raises(PublishError, match="add --hub-model-id USER/NAME"):
        find_target(load_recipe("quickstart").recipe)
