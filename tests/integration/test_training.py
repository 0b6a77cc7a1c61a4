"""Training through the real TRL trainer, with the traps that silently spoil it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recorder import Recorder

from rsearch_cli.errors import OutOfMemory, TrainingIneffective
from rsearch_cli.policy.generation import GREEDY
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.runs.files import METRICS, TRAJECTORIES
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.runtime import Services
from rsearch_cli.training.grpo import GrpoTraining

STEPS, GENERATIONS, ROWS = 3, 4, 8


@pytest.fixture
def make_training(quickstart, nano_policy, tmp_path):
    """A training of three steps with two questions of four completions each."""
    opened = []

    def make(reward=None, **train):
        settings = {
            "max_steps": STEPS,
            "batch_size": ROWS,
            "num_generations": GENERATIONS,
            "save_steps": 2,
        }
        recipe = quickstart.model_copy(
            update={
                "train": quickstart.train.model_copy(update=settings | train),
                "reward": quickstart.reward.model_copy(update=reward or {}),
            }
        )
        world = open_question_set(recipe.questions, recipe.seed)
        sources = open_sources(recipe.search, world.corpus, tmp_path / "index")
        services = Services(recipe, AnswerCache(tmp_path / "answers"), Budget())
        executor = PlanExecutor(sources, recipe.search, services)
        opened.append(executor)
        folder = RunFolder(tmp_path / "run")
        folder.open(resume=False)
        recorder = Recorder()
        training = GrpoTraining(
            nano_policy,
            Rollout(nano_policy, executor, recipe),
            world.load("train", 20),
            recipe,
            folder,
            [recorder],
        )
        return training, folder, recorder

    yield make
    for executor in opened:
        executor.close()


def test_inserted_tokens_get_exactly_no_gradient(make_training, monkeypatch):
    training, _, _ = make_training()
    trainer = training.trainer
    measured = []
    measure = trainer._get_per_token_logps_and_entropies

    def watched(*args, **kwargs):
        logps, *rest = measure(*args, **kwargs)
        if logps.requires_grad:
            logps.retain_grad()
            measured.append(logps)
        return logps, *rest

    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", watched)
    masks = []
    compute = trainer._compute_loss

    def computed(model, inputs):
        masks.append((inputs["completion_mask"], inputs["tool_mask"]))
        return compute(model, inputs)

    monkeypatch.setattr(trainer, "_compute_loss", computed)
    # Equal rewards would make every advantage, and so every gradient, zero.
    monkeypatch.setattr(training, "score", spread_rewards)
    training.run()
    assert len(measured) == STEPS
    for logps, (completion, written) in zip(measured, masks, strict=True):
        inserted = completion.bool() & ~written.bool()
        assert inserted.sum() > 20, "results must have been inserted"
        assert (logps.grad[inserted] == 0).all()
        assert (logps.grad[completion.bool() & written.bool()] != 0).float().mean() > 0.5


def test_tied_groups_are_replaced_and_the_trainer_gets_the_new_rows(make_training, monkeypatch):
    import torch

    from rsearch_cli.types import RewardParts

    training, folder, _ = make_training(max_steps=2, resample_ties=2)
    first: list[str] = []

    def score(trajectories, step):
        """Rewards tie for the first questions of a step, and differ for all others."""
        if not first:
            first.extend(t.question.text for t in trajectories)
        tied = {*first}
        totals = [0.5 if t.question.text in tied else i % 2 for i, t in enumerate(trajectories)]
        return [RewardParts(total, 1.0, 1.0, float(total)) for total in totals]

    monkeypatch.setattr(training, "score", score)
    batches = []
    generate = training.trainer._generate_and_score_completions

    def generated(inputs):
        batches.append(generate(inputs))
        return batches[-1]

    monkeypatch.setattr(training.trainer, "_generate_and_score_completions", generated)
    training.run()
    row = folder.read_rows(METRICS)[0]
    assert (row["discarded/rollouts"], row["discarded/reward"]) == (ROWS, 0.5)
    assert (row["groups/zero_advantage"], row["discarded/usd"]) == (0.0, 0.0)
    assert row["grad_norm"] > 0
    rollouts = [r for r in folder.read_rows(TRAJECTORIES) if r["step"] == 1]
    texts = [r["question"] for r in rollouts]
    assert len(texts) == ROWS and not {*texts} & {*first}
    assert len({*texts[:GENERATIONS]}) == len({*texts[GENERATIONS:]}) == 1
    # What the trainer trains on is what is written down: prompts, completions, advantages.
    tokenizer = training.policy.tokenizer
    batch = batches[0]
    for i, rollout in enumerate(rollouts):
        prompt = tokenizer.decode(batch["prompt_ids"][i], skip_special_tokens=True)
        assert rollout["question"] in prompt
        tokens = sum(segment["tokens"] for segment in rollout["segments"])
        assert int(batch["completion_mask"][i].sum()) == tokens
    signs = torch.tensor([-1.0, 1.0] * (ROWS // 2))
    assert torch.equal(batch["advantages"].sign(), signs)


def spread_rewards(trajectories, step):
    from rsearch_cli.types import RewardParts

    return [RewardParts(0.0, 0.0, 0.0, float(i % 4)) for i, _ in enumerate(trajectories)]


def test_prompts_come_repeated_and_rows_leave_aligned(make_training, monkeypatch):
    training, _, _ = make_training()
    calls = []
    roll_out = training.roll_out

    def watched(prompts, trainer):
        rows = roll_out(prompts, trainer)
        calls.append((prompts, rows))
        return rows

    training.trainer.rollout_func = watched
    training.run()
    assert len(calls) == STEPS
    eos = training.policy.eos_id
    for prompts, rows in calls:
        texts = [p[-1]["content"] for p in prompts]
        assert len(texts) == ROWS
        for start in range(0, ROWS, GENERATIONS):
            assert len(set(texts[start : start + GENERATIONS])) == 1
        assert rows["logprobs"] is None
        for ids, mask in zip(rows["completion_ids"], rows["env_mask"], strict=True):
            assert len(ids) == len(mask) and ids[-1] == eos


def test_a_row_that_could_not_be_scored_leaves_the_baseline_whole(make_training, monkeypatch):
    import torch

    training, _, _ = make_training(max_steps=1)
    totals = [1.0, 0.0, None, 0.0, 1.0, 1.0, 0.0, 0.0]

    def score(trajectories, step):
        from rsearch_cli.types import RewardParts

        return [RewardParts(t, 0.0, 0.0, t) for t in totals]

    monkeypatch.setattr(training, "score", score)
    advantages = []
    compute = training.trainer._compute_loss
    generate = training.trainer._generate_and_score_completions

    def generated(inputs):
        batch = generate(inputs)
        advantages.append(batch["advantages"].clone())
        return batch

    monkeypatch.setattr(training.trainer, "_generate_and_score_completions", generated)
    monkeypatch.setattr(training.trainer, "_compute_loss", compute)
    training.run()
    group = advantages[0][:4]
    scored = torch.tensor([1.0, 0.0, 0.0])
    expected = (scored - scored.mean()) / (scored.std() + 1e-4)
    assert group[2] == 0
    assert torch.allclose(group[[0, 1, 3]], expected, atol=1e-3)


def test_a_run_leaves_what_is_needed_to_read_it(make_training):
    training, folder, recorder = make_training()
    training.run()
    rows = folder.read_rows(METRICS)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows == recorder.rows
    needed = {
        "step", "reward", "reward/answer", "reward/plan", "reward/format", "kl", "entropy",
        "completion_length", "masked_tokens", "seconds/generate", "seconds/search",
        "seconds/update", "loss", "grad_norm", "learning_rate", "failed/search", "unscored",
    }  # fmt: skip
    assert needed <= set(rows[0])
    assert all(row["masked_tokens"] > 0 and row["entropy"] > 0 for row in rows)
    assert all(row["seconds/step"] > row["seconds/generate"] > 0 for row in rows)
    trajectories = folder.read_rows(TRAJECTORIES)
    assert len(trajectories) == STEPS * ROWS
    first = trajectories[0]
    assert {s["author"] for s in first["segments"]} == {"model", "system"}
    written = sum(s["tokens"] for s in first["segments"] if s["author"] == "model")
    assert written > 10
    assert [p.name for p in folder.checkpoints()] == ["checkpoint-2", "checkpoint-3"]
    assert (folder.adapter / "adapter_model.safetensors").exists()
    assert not (folder.path / "README.md").exists(), "TRL's model card is not ours"
    assert not (folder.adapter / "ref").exists(), "a second adapter would hide ours on resume"


def test_a_saved_adapter_gives_the_trained_model_back(make_training, quickstart):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from rsearch_cli.policy.resolve import locate_model

    training, folder, _ = make_training()
    training.run()
    ids = torch.tensor([[5, 6, 7, 8]])
    base = AutoModelForCausalLM.from_pretrained(
        locate_model(quickstart.policy.model), dtype=torch.float32
    )
    loaded = PeftModel.from_pretrained(base, folder.adapter).eval()
    trained = training.policy.model.eval()
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, trained(ids).logits, atol=1e-5)
        with loaded.disable_adapter():
            assert not torch.allclose(loaded(ids).logits, trained(ids).logits, atol=1e-5)


def test_the_curriculum_ends_at_exactly_its_step(make_training):
    training, folder, _ = make_training(reward={"curriculum_steps": 2})
    training.run()
    for row in folder.read_rows(TRAJECTORIES):
        parts = row["reward"]
        answer = parts["answer"] * parts["plan"]
        shares = (0.2, 0.4, 0.4) if row["step"] <= 2 else (0.5, 0.25, 0.25)
        scores = (answer, parts["plan"], parts["format"])
        total = sum(share * score for share, score in zip(shares, scores, strict=True))
        assert parts["total"] == pytest.approx(total)


def test_further_parts_reach_the_trainer_normalised(make_training, monkeypatch):
    import torch

    extra = {"retrieval": 0.5, "no_answer": 0.2, "length": 0.2}
    reward = {"extra": extra, "normalise_parts": True, "curriculum_steps": 0}
    training, folder, _ = make_training(reward, max_steps=1, scale_rewards="batch")
    advantages = []
    generate = training.trainer._generate_and_score_completions

    def generated(inputs):
        batch = generate(inputs)
        advantages.append(batch["advantages"].clone())
        return batch

    monkeypatch.setattr(training.trainer, "_generate_and_score_completions", generated)
    training.run()
    (row,) = folder.read_rows(METRICS)
    assert 0 < row["reward/retrieval"] <= 1 and row["reward/no_answer"] <= 0
    rewards = [row["reward"] for row in folder.read_rows(TRAJECTORIES)]
    names = [("plan", 0.25), ("format", 0.25), *extra.items()]
    answers = [r["answer"] * r["plan"] for r in rewards]
    columns = [(0.5, answers)] + [
        (weight, [{**r, **r["extra"]}[name] for r in rewards]) for name, weight in names
    ]
    # As TRL's own `normalize_then_sum` computes them from one reward function per part.
    total = torch.zeros(ROWS)
    for weight, column in columns:
        groups = torch.tensor(column).view(-1, GENERATIONS)
        centred = groups - groups.mean(dim=1, keepdim=True)
        total += weight * (centred / (groups.std(dim=1, keepdim=True) + 1e-4)).flatten()
    expected = (total - total.mean()) / (total.std() + 1e-4)
    assert expected.abs().max() > 0.1
    assert torch.allclose(advantages[0], expected, atol=1e-3)


def test_the_control_deals_answer_scores_out_at_random(make_training, monkeypatch):
    training, _, _ = make_training(reward={"shuffle_answers": True}, max_steps=1)
    seen = []
    score = training.score

    def watched(trajectories, step):
        first, second = score(trajectories, step), score(trajectories, step)
        seen.append((trajectories, first, second))
        return first

    monkeypatch.setattr(training, "score", watched)
    training.run()
    trajectories, first, second = seen[0]
    assert first == second, "the same step deals the same way"
    from rsearch_cli.reward.lexical import f1

    honest = [f1(t.answer, t.question.answers) if t.answer else 0.0 for t in trajectories]
    assert sorted(p.answer for p in first) == pytest.approx(sorted(honest))


def test_truncated_rows_can_be_left_out_of_the_loss(make_training):
    training, _, _ = make_training(mask_truncated=True)
    question = next(iter(training._questions.values()))
    whole = training.rollout.run([question], GREEDY)[0]
    assert sum(training._loss_mask(whole)) > 0
    assert sum(training._loss_mask(replace(whole, stop="length"))) == 0


def test_training_moves_the_adapter(make_training, monkeypatch):
    training, _, _ = make_training()
    monkeypatch.setattr(training, "score", spread_rewards)
    before = [p.clone() for n, p in training.policy.model.named_parameters() if "lora_B" in n]
    training.run()
    after = [p for n, p in training.policy.model.named_parameters() if "lora_B" in n]
    assert all(not a.equal(b) for a, b in zip(after, before, strict=True))


def fail_once_at(call: int, original):
    """`original`, but its `call`-th call finds no memory."""
    import torch

    calls = 0

    def failing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")
        return original(*args, **kwargs)

    return failing


def test_memory_that_runs_out_in_a_rollout_is_noted_in_the_metrics(make_training, monkeypatch):
    training, folder, _ = make_training()
    model = training.policy.model
    # Two calls are the adapter's check, two a step.
    monkeypatch.setattr(model, "generate", fail_once_at(5, model.generate))
    training.run()
    assert [row["oom/halved"] for row in folder.read_rows(METRICS)] == [0, 1, 1]


def test_memory_that_runs_out_in_the_update_leaves_the_last_step_saved(make_training, monkeypatch):
    training, folder, _ = make_training(save_steps=3)
    trainer = training.trainer
    monkeypatch.setattr(trainer, "_compute_loss", fail_once_at(2, trainer._compute_loss))
    with pytest.raises(OutOfMemory) as caught:
        training.run()
    assert str(caught.value) == (
        "memory ran out in the update (CUDA out of memory. Tried to allocate 2.00 GiB); lower "
        "train.batch_size (now 8; raise train.gradient_accumulation_steps in turn), "
        "rollout.max_new_tokens (now 80) or search.passage_chars, or set "
        "policy.gradient_checkpointing=true; `rsearch estimate` shows what each saves; 1 steps are "
        f"finished and saved in {folder.path}/checkpoint-1; --resume continues from there"
    )
    assert [p.name for p in folder.checkpoints()] == ["checkpoint-1"]


def test_a_trainer_that_asks_for_no_rollouts_is_found_out(make_training):
    training, _, _ = make_training(max_steps=1)
    training.trainer.rollout_func = None
    with pytest.raises(
        TrainingIneffective, match="completions of its own instead of calling rollout_func"
    ):
        training.run()


def test_a_generation_without_the_adapter_is_found_out_before_the_first_step(
    make_training, monkeypatch
):
    training, folder, _ = make_training(max_steps=1)
    sample = training.policy.sample_log_probs

    def without_adapter(context, count):
        with training.policy.model.disable_adapter():
            return sample(context, count)

    monkeypatch.setattr(training.policy, "sample_log_probs", without_adapter)
    with pytest.raises(TrainingIneffective, match="generation ignores the adapter"):
        training.run()
    assert folder.read_rows(METRICS) == []
