"""Two steps of the quickstart through the GRPO trainer that Unsloth rewrites; prints what was seen.

Run by `test_rewritten_trainer.py` in a process of its own: the rewriting lasts as long as the
process. On CUDA Unsloth rewrites TRL as it is imported. Its CPU backend leaves TRL as it is, and
with it untested what a run on CUDA trains with; there the same rewriting is asked for by name. The
model's kernels are not Unsloth's on a CPU. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

BATCH, ACCUMULATION, GENERATIONS, STEPS = 4, 2, 4, 2
SETTINGS = (
    "questions.world.train_regions=2",
    "questions.world.held_out_regions=1",
    "policy.backend=unsloth",
    "rollout.max_new_tokens=80",
    f"train.batch_size={BATCH}",
    f"train.gradient_accumulation_steps={ACCUMULATION}",
    f"train.num_generations={GENERATIONS}",
    f"train.max_steps={STEPS}",
)
ARGUMENTS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "generation_batch_size",
    "steps_per_generation",
    "num_generations",
    "max_completion_length",
    "mask_truncated_completions",
    "loss_type",
    "scale_rewards",
    "beta",
    "epsilon",
    "epsilon_high",
    "use_vllm",
    "vllm_importance_sampling_correction",
)


def main(folder: Path) -> None:
    """Train in `folder` and print what was seen."""
    from rsearch_cli.compat.unsloth import start_unsloth

    if reason := start_unsloth():
        sys.exit(reason)
    import torch
    import unsloth.models  # noqa: F401  the part that rewrites TRL

    training = make_training(folder)
    watch = Watch(training)
    training.run()
    rows = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    seen = {
        "trainer": [kind.__name__ for kind in type(training.trainer).__mro__],
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "arguments": {name: getattr(training.trainer.args, name) for name in ARGUMENTS},
        "rows": [json.loads(row) for row in rows],
        **watch.report(),
    }
    print(json.dumps(seen, default=str))


def make_training(folder: Path) -> Any:
    """The quickstart in small, with rewards that differ within every group."""
    import torch

    from rsearch_cli.policy.loading import load_policy
    from rsearch_cli.questions.sets import open_question_set
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.rollout.rollout import Rollout
    from rsearch_cli.runs.run_folder import RunFolder
    from rsearch_cli.search.executor import PlanExecutor
    from rsearch_cli.search.sources import open_sources
    from rsearch_cli.services.budget import Budget
    from rsearch_cli.services.cache import AnswerCache
    from rsearch_cli.services.runtime import Services
    from rsearch_cli.training.grpo import GrpoTraining
    from rsearch_cli.types import RewardParts

    recipe = load_recipe("quickstart", SETTINGS).recipe
    world = open_question_set(recipe.questions, recipe.seed)
    sources = open_sources(recipe.search, world.corpus, folder / "index")
    services = Services(recipe, AnswerCache(folder / "answers"), Budget())
    policy = load_policy(recipe.policy, seed=0)
    if not torch.cuda.is_available():
        # No autocast: its bfloat16 would hide a difference from TRL's own loss.
        with policy.active():
            os.environ["UNSLOTH_MIXED_PRECISION"] = "bfloat16"
    run = RunFolder(folder / "run")
    run.open(resume=False)
    executor = PlanExecutor(sources, recipe.search, services)
    rollout = Rollout(policy, executor, recipe)
    training = GrpoTraining(policy, rollout, world.load("train", 20), recipe, run)
    training.score = lambda trajectories, step: [  # type: ignore[method-assign]
        RewardParts(0.0, 0.0, 0.0, float(i % GENERATIONS)) for i, _ in enumerate(trajectories)
    ]
    return training


class Watch:
    """Sees what goes into every loss, and which tokens its gradient reaches."""

    def __init__(self, training: Any) -> None:
        self.trainer = training.trainer
        self.pad_id = training.policy.tokenizer.pad_token_id
        self.origins: dict[tuple[int, ...], list[str]] = {}  # a row's tokens: where each is from
        self.passes: list[tuple[Any, Any]] = []
        self.losses: list[dict[str, Any]] = []
        self.batches: list[tuple[list[str], list[tuple[Any, Any]]]] = []
        self.agreement: dict[str, Any] = {}
        self._comparing = False
        self._roll_out, self._compute = training.roll_out, self.trainer.compute_loss
        self.trainer.rollout_func = self.roll_out
        self.trainer.compute_loss = self.compute_loss
        self.trainer.model.register_forward_hook(self.after_forward, with_kwargs=True)

    def roll_out(self, prompts: Any, trainer: Any) -> dict[str, Any]:
        rows = self._roll_out(prompts, trainer)
        columns = (rows["prompt_ids"], rows["completion_ids"], rows["env_mask"])
        for prompt, completion, mask in zip(*columns, strict=True):
            origins = ["written" if learnt else "inserted" for learnt in mask]
            self.origins[tuple(prompt + completion)] = ["prompt"] * len(prompt) + origins
        return rows

    def after_forward(self, model: Any, args: Any, given: dict[str, Any], output: Any) -> None:
        """Keep `[B, T, H]` or `[B, T, V]`: where a token's gradient enters the model."""
        if output.logits.requires_grad and not self._comparing:
            output.logits.retain_grad()
            self.passes.append((given["input_ids"], output.logits))

    def compute_loss(self, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        last = len(self.losses) == STEPS * ACCUMULATION - 1  # the adapter has an effect by now
        if last and self.trainer.model.device.type == "cpu":
            self.agreement = self.compare(model, inputs)
        entropies = self.trainer._metrics["train"]["entropy"]
        before, self.passes = len(entropies), []
        loss = self._compute(model, inputs, *given, **named)
        given_names = sorted(name for name, value in inputs.items() if value is not None)
        self.losses.append({"entropies": entropies[before:], "inputs": given_names})
        self.batches.append((self.targets(inputs), self.passes))
        return loss

    def compare(self, model: Any, inputs: Any) -> dict[str, Any]:
        """The same batch through Unsloth's loss and through TRL's own, on the same trainer."""
        trainer = self.trainer
        rewritten = next(c for c in type(trainer).__mro__ if c.__name__ == "UnslothGRPOTrainer")
        pristine = sys.modules[rewritten.__module__].GRPOTrainer
        stock = object.__new__(pristine)
        stock.__dict__.update(trainer.__dict__)
        self._comparing, metrics = True, trainer._metrics
        seen = {"stock": f"{pristine.__module__}.{pristine.__qualname__}"}
        passes = (("unsloth", self._compute, inputs), ("trl", stock._compute_loss, aligned(inputs)))
        for name, compute, given in passes:
            stock._metrics = trainer._metrics = {"train": defaultdict(list)}
            seen[name] = self.differentiate(compute(model, given))
        self._comparing, trainer._metrics = False, metrics
        ours, theirs = seen["unsloth"].pop("gradient"), seen["trl"].pop("gradient")
        seen["gradient_error"] = ((ours - theirs).norm() / theirs.norm()).item()
        return seen

    def differentiate(self, loss: Any) -> dict[str, Any]:
        """Loss, what was logged with it, and the gradient of the whole adapter as one vector."""
        import torch

        weights = [w for w in self.trainer.model.parameters() if w.requires_grad]
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])
        logged = {name: values for name, values in self.trainer._metrics["train"].items() if values}
        return {"loss": loss.item(), "logged": logged, "gradient": gradient}

    def targets(self, inputs: dict[str, Any]) -> list[str]:
        """Of every token in the batch, where the one after it in its row is from."""
        ids = [inputs[f"{part}_ids"].tolist() for part in ("prompt", "completion")]
        targets = []
        for prompt, completion in zip(*ids, strict=True):
            origins = self.origins[tuple(t for t in prompt + completion if t != self.pad_id)]
            targets += [*origins[1:], "end of row"]
        return targets

    def report(self) -> dict[str, Any]:
        """How many tokens of each origin there were, and how many the gradient reached."""
        reached: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        layouts = []
        for targets, passes in self.batches:
            # Without the padding, rows in a batch and rows packed into one are the same sequence.
            trained = [(ids, logits.grad) for ids, logits in passes if logits.grad is not None]
            layouts.append([list(ids.shape) for ids, _ in trained])
            gradients = [g for ids, grad in trained for g in grad[ids != self.pad_id].any(-1)]
            for target, gradient in zip(targets, gradients, strict=True):
                reached[target][0] += 1
                reached[target][1] += bool(gradient)
        return {
            "losses": self.losses,
            "agreement": self.agreement,
            "reached": reached,
            "layouts": layouts,
        }


def aligned(inputs: dict[str, Any]) -> dict[str, Any]:
    """With the reference's log-probs by completion position, `[B, T]`, as TRL has them.

    Unsloth moves every row's padding to its end, so they start at a different place in every row.
    """
    import torch

    reference, completion = inputs["ref_per_token_logps"], inputs["completion_ids"]
    most = reference.shape[1] - completion.shape[1]
    starts = most - (inputs["prompt_mask"] == 0).sum(1, keepdim=True)
    places = starts + torch.arange(completion.shape[1], device=completion.device)
    return inputs | {"ref_per_token_logps": reference.gather(1, places)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
