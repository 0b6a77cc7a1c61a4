"""`rsearch infer`: a question to a search agent, or a session of them.

Place in the path: a command over `commands.asking` and `session`. On failure: one question ends
with the exit code of what went wrong; in a session it is a line, and the session goes on.
"""

from __future__ import annotations

from typing import Annotated

import typer

from rsearch_cli.commands.options import (
    POLICY_PANEL,
    CacheDir,
    EndpointModel,
    EndpointUrl,
    ExaKey,
    Json,
    Model,
    OpenaiKey,
    OptionalRecipe,
    Overrides,
    TrustRemoteCode,
    TrustSettings,
    use_services,
)
from rsearch_cli.ui.output import print_json


def infer(
    question: Annotated[
        str | None, typer.Argument(help="What to ask; without it a session begins.")
    ] = None,
    recipe: OptionalRecipe = None,
    overrides: Overrides = None,
    model: Model = None,
    endpoint: EndpointUrl = None,
    endpoint_model: EndpointModel = None,
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
    exa_api_key: ExaKey = None,
    openai_api_key: OpenaiKey = None,
    cache_dir: CacheDir = None,
    trust_settings: TrustSettings = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Ask a search agent, and watch it think, search and answer.

    Example: rsearch infer "Who founded Vosbe Press?"
    """
    from rsearch_cli.workflows.ask import InferOptions, open_agent

    if as_json and question is None:
        raise typer.BadParameter("--json goes with a question; a session has /save FILE.json")
    if question is not None and not question.strip():
        raise typer.BadParameter("the question is empty")
    use_services(exa_api_key=exa_api_key, openai_api_key=openai_api_key, cache_dir=cache_dir)
    options = InferOptions(
        recipe=recipe,
        overrides=overrides or [],
        model=model,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        max_turns=max_turns,
        temperature=temperature,
        seed=seed,
        question=question,
        trust_settings=trust_settings,
        trust_remote_code=trust_remote_code,
    )
    with open_agent(options) as agent:
        if question is None:
            from rsearch_cli.session.input import open_input
            from rsearch_cli.session.repl import Session
            from rsearch_cli.session.screen import Screen

            Session(agent, Screen()).run(open_input())
        elif as_json:
            print_json(agent.ask(question).as_json())
        else:
            from rsearch_cli.session.screen import Screen

            screen = Screen()
            screen.finish(agent.ask(question, screen))
