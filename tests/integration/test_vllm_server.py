"""Rollouts on a vLLM server: what is trained here is what writes there, at every step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from backend import BACKEND
from typer.testing import CliRunner
from vllm_lora import PAGE, VllmServer

from rsearch_cli.app import app
from rsearch_cli.errors import EngineUnavailable, RecipeValueError, TrainingIneffective
from rsearch_cli.policy.adapter_check import check_adapter
from rsearch_cli.policy.generation import Sampling
from rsearch_cli.policy.loading import load_policy
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.vllm_server import VllmServerPolicy
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.policy import RolloutConfig

STOPS = ["</search>", "</answer>"]


@pytest.fixture
def served(quickstart) -> Iterator[VllmServer]:
    with VllmServer(load_policy(quickstart.policy, seed=0)) as server:
        yield server


def connect(quickstart, url: str) -> VllmServerPolicy:
    rollout = RolloutConfig(engine="vllm-server", vllm_url=url)
    policy = load_policy(quickstart.policy, 0, rollout)
    assert isinstance(policy, VllmServerPolicy)
    return policy


def prompts(policy: LocalPolicy) -> list[list[int]]:
    asked = ("Where was Tessa born?", "Who founded Brindle Works, and when?")
    return [policy.render([{"role": "user", "content": text}]).token_ids for text in asked]


def nudge(policy: LocalPolicy) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))


def test_it_writes_what_the_trained_weights_would_write(quickstart, served: VllmServer) -> None:
    remote, own = connect(quickstart, served.url), load_policy(quickstart.policy, seed=0)
    for _ in range(2):
        contexts = prompts(own)
        arguments = (contexts, STOPS, [40, 25], Sampling())
        assert remote.generate_ids(*arguments) == own.generate_ids(*arguments)
        nudge(remote)
        nudge(own)
    assert len(served.adapters) == 1, "the older one was unloaded"
    assert {r.body["model"] for r in served.requests if r.path == PAGE} == {
        f"rsearch-{name.split('-')[1]}-{n}" for name in served.adapters for n in (1, 2)
    }


def test_an_adapter_that_has_not_changed_is_not_sent_again(quickstart, served: VllmServer) -> None:
    remote = connect(quickstart, served.url)
    for _ in range(3):
        remote.generate_ids(prompts(remote), STOPS, [4, 4])
    assert sum(r.path == "/v1/load_lora_adapter" for r in served.requests) == 1


def test_sampling_draws_its_seeds_from_the_trainings_generator(
    quickstart, served: VllmServer
) -> None:
    remote = connect(quickstart, served.url)
    seeds = []
    for _ in range(2):
        torch.manual_seed(3)
        remote.generate_ids(prompts(remote), STOPS, [4, 4], Sampling(1.0))
        seeds.append(sorted(r.body["seed"] for r in served.requests[-2:]))
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 2


def test_the_check_of_the_adapter_goes_through_the_server(quickstart, served: VllmServer) -> None:
    check_adapter(connect(quickstart, served.url))
    with (
        VllmServer(load_policy(quickstart.policy, seed=0), deaf=True) as deaf,
        pytest.raises(TrainingIneffective, match="generation ignores the adapter"),
    ):
        check_adapter(connect(quickstart, deaf.url))


def test_a_server_that_is_not_there_or_refuses_is_one_clear_line(
    quickstart, served: VllmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = connect(quickstart, "http://user:secret@127.0.0.1:9")
    with pytest.raises(EngineUnavailable, match=r"no answer from http://127.0.0.1:9 ") as caught:
        gone.generate_ids(prompts(gone), STOPS, [4, 4])
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    remote = connect(quickstart, served.url)
    monkeypatch.setattr(served, "respond", lambda r: (400, served.describe_error(400, "no LoRA")))
    with pytest.raises(EngineUnavailable, match=r"answered 400 .*no LoRA.*--enable-lora"):
        remote.generate_ids(prompts(remote), STOPS, [4, 4])


def test_a_recipe_without_an_address_is_refused() -> None:
    with pytest.raises(RecipeValueError, match="engine vllm-server needs vllm_url"):
        load_recipe("quickstart", ["rollout.engine=vllm-server"])


def test_a_run_trains_on_what_the_server_writes(
    quickstart, served: VllmServer, tmp_path: Path
) -> None:
    settings = (
        "questions.world.train_regions=2",
        "questions.world.held_out_regions=1",
        f"policy.backend={BACKEND}",
        "train.batch_size=8",
        "train.num_generations=4",
        "train.max_steps=2",
        "evaluate.limit=2",
        "rollout.engine=vllm-server",
        f"rollout.vllm_url={served.url}",
    )
    options = [word for setting in settings for word in ("--set", setting)]
    line = ["train", "--recipe", "quickstart", *options, "--output-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["grad_norm"] > 0, "a step that moves nothing would show nothing here"
    loaded = sum(r.path == "/v1/load_lora_adapter" for r in served.requests)
    # As it was, nudged, put back; and after each of the two steps.
    assert loaded == 5
