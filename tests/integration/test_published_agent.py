"""What a stranger does with a published agent: the card's own code, and rsearch by its name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub import TOKEN
from hub_repository import Repo
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.policy.generation import GREEDY
from rsearch_cli.policy.loading import load_policy
from rsearch_cli.policy.resolve import locate_model, published_recipe
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.trust import remember_own
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.runtime import Services

REPO = "me/agent"


def push(run: Path, *options: str) -> None:
    result = CliRunner().invoke(app, ["push", str(run), "--hub-model-id", REPO, *options])
    assert result.exit_code == 0, result.output


def perturb(adapter: Path) -> None:
    """Make the adapter's effect too large to be missed."""
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v + 0.003 for k, v in weights.items()}, adapter / "adapter_model.safetensors")


def run_as_stranger(code: str, server, tmp_path: Path) -> str:
    """Run code in a process of its own that has neither rsearch nor any cache."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PYTHONPATH"))}
    environment = kept | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "empty-cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recipe_on_a_folder(run: Path, server, folder: Path) -> None:
    """Let the run have started from a model folder whose content is also on the Hub."""
    shutil.copytree(locate_model("builtin:nano"), folder)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("builtin:nano", str(folder)))
    remember_own(recipe.read_text())
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.repos["maker/base"] = Repo()
    server.repos["maker/base"].commit("main", files)


def _first_code(text: str) -> str:
    found = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)
    assert found
    return found.group(1)


@pytest.mark.parametrize(
    ("what", "heading"),
    [
        ("adapter", "transformers and PEFT"),
        ("adapter --base-model maker/base", "transformers and PEFT"),
        ("merged", "transformers with the merged weights"),
    ],
)
def test_the_code_on_the_card_runs_as_it_stands(hub_server, run, tmp_path, what, heading):
    perturb(run / "adapter")
    if "maker/base" in what:
        recipe_on_a_folder(run, hub_server, tmp_path / "mine")
    push(run, "--what", *what.split())
    card = hub_server.repos[REPO].files()["README.md"].decode()
    usage = card.split(f"### {heading}")[1]
    load = _first_code(usage)
    ask = _first_code(card.split("up to the search plan")[1])
    assert len(load.splitlines()) <= 4
    question = "Who wrote The Amber Lamp?"
    shown = run_as_stranger(
        f"{load}\n{ask.replace('YOUR QUESTION', question)}", hub_server, tmp_path
    )

    recipe = load_recipe(str(run / "recipe.yaml"), [f"policy.model={REPO}"]).recipe
    policy = load_policy(recipe.policy, seed=0)
    ids = policy.render([{"role": "user", "content": question}]).token_ids
    told = policy.generate_ids([ids], ["</search>"], [recipe.rollout.max_new_tokens], GREEDY)
    assert shown == policy.decode(told[0].token_ids) + "\n"


@pytest.mark.parametrize("what", ["adapter", "merged", "adapter,merged"])
def test_rsearch_answers_with_a_published_agent_by_its_name(hub_server, run, tmp_path, what):
    """From an empty cache: the weights and the recipe come from the repository alone."""
    perturb(run / "adapter")
    push(run, "--what", what)
    path = published_recipe(REPO)
    assert path is not None
    recipe = load_recipe(str(path), [f"policy.model={REPO}"]).recipe
    local = load_recipe(str(run / "recipe.yaml")).recipe
    questions = open_question_set(recipe.questions, recipe.seed)
    asked = questions.load("test", 4)
    sources = open_sources(recipe.search, questions.corpus, tmp_path / "index")
    services = Services(recipe, AnswerCache(tmp_path / "answers"), Budget())
    with PlanExecutor(sources, recipe.search, services) as executor:
        by_name = Rollout(load_policy(recipe.policy, seed=0), executor, recipe).run(asked, GREEDY)
        trained = load_policy(local.policy, seed=0)
        trained.model.load_adapter(str(run / "adapter"), trained.model.active_adapter)
        here = Rollout(trained, executor, recipe).run(asked, GREEDY)
    assert [t.transcript for t in by_name] == [t.transcript for t in here]


def test_a_run_that_ends_in_a_push_leads_to_a_run_that_goes_on(hub_server, run):
    """The adapter of a published agent is what is trained further."""
    perturb(run / "adapter")
    push(run)
    recipe = load_recipe(str(run / "recipe.yaml"), [f"policy.model={REPO}"]).recipe
    policy = load_policy(recipe.policy, seed=0)
    trained = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".default." in name for name in trained)
    assert all(float(p.detach().abs().max()) > 0 for name, p in trained.items() if "lora_B" in name)
