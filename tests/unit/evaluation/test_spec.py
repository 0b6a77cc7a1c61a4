from __future__ import annotations

import pytest

from rsearch_cli.errors import RunFolderError
from rsearch_cli.evaluation.spec import check_judge, scoring_settings
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.runs.evaluation_folder import EvaluationFolder


def test_the_judges_address_is_stored_as_it_was_asked_and_without_a_login(tmp_path, monkeypatch):
    recipe = load_recipe("quickstart", ["reward.answer=judge"]).recipe
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert scoring_settings(recipe)["judge"]["base_url"] == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:secret@localhost:1/v1")
    settings = scoring_settings(recipe)
    assert settings["judge"]["base_url"] == "http://localhost:1/v1"
    # A finished evaluation is read again wherever the environment points now, and not continued.
    folder = EvaluationFolder(tmp_path)
    folder.begin({"methods": ["rsearch"], **settings}, "")
    check_judge(recipe, folder)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:2/v1")
    assert scoring_settings(recipe, folder.read_settings()) == settings
    with pytest.raises(RunFolderError, match=r"judge\.base_url = .*:1/v1"):
        check_judge(recipe, folder)
    # The recipe's own address takes precedence; an evaluation of an earlier version may lack one.
    own = load_recipe("quickstart", ["reward.answer=judge", "reward.judge.base_url=http://a/v1"])
    assert scoring_settings(own.recipe, settings)["judge"]["base_url"] == "http://a/v1"
    former = {"methods": ["rsearch"], "judge": {**settings["judge"], "base_url": None}}
    folder.begin(former, "", overwrite=True)
    assert scoring_settings(recipe, former)["judge"] == former["judge"]
    check_judge(recipe, folder)
