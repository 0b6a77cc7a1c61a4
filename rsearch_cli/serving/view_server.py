"""Serves the viewer to this machine, with the data of runs that are still growing."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rsearch_cli.errors import RunFolderError
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.serving.api_errors import ApiError
from rsearch_cli.serving.guard import App, Receive, Scope, Send, check_addressed_here
from rsearch_cli.serving.local_server import guarded, run_server
from rsearch_cli.viewer.collection import Collection
from rsearch_cli.viewer.html_file import TEMPLATE, WEB
from rsearch_cli.workflows.view import Progress


def serve_view(
    folders: Sequence[Path],
    listener: socket.socket,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the viewer until Ctrl-C or SIGTERM.

    Args:
        folders: Folders of runs and evaluations; what is added to them is shown.
        listener: A bound socket on this machine; closed at the end.
        on_ready: Called with the address of the page.

    Raises:
        RunFolderError: A folder contains neither a run nor an evaluation, or cannot be read.
    """
    collection = Collection(folders)
    collection.refresh(Progress().count_rows)
    host, port = listener.getsockname()[:2]
    app = build_view_app(LiveData(collection))
    run_server(app, listener, lambda: on_ready(f"http://{host}:{port}/"))


class LiveData:
    """Index and parts as JSON, read anew for every request, as far as they have changed.

    Args:
        collection: Used by one request at a time.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._lock = threading.Lock()
        self._state: Any = None
        self._index, self._tag = b"", ""

    def index(self) -> tuple[bytes, str]:
        """Return the index, and its entity tag."""
        with self._lock:
            self._collection.refresh()
            state = self._collection.state()
            if state != self._state:
                self._index = dump_json(self._collection.index(live=True)).encode()
                self._tag = f'"{hashlib.sha256(self._index).hexdigest()[:32]}"'
                self._state = state
            return self._index, self._tag

    def part(self, source: int, part: int) -> bytes:
        """Return a part.

        Raises:
            ApiError: There is none, or its rows were replaced.
        """
        sources = self._collection.sources
        with self._lock:
            try:
                if source >= len(sources):
                    raise LookupError(f"source {source} of {len(sources)}")
                return dump_json(sources[source].read_part(part)).encode()
            except LookupError as error:
                raise ApiError(404, f"there is no {error}", "not_found") from error
            except RunFolderError as error:
                raise ApiError(409, str(error), "changed") from error


def build_view_app(data: LiveData, web: Path = WEB) -> App:
    """Build the ASGI app: the page, its files and its data, for this machine only.

    Args:
        data: What the page shows.
        web: Folder of the page's files.
    """
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import FileResponse, Response
    from starlette.routing import Mount, Route, Router
    from starlette.staticfiles import StaticFiles

    async def send_page(request: Request) -> Response:
        return FileResponse(web / TEMPLATE)

    async def send_index(request: Request) -> Response:
        body, tag = await run_in_threadpool(data.index)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(body, media_type="application/json", headers={"ETag": tag})

    async def send_part(request: Request) -> Response:
        numbers = (request.path_params[name] for name in ("source", "part"))
        body = await run_in_threadpool(data.part, *numbers)
        return Response(body, media_type="application/json")

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        raise ApiError(404, "there is nothing here; the page is at /", "not_found")

    routes = [
        Route("/", send_page),
        Route("/data/index.json", send_index),
        Route("/data/part-{source:int}-{part:int}.json", send_part),
        Mount("/static", StaticFiles(directory=web)),
    ]
    return partial(guarded, Router(routes=routes, default=refuse), check_addressed_here)
