"""The trainer that we make: what it is told, and entropy where it is Unsloth's, which logs none."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.trainer import make_trainer_class, shared_arguments


class TwoRanks:
    """The other process has two tokens with one nat between them."""

    def reduce(self, sums, reduction):
        assert reduction == "sum"
        return sums + torch.tensor([1.0, 2.0])


class OneRank:
    def reduce(self, sums, reduction):
        return sums


class UnslothGRPOTrainer:
    """What Unsloth puts where TRL's trainer was, as far as entropy goes."""

    def __init__(self, accelerator):
        self.args = SimpleNamespace(top_entropy_quantile=1.0)
        self.model = SimpleNamespace(training=True)
        self.accelerator = accelerator
        self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}


class GRPOTrainer(UnslothGRPOTrainer):
    """TRL's, which logs entropy itself."""


@pytest.fixture
def make_trainer(quickstart, tmp_path, monkeypatch):
    def make(kind=UnslothGRPOTrainer, accelerator=None):
        monkeypatch.setattr("trl.GRPOTrainer", kind)
        training = SimpleNamespace(folder=RunFolder(tmp_path), recipe=quickstart)
        return make_trainer_class(training)(accelerator or OneRank())

    return make


# nan where nothing was measured: a masked token must not even be multiplied by zero.
ENTROPIES = torch.tensor([[0.5, torch.nan, 1.0], [3.0, 9.0, torch.nan]])
WRITTEN = torch.tensor([[1, 0, 1], [1, 0, 0]])


def test_unsloth_is_made_to_measure_entropy_and_trl_is_left_alone(make_trainer):
    # Unsloth measures it where this is under 1, and TRL would then leave tokens out.
    assert 0.999 < make_trainer().args.top_entropy_quantile < 1
    assert make_trainer(GRPOTrainer).args.top_entropy_quantile == 1


def test_the_mean_is_over_what_the_policy_wrote_and_no_token_is_left_out(make_trainer):
    trainer = make_trainer()
    mask = trainer.get_high_entropy_mask(ENTROPIES, WRITTEN, 1e-16)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, WRITTEN.bool())
    assert trainer._metrics["train"]["entropy"] == [1.5]


def test_the_mean_is_over_the_tokens_of_all_processes(make_trainer):
    trainer = make_trainer(accelerator=TwoRanks())
    trainer.get_high_entropy_mask(ENTROPIES, WRITTEN, 1e-16)
    assert trainer._metrics["train"]["entropy"] == [(4.5 + 1.0) / 5]


def test_a_batch_without_a_token_to_learn_has_no_entropy(make_trainer):
    """As a zero it would look like a collapse."""
    trainer = make_trainer()
    mask = trainer.get_high_entropy_mask(ENTROPIES, torch.zeros_like(WRITTEN), 1e-16)
    assert not mask.any()
    assert not trainer._metrics["train"]


def test_an_evaluation_keeps_its_entropy_apart(make_trainer):
    trainer = make_trainer()
    trainer.model.training = False
    trainer.get_high_entropy_mask(ENTROPIES, WRITTEN, 1e-16)
    assert trainer._metrics["eval"]["entropy"] == [1.5]
    assert not trainer._metrics["train"]


def test_the_optimiser_is_plain_adamw_without_decay(quickstart, tmp_path) -> None:
    told = shared_arguments(quickstart, 3, tmp_path)
    assert (told["optim"], told["weight_decay"]) == ("adamw_torch_fused", 0.0)
    assert told["max_steps"] == 3
