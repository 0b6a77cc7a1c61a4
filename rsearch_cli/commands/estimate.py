"""`rsearch estimate`: predict requests, cost and GPU memory of a run before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rsearch_cli.commands import options
from rsearch_cli.services.cost import HIT_RATE, NODES, Assumptions
from rsearch_cli.streams import echo
from rsearch_cli.timing.lengths import WRITTEN
from rsearch_cli.timing.prediction import START_SECONDS
from rsearch_cli.ui.output import plain_table, print_json, print_rich

if TYPE_CHECKING:
    from rsearch_cli.recipe.schema import Recipe
    from rsearch_cli.workflows.estimate import PlannedMemory, RunEstimate
    from rsearch_cli.workflows.estimate_time import PredictedTime

ASSUMPTION_PANEL = "Assumptions"

# Row of the table: the figure of a bill, and its format.
_FIGURES = (
    ("searches", "searches", ",.0f"),
    ("  of them paid", "paid_searches", ",.0f"),
    ("judge calls", "judge_calls", ",.0f"),
    ("USD for searches", "usd_search", ",.2f"),
    ("USD for the judge", "usd_judge", ",.2f"),
    ("teacher calls", "teacher_calls", ",.0f"),
    ("USD for the teacher", "usd_teacher", ",.2f"),
    ("USD", "usd", ",.2f"),
)

# Unit of the table of times, from so many seconds on: its length in seconds, and the format.
_UNITS: tuple[tuple[float, str, int, str], ...] = (
    (3600, "hours", 3600, ".2f"),
    (600, "minutes", 60, ".1f"),
    (0, "seconds", 1, ".1f"),
)

_TIMES = {
    "start": "start, first compilation",
    "evaluation before": "evaluation before",
    "generate": "training: generation",
    "search": "training: waiting for searches",
    "reward": "training: scoring",
    "update": "training: update",
    "validations": "validations",
    "evaluation after": "evaluation after",
}


@options.recipe_options("policy.model", "questions.path")
def estimate(
    recipe: options.Recipe = None,
    overrides: options.Overrides = None,
    nodes: Annotated[
        int,
        options.value(None, "Nodes (sub-queries) in a search plan.", ASSUMPTION_PANEL, min=1),
    ] = NODES,
    hit_rate: Annotated[
        float,
        options.value(
            None,
            "Share of requests that an earlier answer to the same question has already sent.",
            ASSUMPTION_PANEL,
            min=0.0,
            max=1.0,
        ),
    ] = HIT_RATE,
    vram: Annotated[
        float | None,
        options.value(
            "GB",
            "Memory of the GPU.",
            ASSUMPTION_PANEL,
            min=0.0,
            show_default="what nvidia-smi reports",
        ),
    ] = None,
    card: Annotated[
        str | None,
        options.value(
            "NAME",
            "Card to predict the time for: rtx-4090, rtx-3090, a100, h100, h200, or this.",
            ASSUMPTION_PANEL,
            show_default="that of this machine",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        options.value(
            "RUN",
            "Run of the same model on the same device, to use its seconds and lengths.",
            ASSUMPTION_PANEL,
        ),
    ] = None,
    written: Annotated[
        float,
        options.value(
            None,
            "Share of rollout.max_new_tokens that a completion writes.",
            ASSUMPTION_PANEL,
            min=0.01,
            max=1.0,
        ),
    ] = WRITTEN,
    trust_settings: options.TrustSettings = False,
    as_json: options.Json = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Predict requests, cost, GPU memory and time of a training run.

    Nothing is sent and no model is loaded.

    Example: rsearch estimate --recipe quickstart --nodes 2 --hit-rate 0.5
    """
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.recipe.trust import as_trusted
    from rsearch_cli.recipe.unread import log_notes
    from rsearch_cli.workflows.estimate import estimate as estimate_run

    recipe = options.require_recipe(recipe, "estimate")
    loaded = load_recipe(recipe, overrides or (), settings, trusted=as_trusted(trust_settings))
    log_notes(loaded, "estimate")
    result = estimate_run(
        loaded.recipe,
        Assumptions(nodes, hit_rate),
        vram,
        card=card,
        calibrate=calibrate,
        written=written,
    )
    if as_json:
        print_json(result.as_json())
    else:
        _print_requests(result)
        _print_memory(result.memory, result.recipe)
        _print_time(result.time)


def _print_requests(result: RunEstimate) -> None:
    recipe, assumptions = result.recipe, result.assumptions
    both = (result.without_cache, result.with_cache)
    table = plain_table("EXPECTED", no_wrap=True)
    for heading in ("WITHOUT CACHE", "WITH CACHE"):
        table.add_column(heading, justify="right", no_wrap=True)
    asks_teacher = bool(result.without_cache.total.teacher_calls)
    unused = "judge" if asks_teacher else "teacher"
    for name, attribute, form in (row for row in _FIGURES if unused not in row[1]):
        table.add_row(name, *(format(getattr(each.total, attribute), form) for each in both))
    if recipe.budget.max_usd is not None:
        stops = (str(each.stop or "not reached") for each in both)
        table.add_row(f"budget.max_usd={recipe.budget.max_usd:g} stops", *stops)
    print_rich(table)
    echo(
        "",
        f"Assumed: {assumptions.nodes} nodes in a plan (--nodes); {assumptions.hit_rate:.0%} of "
        "the requests of further",
        "answers to a question repeat earlier ones (--hit-rate); an empty cache; "
        f"{assumptions.judge_input_tokens} tokens",
        f"to the judge and {recipe.reward.judge.max_output_tokens} back; sources used equally "
        "often; no retries.",
        "USD for a search: " + ", ".join(f"{n} {usd:g}" for n, usd in result.prices.items()),
    )
    if asks_teacher:
        echo(
            "The teacher is counted as if it were asked every question as often as "
            f"sft.teacher.samples={recipe.sft.teacher.samples}",
            f"allows, and wrote {WRITTEN:.0%} of rollout.max_new_tokens each time.",
        )
    if (ties := recipe.train.resample_ties) and recipe.stage == "grpo":
        echo(
            f"train.resample_ties is {ties}: training is counted {1 + ties} times, as if the "
            "rewards of every",
            "group were equal; discarded/rollouts of a finished run has the real number.",
        )
    if recipe.stage == "grpo" and recipe.questions.pass_rate is not None:
        echo(
            f"questions.pass_rate leaves at most {recipe.questions.max_samples} training questions "
            "(questions.profile)."
        )
    if recipe.cache.mode == "offline":
        echo("cache.mode is offline: the run sends nothing, and stops at the first cache miss.")


def _print_memory(planned: PlannedMemory | str, recipe: Recipe) -> None:
    from rsearch_cli.workflows.estimate import engine_lines, memory_lines

    if isinstance(planned, str):
        echo("", f"GPU memory cannot be predicted: {planned}")
        return
    load = planned.plan.workload
    echo(
        "",
        f"MEMORY of each CUDA card in GB, with {load.backend}, for rows of {load.row.total} "
        "tokens,",
        f"{load.rollout_rows} at once in a rollout and {load.update_rows} in an update; rollout, "
        "loss and backward alternate",
        *memory_lines(planned),
        *engine_lines(planned, recipe),
    )
    if planned.vram_gb is None:
        echo("No card was found; --vram GB names one to compare with.")
    for suggestion in planned.suggestions:
        echo(f"  {suggestion}: {suggestion.saves_gb:.2f} GB less, {suggestion.total_gb:.2f}")


def _print_time(time: PredictedTime | str) -> None:
    if isinstance(time, str):
        echo("", f"The time cannot be predicted: {time}")
        return
    table = plain_table(f"TIME ON {time.device.name.upper()}, {time.backend}", no_wrap=True)
    total = sum(time.seconds.values())
    _, unit, size, form = next(row for row in _UNITS if total >= row[0])
    for heading in (unit.upper(), "LOW", "HIGH"):
        table.add_column(heading, justify="right", no_wrap=True)
    columns = (time.seconds, time.low, time.high)
    for part in time.seconds:
        if time.seconds[part]:
            table.add_row(_TIMES[part], *(format(column[part] / size, form) for column in columns))
    table.add_row(unit, *(format(sum(column.values()) / size, form) for column in columns))
    echo("")
    print_rich(table)
    if run := time.measured:
        echo(
            f"Scaled to {run.steps} measured steps of this model on this device, with their",
            "lengths. Low and high: 20% either way, measured on a CPU only.",
        )
        if not run.phases:
            echo(
                f"That run has not ended: {START_SECONDS:.0f} s are assumed for the start, and "
                "evaluations are scaled as",
                "its steps are, which is less exact.",
            )
    else:
        echo(
            "Low and high: completions of 30% and 100% of rollout.max_new_tokens (--written), and",
            "the model's own error. --calibrate RUN takes the figures of a short run instead.",
            "",
        )
        echo(*(f"{c.name}: {c.value} ({c.source})" for c in time.constants))
