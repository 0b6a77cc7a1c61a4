"""`rsearch infer`: a question to a search agent, or a session of them.

Place in the path: a command over `commands.asking` and `session`. On failure: one question ends
with the exit code of what went wrong; in a session it is a line, and the session goes on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rsearch_cli.commands.keys import keep_keys
from rsearch_cli.commands.output import print_json

POLICY_PANEL, SERVICES_PANEL = "Policy", "Services"


def infer(
    question: Annotated[
        str | None, typer.Argument(help="What to ask; without it a session begins.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A recipe's name or path; default: the run's own, else quickstart."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Run folder, adapter, model folder, Hub id or builtin:nano.",
            rich_help_panel=POLICY_PANEL,
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask this OpenAI-compatible server instead of local weights.",
            rich_help_panel=POLICY_PANEL,
        ),
    ] = None,
    endpoint_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The model's name on that server.", rich_help_panel=POLICY_PANEL
        ),
    ] = None,
    max_turns: Annotated[
        int | None, typer.Option(help="Most searches in one answer.", rich_help_panel=POLICY_PANEL)
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0, max=4.0, help="0 takes the likeliest token.", rich_help_panel=POLICY_PANEL
        ),
    ] = 0.0,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of the invented world, and of what is drawn at a temperature.",
            rich_help_panel=POLICY_PANEL,
        ),
    ] = None,
    exa_api_key: Annotated[
        str | None, typer.Option(help="Better: EXA_API_KEY.", rich_help_panel=SERVICES_PANEL)
    ] = None,
    openai_api_key: Annotated[
        str | None, typer.Option(help="Better: OPENAI_API_KEY.", rich_help_panel=SERVICES_PANEL)
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The cache folder; default RSEARCH_CACHE_DIR, else the one of the user.",
            rich_help_panel=SERVICES_PANEL,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Ask a search agent, and watch it think, search and answer.

    Example: rsearch infer "Who founded Vosbe Press?"
    """
    from rsearch_cli.commands.asking import InferOptions, open_agent

    if as_json and question is None:
        raise typer.BadParameter("--json goes with a question; a session has /save FILE.json")
    if question is not None and not question.strip():
        raise typer.BadParameter("the question is empty")
    keep_keys({"--exa-api-key": exa_api_key, "--openai-api-key": openai_api_key})
    if cache_dir is not None:
        os.environ["RSEARCH_CACHE_DIR"] = str(cache_dir)
    options = InferOptions(
        recipe=recipe,
        overrides=overrides or [],
        model=model,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        max_turns=max_turns,
        temperature=temperature,
        seed=seed,
    )
    with open_agent(options) as agent:
        if question is None:
            from rsearch_cli.session.loop import Session
            from rsearch_cli.session.reader import open_reader
            from rsearch_cli.session.screen import Screen

            Session(agent, Screen()).run(open_reader())
        elif as_json:
            print_json(agent.ask(question).as_json())
        else:
            from rsearch_cli.session.screen import Screen

            screen = Screen()
            screen.finish(agent.ask(question, screen))
