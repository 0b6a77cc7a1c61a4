"""The name of every file and folder inside a run folder or an evaluation folder."""

from __future__ import annotations

# A training run.
RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
TRAJECTORIES = "trajectories.jsonl"
VALIDATION = "validation.jsonl"
SUMMARY = "summary.json"
PREDICTIONS = "predictions"
ADAPTER = "adapter"
BEST = "best"
START = "start"
TRACES = "traces.jsonl"
TRACE_STATS = "traces.json"
PUSH = "push"
WANDB_RUN = "wandb.json"
WANDB = "wandb"

CHECKPOINT = "checkpoint-"
"""Start of a checkpoint folder's name; the optimiser step follows."""

DAMAGED = ".damaged"
"""End of the name of a file or checkpoint that was set aside."""

# In an adapter folder, as PEFT writes it, and what is added there.
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
VALIDATION_ROW = "validation.json"
"""In `best/`: the row of `validation.jsonl` that the adapter was kept for."""

SEAL = "seal.json"
"""In a checkpoint: sizes and hashes of its files, written last."""

# An evaluation; it has a recipe, too.
EVALUATION = "evaluation.json"
ANSWERS = "predictions.jsonl"
RESULTS = "results.json"
REPORT = "report.md"

# Both. A lock file exists while a process holds the lock; PARTIAL is the staging area; VIEW is
# written by `rsearch view`.
VIEW = "view.html"
SPEND = "spend.json"
SPEND_LOCK = ".spend.json.lock"
LOCK = ".lock"
PARTIAL = ".partial"


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint folder saved after an optimiser step."""
    return f"{CHECKPOINT}{step}"


def predictions_name(evaluation: str, decoding: str) -> str:
    """Return the file of a run's predictions.

    Args:
        evaluation: `before` or `after`.
        decoding: `greedy` or `sampled`.
    """
    return f"{PREDICTIONS}/{evaluation}-{decoding}.jsonl"
