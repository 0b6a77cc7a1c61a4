"""Unsloth: the entropy that its trainer does not log, and whether it still needs the help."""

from __future__ import annotations

from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import torch

from rsearch_cli.compat.unsloth import with_entropy


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


def make_trainer(kind=UnslothGRPOTrainer, accelerator=None):
    return with_entropy(kind)(accelerator or OneRank())


# nan where nothing was measured: a masked token must not even be multiplied by zero.
ENTROPIES = torch.tensor([[0.5, torch.nan, 1.0], [3.0, 9.0, torch.nan]])
WRITTEN = torch.tensor([[1, 0, 1], [1, 0, 0]])


def test_unsloth_is_made_to_measure_entropy_and_trl_is_left_alone():
    # Unsloth computes it if this is under 1, and TRL would then leave tokens out.
    assert 0.999 < make_trainer().args.top_entropy_quantile < 1
    assert make_trainer(GRPOTrainer).args.top_entropy_quantile == 1


def test_the_mean_is_over_what_the_policy_wrote_and_no_token_is_left_out():
    trainer = make_trainer()
    mask = trainer.get_high_entropy_mask(ENTROPIES, WRITTEN, 1e-16)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, WRITTEN.bool())
    assert trainer._metrics["train"]["entropy"] == [1.5]


def test_the_mean_is_over_the_tokens_of_all_processes():
    trainer = make_trainer(accelerator=TwoRanks())
    trainer.get_high_entropy_mask(ENTROPIES, WRITTEN, 1e-16)
    assert trainer._metrics["train"]["entropy"] == [(4.5 + 1.0) / 5]


def test_a_batch_without_a_token_to_learn_has_no_entropy():
    """As a zero it would look like a collapse."""
    trainer = make_trainer()
    mask = trainer.get_high_entropy_mask(ENTROPIES, torch.zeros_like(WRITTEN), 1e-16)
    assert not mask.any()
    assert not trainer._metrics["train"]


def test_an_evaluation_keeps_its_entropy_apart():
    trainer = make_trainer()
    trainer.model.training = False
    trainer.get_high_entropy_mask(ENTROPIES, WRITTEN, 1e-16)
    assert trainer._metrics["eval"]["entropy"] == [1.5]
    assert not trainer._metrics["train"]


def test_unsloths_trainer_still_logs_no_entropy():
    """When this fails, `with_entropy` is no longer needed."""
    modules = ("unsloth/models/rl.py", "unsloth/models/rl_replacements.py")
    site = Path(find_spec("unsloth").origin).parent.parent
    rewritten = [site / name for name in (*modules, "unsloth_zoo/rl_replacements.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in rewritten)
    assert '["entropy"].append' not in sources
    assert "trainer.get_high_entropy_mask(entropies, mask, threshold)" in sources
