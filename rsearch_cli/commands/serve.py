"""`rsearch serve`: offer a search agent to other programs over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer

from rsearch_cli.commands.options import (
    CacheDir,
    EndpointModel,
    EndpointUrl,
    ExaKey,
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

SERVER_PANEL = "Server"
LOCAL = "127.0.0.1"
PORT = 8000

Mcp = Annotated[
    bool,
    typer.Option(
        "--mcp",
        help="Serve MCP on stdin and stdout instead of HTTP. Over HTTP, it is at /mcp.",
        rich_help_panel=SERVER_PANEL,
    ),
]
Host = Annotated[
    str,
    typer.Option(
        metavar="HOST",
        help="Address to listen on. Any that other machines can reach needs a key.",
        rich_help_panel=SERVER_PANEL,
    ),
]
Port = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        help="Port to listen on; 0 takes any free port.",
        rich_help_panel=SERVER_PANEL,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Key that clients have to send. Prefer RSEARCH_API_KEY.",
        rich_help_panel=SERVER_PANEL,
    ),
]
MaxWaiting = Annotated[
    int,
    typer.Option(
        min=1,
        max=10_000,
        help="Most requests that wait for their turn; others are refused.",
        rich_help_panel=SERVER_PANEL,
    ),
]
RateLimit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most requests a minute from one client address.",
        show_default="none on this machine, 120 for others",
        rich_help_panel=SERVER_PANEL,
    ),
]
DrainSeconds = Annotated[
    float,
    typer.Option(
        min=0.0,
        help="How long requests may take to finish after SIGTERM or Ctrl-C.",
        rich_help_panel=SERVER_PANEL,
    ),
]


@recipe_options("rollout.max_turns", "dialogue.follow_up", "dialogue.style", "seed")
def serve(
    recipe: RunRecipe = None,
    source: Source = None,
    overrides: Overrides = None,
    model: Model = None,
    endpoint: EndpointUrl = None,
    endpoint_model: EndpointModel = None,
    mcp: Mcp = False,
    host: Host = LOCAL,
    port: Port = PORT,
    api_key: ApiKey = None,
    max_waiting: MaxWaiting = 64,
    rate_limit: RateLimit = None,
    drain_seconds: DrainSeconds = 30.0,
    exa_api_key: ExaKey = None,
    openai_api_key: OpenaiKey = None,
    cache_dir: CacheDir = None,
    trust_settings: TrustSettings = False,
    trust_remote_code: TrustRemoteCode = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Serve a search agent with OpenAI's API, or to MCP clients.

    Example: rsearch serve --model runs/quickstart
    """
    from rsearch_cli.key_flags import export_keys
    from rsearch_cli.services.keys import read_key
    from rsearch_cli.serving.mcp_stdio import serve_stdio
    from rsearch_cli.serving.server import name_model, open_listener
    from rsearch_cli.serving.server import serve as run_server
    from rsearch_cli.serving.settings import KEY_VARIABLE, ServeSettings
    from rsearch_cli.workflows.ask import Agent

    if mcp and ((host, port) != (LOCAL, PORT) or api_key is not None):
        raise UsageError(
            "--mcp serves one client over stdin and stdout, without an address or a key; without "
            "--mcp, MCP clients connect to http://HOST:PORT/mcp"
        )
    export_keys({"--api-key": api_key})
    key = read_key(KEY_VARIABLE) or None
    use_services(exa_api_key=exa_api_key, openai_api_key=openai_api_key, cache_dir=cache_dir)
    open_agent = partial(
        Agent.from_pretrained,
        model,
        recipe=recipe,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        source=source,
        overrides=overrides or (),
        settings=settings,
        trust_settings=trust_settings,
        trust_remote_code=trust_remote_code,
    )
    if mcp:
        serve_stdio(open_agent, max_waiting)
        return
    # The address comes first, because opening the agent may take minutes.
    with open_listener(host, port, key) as listener, open_agent() as agent:
        served_as = name_model(agent.recipe, model or agent.recipe.policy.model)
        limits = ServeSettings(key, max_waiting, rate_limit, drain_seconds)
        run_server(agent, listener, served_as, limits)
