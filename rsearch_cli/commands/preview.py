"""`rsearch preview`: show what a recipe trains on, before training starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.commands import options
from rsearch_cli.terminal import on_one_line, printable
from rsearch_cli.ui.output import plain_table, print_json, rich_stdout

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

TRAINED, INSERTED = "green", "cyan"
MARKS = ("⟦", "⟧")
"""Marks around inserted text where there is no colour."""


@options.recipe_options("questions.path", "policy.model")
def preview(
    recipe: options.Recipe = None,
    overrides: options.Overrides = None,
    samples: Annotated[int, typer.Option(min=0, help="Number of questions to list.")] = 5,
    rollout: Annotated[
        bool, typer.Option(help="Load the model and sample one completion, which may search.")
    ] = True,
    trust_settings: options.TrustSettings = False,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Show the questions, token lengths, exact prompt and one rollout of a recipe.

    Example: rsearch preview --recipe quickstart
    """
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.recipe.trust import as_trusted
    from rsearch_cli.recipe.unread import log_notes
    from rsearch_cli.workflows.preview import make_preview

    recipe = options.require_recipe(recipe, "preview")
    flags = options.with_remote_code(settings, trust_remote_code)
    loaded = load_recipe(recipe, overrides or (), flags, trusted=as_trusted(trust_settings))
    log_notes(loaded, "preview")
    result = {
        "recipe": loaded.name,
        **make_preview(loaded.recipe, samples, with_rollout=rollout),
    }
    if as_json:
        print_json(result)
        return
    with rich_stdout() as console:
        _print(console, result)


def _print(console: Console, result: dict[str, Any]) -> None:
    from rich.text import Text

    subject = f"{result['recipe']}: {result['questions']}; model {result['model']}"
    console.print(on_one_line(subject), "")
    console.print(_counts_table(result), "")
    console.print(_lengths_table(result["tokens"]))
    console.print(_room(result["tokens"]))
    if result["samples"]:
        console.print(_samples_table(result["samples"]), "")
    prompt = result["prompt"]
    console.rule(on_one_line(f"prompt of {prompt['question']}, {prompt['tokens']} tokens"))
    # Wrapped by the terminal, if at all: this is the exact prompt.
    console.print(Text(printable(prompt["text"])), soft_wrap=True)
    if result["rollout"] is not None:
        _print_rollout(console, result["rollout"])


def _counts_table(result: dict[str, Any]) -> Table:
    table = _table("", "TRAINING", "EVALUATION")
    sides = [result["training"], result["evaluation"]]
    table.add_row("split", *(side["split"] for side in sides))
    table.add_row("questions", *(f"{side['n']:,}" for side in sides))
    for group in ("type", "level"):
        names = sorted({name for side in sides for name in side[f"by_{group}"]})
        for name in names:
            counts = (f"{side[f'by_{group}'].get(name, 0):,}" for side in sides)
            table.add_row(on_one_line(f"{group} {name}"), *counts)
    return table


def _lengths_table(tokens: dict[str, Any]) -> Table:
    table = _table("TOKENS", "MIN", "MEDIAN", "95 %", "MAX")
    for name in ("question", "prompt"):
        table.add_row(name, *(f"{tokens[name][key]:,}" for key in ("min", "p50", "p95", "max")))
    return table


def _room(tokens: dict[str, Any]) -> str:
    return (
        f"of {tokens['measured']:,} training questions; {tokens['cramped']:,} prompts leave less "
        f"room than rollout.max_new_tokens={tokens['max_new_tokens']:,} in "
        f"policy.max_seq_length={tokens['max_seq_length']:,}\n"
    )


def _samples_table(samples: list[dict[str, Any]]) -> Table:
    table = _table("TYPE", "LEVEL")
    table.add_column("QUESTION")
    table.add_column("ANSWER")
    for sample in samples:
        answers = " | ".join(sample["answers"])
        cells = (sample["type"], sample["level"], sample["question"], answers)
        table.add_row(*map(on_one_line, cells))
    return table


def _table(*headings: str) -> Table:
    table = plain_table()
    for heading in headings:
        numbers = heading not in ("", "TOKENS", "TYPE", "LEVEL")
        table.add_column(heading, justify="right" if numbers else "left", no_wrap=True)
    return table


def _print_rollout(console: Console, rollout: dict[str, Any]) -> None:
    from rich.text import Text

    coloured = console.is_terminal and not console.no_color
    console.rule(Text("rollout"))
    console.print(_masked(rollout["segments"], coloured), soft_wrap=True)
    console.rule()
    trained = f"{rollout['trained_tokens']} tokens trained"
    inserted = f"{rollout['inserted_tokens']} inserted, masked out of the loss"
    if coloured:
        legend = Text.assemble((trained, TRAINED), ", ", (inserted, INSERTED))
    else:
        legend = Text(f"{trained}, {MARKS[0]}{inserted}{MARKS[1]}")
    console.print(legend)
    for problem in rollout["problems"]:
        console.print(on_one_line(f"plan not valid: {problem}"))
    answer = "none" if rollout["answer"] is None else rollout["answer"]
    references = " | ".join(rollout["references"])
    line = f"answer {answer}   reference {references}   ended by {rollout['stop']}"
    console.print(on_one_line(line))


def _masked(segments: list[dict[str, Any]], coloured: bool) -> Text:
    """Return the completion, with inserted text marked by colour or by brackets."""
    from rich.text import Text

    text = Text()
    for segment in segments:
        shown = printable(segment["text"])
        if coloured:
            text.append(shown, style=TRAINED if segment["trained"] else INSERTED)
        else:
            text.append(shown if segment["trained"] else shown.join(MARKS))
    return text
