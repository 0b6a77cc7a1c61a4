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

# An evaluation; it has a recipe, too.
EVALUATION = "evaluation.json"
ANSWERS = "predictions.jsonl"
RESULTS = "results.json"
REPORT = "report.md"

# Both. A lock is there while a process holds it; PARTIAL is the staging area.
SPEND = "spend.json"
SPEND_LOCK = ".spend.json.lock"
LOCK = ".lock"
PARTIAL = ".partial"
