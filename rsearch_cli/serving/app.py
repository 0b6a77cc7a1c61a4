"""The HTTP app: routes, the page's files, and what the server says about itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from rsearch_cli.serving.api_errors import ApiError
from rsearch_cli.serving.chat import ChatEndpoint, send_json
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.guard import Guard, Receive, Scope, Send, send_error
from rsearch_cli.serving.metrics import ServerMetrics
from rsearch_cli.serving.settings import WEB_FOLDER, ServeSettings

_STATUS_CODES = {404: "not_found", 405: "method_not_allowed"}


def build_app(engine: ServingEngine, model: str, settings: ServeSettings) -> Guard:
    """Build the ASGI app of a server.

    Args:
        engine: Answers.
        model: The name under which clients ask for the agent.
        settings: Key and limits.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    metrics = ServerMetrics(engine)
    own = _OwnRoutes(engine, model, metrics)
    routes = [
        Route("/v1/chat/completions", ChatEndpoint(engine, model, metrics), methods=["POST"]),
        Route("/v1/models", _Get(own.models)),
        Route("/v1/models/{model:path}", _Get(own.one_model)),
        Route("/health", _Get(own.health)),
        Route("/metrics", _Metrics(metrics)),
    ]
    if (WEB_FOLDER / "index.html").is_file():
        routes.append(Route("/", own.page))
        routes.append(Mount("/static", StaticFiles(directory=WEB_FOLDER)))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse})
    guard = Guard(app, settings, metrics)
    own.is_draining = lambda: guard.draining
    return guard
