"""The HTTP app: routes, the page's files, and what the server says about itself."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rsearch_cli.serving.api_errors import ApiError
from rsearch_cli.serving.chat import ChatEndpoint, send_json
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.guard import App, Guard, Receive, Scope, Send
from rsearch_cli.serving.mcp_server import open_mcp_endpoint
from rsearch_cli.serving.metrics import ServerMetrics
from rsearch_cli.serving.settings import MAX_BODY_BYTES, ServeSettings

WEB_FOLDER = Path(__file__).parents[1] / "web"
"""The files of the page."""


def build_app(engine: ServingEngine, model: str, settings: ServeSettings) -> Guard:
    """Build the ASGI app of a server.

    Args:
        engine: Answers.
        model: The name under which clients ask for the agent.
        settings: Key and limits.
    """
    from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
    from starlette.routing import Mount, Route, Router
    from starlette.staticfiles import StaticFiles

    metrics = ServerMetrics(engine)
    info = _Information(engine, model, metrics)
    mcp = open_mcp_endpoint(engine, MAX_BODY_BYTES)
    routes: list[Any] = [
        _post("/v1/chat/completions", ChatEndpoint(engine, model, metrics)),
        _get("/v1/models", info.send_models),
        _get("/v1/models/{model:path}", info.send_model),
        _get("/health", info.send_health),
        _get("/metrics", info.send_metrics),
        Route("/mcp", StreamableHTTPASGIApp(mcp)),
    ]
    if (WEB_FOLDER / "index.html").is_file():
        routes.append(_get("/", _Page(WEB_FOLDER / "index.html")))
        routes.append(Mount("/static", StaticFiles(directory=WEB_FOLDER)))
    router = Router(routes=routes, default=_send_not_found, lifespan=lambda app: mcp.run())
    return Guard(router, settings, metrics)


class _Information:
    """The routes that tell about the server."""

    def __init__(self, engine: ServingEngine, model: str, metrics: ServerMetrics) -> None:
        self._engine = engine
        self._metrics = metrics
        agent, dialogue = engine.agent, engine.agent.recipe.dialogue
        self._model = {
            "id": model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "rsearch",
            "rsearch": {
                "name": model,
                "examples": list(agent.examples),
                "style": dialogue.style,
                "follow_up": dialogue.follow_up,
            },
        }

    async def send_models(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, {"object": "list", "data": [self._model]})

    async def send_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path_params"]["model"] != self._model["id"]:
            raise ApiError(404, f"this server has {self._model['id']} only", "model_not_found")
        await send_json(send, self._model)

    async def send_health(self, scope: Scope, receive: Receive, send: Send) -> None:
        engine = self._engine
        state = {"status": "ok", "waiting": engine.waiting, "running": engine.running}
        if scope["state"]["draining"]:
            await send_json(send, {**state, "status": "draining"}, 503)
        else:
            await send_json(send, state)

    async def send_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import Response

        text, kind = self._metrics.render()
        await Response(text, media_type=kind)(scope, receive, send)


class _Page:
    """The page at `/`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import FileResponse

        await FileResponse(self._path)(scope, receive, send)


class _Only:
    """Restricts an app to some methods."""

    def __init__(self, methods: tuple[str, ...], app: Callable[..., Awaitable[None]]) -> None:
        self._methods = methods
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self._methods:
            allowed = ", ".join(self._methods)
            raise ApiError(
                405, f"only {allowed} is allowed here", "method_not_allowed", allow=allowed
            )
        await self._app(scope, receive, send)


def _get(path: str, app: App) -> Any:
    from starlette.routing import Route

    return Route(path, _Only(("GET", "HEAD"), app))


def _post(path: str, app: App) -> Any:
    from starlette.routing import Route

    return Route(path, _Only(("POST",), app))


async def _send_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        message = "there is nothing here; the API is /v1/chat/completions and /v1/models"
        raise ApiError(404, message, "not_found")
