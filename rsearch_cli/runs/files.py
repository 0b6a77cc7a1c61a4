"""The name of every file and folder inside a run folder or an evaluation folder."""

from __future__ import annotations

# A training run.
RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
TRAJECTORIES = "trajectories.jsonl"
VALIDATION = "validation.jsonl"
SPEND_BY_STEP = "spend_by_step.jsonl"
"""What each step has paid for; a repeated step needs the rows of its first attempt, too."""
SUMMARY = "summary.json"
PREDICTIONS = "predictions"
ADAPTER = "adapter"
BEST = "best"
START = "start"
PROFILE = "profile.json"
"""The pass rates that a run chose or ordered its questions by."""
TRACES = "traces.jsonl"
TRACE_STATS = "traces.json"
TEACHER_ANSWERS = "teacher.jsonl"
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

STEP_ROWS = (METRICS, TRAJECTORIES, VALIDATION)
"""Files of a run with rows of steps; a resumed run repeats the steps after its checkpoint."""

GROWING_ROWS = (*STEP_ROWS, SPEND_BY_STEP)
"""Files of a run that a kill may leave with half a row at the end."""

# The recipe comes last: a folder with a recipe is a run, even if the rest has been removed.
OF_A_RUN = (
    *(PARTIAL, ENVIRONMENT, *GROWING_ROWS, SUMMARY, ADAPTER, BEST, PREDICTIONS, SPEND, WANDB_RUN),
    *(WANDB, START, PROFILE, TRACES, TRACE_STATS, TEACHER_ANSWERS, PUSH, VIEW),
    *(f"{name}{DAMAGED}" for name in GROWING_ROWS),
    RECIPE,
)
OF_AN_EVALUATION = (
    *(EVALUATION, RECIPE, ANSWERS, RESULTS, REPORT, SPEND, SPEND_LOCK, LOCK, PARTIAL, VIEW),
)

LEFT_BEFORE_START = (PARTIAL, LOCK, SPEND, SPEND_LOCK)
"""Left by a start that failed or was killed before there was a run; a run that is then started in
the folder counts what was already spent."""


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
