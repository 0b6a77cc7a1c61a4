"""Generation by vLLM, against a stand-in for what Unsloth gives the model: no GPU is needed."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from rsearch_cli.errors import EngineUnavailable
from rsearch_cli.policy.adapter_check import check_adapter
from rsearch_cli.policy.generation import GREEDY, Sampling
from rsearch_cli.policy.unsloth_backend import vllm_settings
from rsearch_cli.policy.vllm_engine import VllmPolicy, check_engine
from rsearch_cli.recipe.policy import LoraConfig, PolicyConfig, RolloutConfig


class SamplingParams(SimpleNamespace):
    """Keeps what it is given."""


@pytest.fixture
def vllm(monkeypatch):
    module = ModuleType("vllm")
    module.SamplingParams = SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.fixture
def engine(vllm, nano_policy, monkeypatch):
    """A policy whose engine answers from a list, and what the engine was asked."""
    asked: list[SimpleNamespace] = []
    answers: list[list[SimpleNamespace]] = []
    adapters: list[str] = []

    def load_lora(folder, load_tensors):
        assert load_tensors
        adapters.append(folder)
        return f"adapter {len(adapters)}"

    def fast_generate(prompts, sampling_params, lora_request, use_tqdm):
        asked.append(SimpleNamespace(prompts=prompts, params=sampling_params, lora=lora_request))
        return [SimpleNamespace(outputs=[completion]) for completion in answers.pop(0)]

    model = nano_policy.model
    monkeypatch.setattr(model, "load_lora", load_lora, raising=False)
    monkeypatch.setattr(model, "fast_generate", fast_generate, raising=False)
    return VllmPolicy(model, nano_policy.tokenizer), asked, answers


def completion(ids, stop_reason=None, logprobs=None):
    return SimpleNamespace(token_ids=ids, stop_reason=stop_reason, logprobs=logprobs)


def test_the_three_ways_to_stop_are_told_apart(engine):
    policy, _, answers = engine
    tag = policy.encode("A: x\n</search>")
    answers.append(
        [completion(tag, "</search>"), completion([5, 6, policy.eos_id]), completion([5, 6, 7])]
    )
    written = policy.generate_ids([[1], [2, 3], [4]], ["</search>"], [9, 9, 3])
    assert [g.stop for g in written] == ["tag", "eos", "length"]
    assert [g.token_ids for g in written] == [tuple(tag), (5, 6, policy.eos_id), (5, 6, 7)]
    assert [g.text for g in written] == [
        "A: x\n</search>",
        policy.decode([5, 6]),
        policy.decode([5, 6, 7]),
    ]


def test_every_call_brings_the_adapter_ids_and_limits(engine):
    policy, asked, answers = engine
    answers += [[completion([5]), completion([6])]] * 2
    for _ in range(2):
        policy.generate_ids([[1], [2, 3]], ["</search>", "</answer>"], [9, 4])
    assert [call.lora for call in asked] == ["adapter 1", "adapter 2"]
    assert asked[0].prompts == [{"prompt_token_ids": [1]}, {"prompt_token_ids": [2, 3]}]
    first, second = asked[0].params
    assert (first.max_tokens, second.max_tokens) == (9, 4)
    assert first.stop == ["</search>", "</answer>"]
    assert first.include_stop_str_in_output and not first.skip_special_tokens
    assert first.stop_token_ids == list(policy.eos_ids)
    assert (first.temperature, first.seed) == (0.0, None)


def test_seeds_come_from_the_generator_that_a_checkpoint_holds(engine):
    import torch

    policy, asked, answers = engine
    answers += [[completion([5]), completion([6])]] * 2
    for _ in range(2):
        torch.manual_seed(7)
        policy.generate_ids([[1], [2]], ["</answer>"], [9, 9], Sampling(0.9, 0.8))
    seeds = [[p.seed for p in call.params] for call in asked]
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 2
    params = asked[0].params[0]
    assert (params.temperature, params.top_p, params.top_k) == (0.9, 0.8, -1)
    assert GREEDY.temperature == 0.0


def test_the_adapter_check_asks_the_engine(engine):
    policy, asked, answers = engine

    def sampled(value):
        return [completion([5], logprobs=[{5: SimpleNamespace(logprob=value)}])]

    answers += [sampled(-1.0), sampled(-1.5)]
    check_adapter(policy)
    assert len(asked) == 2 and all(call.lora for call in asked)
    assert (asked[0].params[0].temperature, asked[0].params[0].logprobs) == (0.0, 0)


@pytest.mark.parametrize(
    ("backend", "cuda", "message"),
    [
        ("transformers", True, "it shares its weights with Unsloth, and policy.backend is"),
        ("auto", False, "it needs a CUDA device, and torch sees none"),
        ("auto", True, "vllm is not installed"),
    ],
)
def test_an_engine_that_cannot_run_is_one_clear_line(monkeypatch, backend, cuda, message):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=message) as caught:
        check_engine(PolicyConfig(backend=backend), RolloutConfig(engine="vllm"))
    assert str(caught.value).startswith("rollout.engine: vllm: ")
    assert str(caught.value).endswith("; use --set rollout.engine=local")
    assert caught.value.exit_code == 66


def test_the_local_engine_needs_nothing():
    check_engine(PolicyConfig(), RolloutConfig())


def test_unsloth_is_told_of_the_engine_only_where_it_is_wanted():
    recipe = PolicyConfig(lora=LoraConfig(r=24))
    assert vllm_settings(recipe, None) == {}
    assert vllm_settings(recipe, 0.4) == {
        "fast_inference": True,
        "gpu_memory_utilization": 0.4,
        "max_lora_rank": 32,
    }
