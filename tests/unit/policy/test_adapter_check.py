"""The check that generation samples from the model that is trained."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import TrainingIneffective
from rsearch_cli.policy.adapter_check import check_adapter


def test_an_adapter_that_is_sampled_from_passes_and_stays_as_it_was(nano_policy):
    import torch

    before = {name: p.clone() for name, p in nano_policy.model.named_parameters()}
    random = torch.get_rng_state()
    check_adapter(nano_policy)
    assert all(p.equal(before[name]) for name, p in nano_policy.model.named_parameters())
    assert torch.get_rng_state().equal(random), "a run must draw the same numbers as without it"


def test_a_generation_that_leaves_the_adapter_out_is_refused(nano_policy, monkeypatch):
    sample = nano_policy.sample_log_probs

    def without_adapter(context, count):
        with nano_policy.model.disable_adapter():
            return sample(context, count)

    monkeypatch.setattr(nano_policy, "sample_log_probs", without_adapter)
    before = {name: p.clone() for name, p in nano_policy.model.named_parameters()}
    with pytest.raises(TrainingIneffective, match="generation ignores the adapter") as caught:
        check_adapter(nano_policy)
    assert "by 0.0e+00 at most" in str(caught.value)
    assert "--set policy.backend=transformers" in str(caught.value)
    assert all(p.equal(before[name]) for name, p in nano_policy.model.named_parameters())


def test_a_model_without_an_adapter_is_refused(tiny_policy):
    with pytest.raises(TrainingIneffective, match="generation ignores the adapter"):
        check_adapter(tiny_policy)


def test_log_probs_are_those_of_the_forward_pass(nano_policy):
    import torch

    context = nano_policy.render([{"role": "user", "content": "Who wrote it?"}]).token_ids
    sampled = nano_policy.sample_log_probs(context, 6)
    ids = [token for token, _ in sampled]
    assert tuple(ids) == nano_policy.generate_ids([context], ["</search>"], [6])[0].token_ids
    nano_policy.model.eval()
    with torch.no_grad():
        logits = nano_policy.model(torch.tensor([[*context, *ids]])).logits[
            0, len(context) - 1 : -1
        ]
    expected = logits.double().log_softmax(-1)[range(len(ids)), ids].tolist()
    assert [value for _, value in sampled] == pytest.approx(expected, abs=1e-4)
