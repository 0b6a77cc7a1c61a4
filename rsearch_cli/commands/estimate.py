"""`rsearch estimate`: what a run will send, cost and take of a card, before anything is started.

Place in the path: a command over `services.estimate` and `memory`. On failure: recipe errors pass
through to `app`; so do those of the question set, which is opened only where the recipe evaluates
all of it. A model whose config is not at hand has no memory plan: that is told, and with `--vram`,
which asks for it, it is an error.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.commands.options import (
    Json,
    Overrides,
    TrustSettings,
)
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json, print_rich

if TYPE_CHECKING:
    from rsearch_cli.recipe.schema import Recipe
    from rsearch_cli.services.cost import Assumptions, Bill, Estimate
    from rsearch_cli.workflows.estimate import PlannedMemory

# Row of the table: the figure of a bill, and its form.
_FIGURES = (
    ("searches", "searches", ",.0f"),
    ("  of them paid", "paid_searches", ",.0f"),
    ("judge calls", "judge_calls", ",.0f"),
    ("USD for searches", "usd_search", ",.2f"),
    ("USD for verdicts", "usd_judge", ",.2f"),
    ("USD", "usd", ",.2f"),
)


def estimate(
    recipe: Annotated[str, typer.Option(help="A recipe's name or path.")] = "quickstart",
    overrides: Overrides = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes of a plan; default 3.")] = None,
    hit_rate: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of what further answers to a question send that an earlier one has sent; "
            "default 0.3.",
        ),
    ] = None,
    vram: Annotated[
        float | None,
        typer.Option(min=0.0, help="Memory of the card in GB; default: what nvidia-smi says."),
    ] = None,
    trust_settings: TrustSettings = False,
    as_json: Json = False,
) -> None:
    """Print the searches, judge calls, dollars and GPU memory that a training run will take.

    Example: rsearch estimate --recipe quickstart --nodes 2 --hit-rate 0.5
    """
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.recipe.trust import as_trusted
    from rsearch_cli.recipe.unread import tell_notes
    from rsearch_cli.services.cost import HIT_RATE, NODES, Assumptions, estimate_run

    assumptions = Assumptions(nodes or NODES, HIT_RATE if hit_rate is None else hit_rate)
    named = load_recipe(recipe, overrides or (), trusted=as_trusted(trust_settings))
    tell_notes(named, "estimate")
    loaded = named.recipe
    evaluated = _count_evaluated(loaded)
    estimates = {
        "without_cache": estimate_run(loaded, evaluated, assumptions, "none"),
        "with_cache": estimate_run(loaded, evaluated, assumptions, "empty"),
    }
    memory = _plan_memory(loaded, vram)
    if as_json:
        told = _describe_memory(memory)
        print_json({**_describe(loaded, assumptions, estimates), **told})
    else:
        _print(loaded, assumptions, estimates)
        _print_memory(memory)


def _plan_memory(recipe: Recipe, vram: float | None) -> PlannedMemory | str:
    """The memory plan, or why there is none.

    Raises:
        PolicyError: There is none, and `vram` asks for it.
    """
    from rsearch_cli.errors import PolicyError
    from rsearch_cli.memory.card import find_vram
    from rsearch_cli.workflows.estimate import plan_for, presumed_backend

    try:
        return plan_for(recipe, presumed_backend(recipe), find_vram() if vram is None else vram)
    except PolicyError as unknown:
        if vram is not None:
            raise
        return str(unknown)


def _describe_memory(memory: PlannedMemory | str) -> dict[str, Any]:
    from rsearch_cli.workflows.estimate import describe_memory

    if isinstance(memory, str):
        return {"fits": None, "total_gb": None, "memory_unknown": memory}
    return describe_memory(memory)


def _print_memory(memory: PlannedMemory | str) -> None:
    from rsearch_cli.workflows.estimate import print_memory

    if isinstance(memory, str):
        echo("", f"no memory plan: {memory}")
    else:
        print_memory(memory)


def _count_evaluated(recipe: Recipe) -> int:
    """Questions of one evaluation; only a recipe without a limit has them counted."""
    if recipe.evaluate.limit is not None:
        return recipe.evaluate.limit
    from rsearch_cli.questions.sets import open_question_set

    return len(open_question_set(recipe.questions, recipe.seed).load(recipe.evaluate.split, None))


def _describe(
    recipe: Recipe, assumptions: Assumptions, estimates: dict[str, Estimate]
) -> dict[str, Any]:
    return {
        **{name: _describe_bill(estimate.total) for name, estimate in estimates.items()},
        "cache_mode": recipe.cache.mode,
        "max_usd": recipe.budget.max_usd,
        "stops": {name: e.stop and asdict(e.stop) for name, e in estimates.items()},
        "assumptions": asdict(assumptions),
    }


def _describe_bill(bill: Bill) -> dict[str, Any]:
    return {
        "searches": round(bill.searches),
        "paid_searches": round(bill.paid_searches),
        "judge_calls": round(bill.judge_calls),
        "usd_search": round(bill.usd_search, 4),
        "usd_judge": round(bill.usd_judge, 4),
        "usd": round(bill.usd, 4),
    }


def _print(recipe: Recipe, assumptions: Assumptions, estimates: dict[str, Estimate]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("EXPECTED", no_wrap=True)
    for heading in ("WITHOUT CACHE", "WITH CACHE"):
        table.add_column(heading, justify="right", no_wrap=True)
    bills = [estimate.total for estimate in estimates.values()]
    for name, attribute, form in _FIGURES:
        table.add_row(name, *(format(getattr(bill, attribute), form) for bill in bills))
    if recipe.budget.max_usd is not None:
        stops = (str(estimate.stop or "not reached") for estimate in estimates.values())
        table.add_row(f"budget.max_usd={recipe.budget.max_usd:g} stops", *stops)
    print_rich(table)
    echo(
        "",
        f"assumed: {assumptions.nodes} nodes a plan (--nodes); {assumptions.hit_rate:.0%} of "
        "what further answers to a question send",
        "was sent for an earlier one (--hit-rate), from an empty cache; "
        f"{assumptions.judge_input_tokens} tokens in and {recipe.reward.judge.max_output_tokens} "
        "out a",
        "verdict; sources asked equally often; no retries. Prices are the recipe's.",
    )
    if recipe.cache.mode == "offline":
        echo("cache.mode is offline: the run sends nothing, and stops at the first miss.")
