"""`rsearch infer`: ask a search agent one question, or open a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rsearch_cli.commands.options import (
    MODEL_PANEL,
    CacheDir,
    EndpointModel,
    EndpointUrl,
    ExaKey,
    Json,
    Model,
    OpenaiKey,
    Overrides,
    RunRecipe,
    Source,
    TrustRemoteCode,
    TrustSettings,
    recipe_options,
    use_services,
)
from rsearch_cli.errors import UsageError
from rsearch_cli.ui.output import print_json


@recipe_options("rollout.max_turns", "seed", "dialogue.follow_up", "dialogue.style")
def infer(
    question: Annotated[
        str | None, typer.Argument(help="The question. Without one, an interactive session opens.")
    ] = None,
    recipe: RunRecipe = None,
    source: Source = None,
    overrides: Overrides = None,
    model: Model = None,
    endpoint: EndpointUrl = None,
    endpoint_model: EndpointModel = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=4.0,
            help="Sampling temperature; 0 is greedy decoding.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = 0.0,
    exa_api_key: ExaKey = None,
    openai_api_key: OpenaiKey = None,
    cache_dir: CacheDir = None,
    trust_settings: TrustSettings = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:LINE]",
            help="Replay a stored answer, without a model: of --json, /save, a run or an "
            "evaluation. QUESTION picks the first that contains it.",
        ),
    ] = None,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Ask a search agent, and watch it think, search and answer.

    Example: rsearch infer "Who founded Vosbe Press?"
    """
    from rsearch_cli.session.keyboard import typing_ahead

    if watch is not None:
        if as_json or model or recipe or source or endpoint or overrides:
            raise UsageError(
                "--watch replays what is stored, without a model; of the other options and "
                "arguments, only QUESTION goes with it"
            )
        from rsearch_cli.session.screen import Screen
        from rsearch_cli.session.stored import read_stored
        from rsearch_cli.session.watch import watch as show

        with typing_ahead():
            show(read_stored(watch, question), Screen())
        return
    from rsearch_cli.workflows.ask import Agent

    if as_json and question is None:
        raise UsageError("--json needs a question; in a session, use /save FILE.json")
    if question is not None and not question.strip():
        raise UsageError("the question is empty")
    use_services(exa_api_key=exa_api_key, openai_api_key=openai_api_key, cache_dir=cache_dir)
    with (
        typing_ahead(),
        Agent.from_pretrained(
            model,
            recipe=recipe,
            endpoint=endpoint,
            endpoint_model=endpoint_model,
            source=source,
            overrides=overrides or (),
            settings=settings,
            temperature=temperature,
            questions=[question] if question else (),
            trust_settings=trust_settings,
            trust_remote_code=trust_remote_code,
        ) as agent,
    ):
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
