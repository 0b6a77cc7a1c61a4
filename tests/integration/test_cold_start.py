"""The supervised cold start through the real trainer, and GRPO going on from it."""

from __future__ import annotations

import pytest
import torch
from recorder import Recorder

from rsearch_cli.policy.loading import load_policy
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.runs.files import METRICS
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.runtime import Services
from rsearch_cli.training.grpo import GrpoTraining
from rsearch_cli.training.sft import SftTraining, count_sft_steps, order_examples
from rsearch_cli.training.traces import IGNORED, encode_trace
from rsearch_cli.training.world_traces import write_world_traces
from rsearch_cli.types import RewardParts


@pytest.fixture
def world(quickstart):
    return open_question_set(quickstart.questions, quickstart.seed)


@pytest.fixture
def executor(quickstart, world, tmp_path):
    sources = open_sources(quickstart.search, world.corpus, tmp_path / "index")
    services = Services(quickstart, AnswerCache(tmp_path / "answers"), Budget())
    with PlanExecutor(sources, quickstart.search, services) as executor:
        yield executor


@pytest.fixture
def make_sft(quickstart, nano_policy, world, executor, tmp_path):
    """A cold start on 16 traces of the world."""

    def make(**sft):
        settings = {"batch_size": 4, "gradient_accumulation_steps": 2, "max_traces": 16}
        recipe = quickstart.model_copy(
            update={"sft": quickstart.sft.model_copy(update=settings | sft)}
        )
        folder = RunFolder(tmp_path / "sft")
        folder.open(resume=False)
        traces, _ = write_world_traces(world.load("train", 20), executor, recipe)
        examples = [encode_trace(trace, nano_policy, recipe) for trace in traces]
        recorder = Recorder()
        return SftTraining(nano_policy, examples, recipe, folder, [recorder]), folder, recorder

    return make


def test_masked_tokens_get_exactly_no_gradient(make_sft, monkeypatch):
    training, _, _ = make_sft(max_steps=1)
    seen = []
    compute = training.trainer.compute_loss

    def watched(model, inputs, return_outputs=False, **rest):
        labels = inputs["labels"]
        loss, outputs = compute(model, inputs, return_outputs=True, **rest)
        outputs.logits.retain_grad()
        seen.append((labels, outputs.logits))
        return loss

    monkeypatch.setattr(training.trainer, "compute_loss", watched)
    training.run()
    assert len(seen) == 2, "two forward passes a step"
    for labels, logits in seen:
        # The logits at a place are a guess at the next token.
        learnt = labels[:, 1:] != IGNORED
        gradient = logits.grad[:, :-1].abs().sum(-1)
        assert (~learnt).sum() > 50 and learnt.sum() > 50
        assert (gradient[~learnt] == 0).all() and (logits.grad[:, -1] == 0).all()
        assert (gradient[learnt] > 0).all()


def test_the_loss_falls_and_the_run_can_be_read(make_sft):
    training, folder, recorder = make_sft(epochs=4, learning_rate=2e-3)
    training.run()
    rows = folder.read_rows(METRICS)
    assert rows == recorder.rows
    assert [row["step"] for row in rows] == list(range(1, 9))
    losses = [row["loss"] for row in rows]
    assert sum(losses[-2:]) < 0.5 * sum(losses[:2])
    assert {"grad_norm", "learning_rate", "seconds/step"} <= set(rows[0])
    # Every trace is learnt once an epoch, two steps long.
    learnt = [row["learnt_tokens"] for row in rows]
    assert learnt[0] + learnt[1] == learnt[2] + learnt[3]
    assert all(row["masked_tokens"] > 50 for row in rows)
    assert [p.name for p in folder.checkpoints()] == ["checkpoint-8"]
    assert (folder.adapter / "adapter_model.safetensors").exists()


def test_steps_follow_from_traces_and_epochs(quickstart):
    sft = quickstart.sft.model_copy(update={"batch_size": 4, "epochs": 3})
    assert count_sft_steps(10, sft) == 8  # 30 traces, 4 a step
    assert count_sft_steps(10, sft.model_copy(update={"max_steps": 5})) == 5
    assert count_sft_steps(10, sft.model_copy(update={"max_steps": 50})) == 8


def test_the_order_is_a_matter_of_the_seed():
    order = order_examples(5, 13, seed=1)
    assert order == order_examples(5, 13, seed=1) != order_examples(5, 13, seed=2)
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert len(order) == 13


def grpo_from(folder, quickstart, world, executor, tmp_path, **train):
    """A GRPO run of two steps whose policy starts from the adapter of `folder`."""
    settings = {"max_steps": 2, "batch_size": 8, "num_generations": 4, "learning_rate": 1e-2}
    recipe = quickstart.model_copy(
        update={
            "train": quickstart.train.model_copy(update=settings | train),
            "policy": quickstart.policy.model_copy(update={"adapter": str(folder.path)}),
        }
    )
    policy = load_policy(recipe.policy, seed=9)
    run = RunFolder(tmp_path / "grpo")
    run.open(resume=False)
    training = GrpoTraining(
        policy,
        Rollout(policy, executor, recipe),
        world.load("train", 20),
        recipe,
        run,
    )
    # Equal rewards would leave the policy where it is.
    training.score = lambda trajectories, step: [
        RewardParts(0.0, 0.0, 0.0, float(i % 4)) for i, _ in enumerate(trajectories)
    ]
    return training, run


@pytest.fixture
def learnt(make_sft):
    """A finished cold start that has moved the policy."""
    training, folder, _ = make_sft(epochs=1, learning_rate=1e-2)
    training.run()
    return training, folder


def test_grpo_begins_with_the_policy_that_the_cold_start_made(
    learnt, quickstart, world, executor, tmp_path
):
    sft, folder = learnt
    grpo, run = grpo_from(folder, quickstart, world, executor, tmp_path, beta=0.1)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        made = sft.policy.model.eval()(ids).logits
        assert grpo.policy.model.eval()(ids).logits.equal(made)
        with sft.policy.model.disable_adapter():
            assert not sft.policy.model(ids).logits.allclose(made, atol=1e-2)
    grpo.run()
    kl = [row["kl"] for row in run.read_rows(METRICS)]
    assert kl[0] == pytest.approx(0.0, abs=1e-6), "it is measured from the cold start's policy"
    assert kl[1] > 1e-4
    grpo.policy.model.set_adapter("ref")
    with torch.no_grad():
        assert grpo.policy.model.eval()(ids).logits.equal(made), "the reference stays"
    saved = [run.adapter, *run.checkpoints()]
    assert len(saved) > 1 and not any((path / "ref").exists() for path in saved)


def test_without_a_kl_term_no_reference_is_kept(learnt, quickstart, world, executor, tmp_path):
    _, folder = learnt
    grpo, _ = grpo_from(folder, quickstart, world, executor, tmp_path, beta=0.0)
    assert list(grpo.policy.model.peft_config) == ["default"]
