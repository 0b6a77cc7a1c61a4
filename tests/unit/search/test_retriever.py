"""The source of type `http`, and our server, against the protocol of Search-R1."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from retriever import DOCUMENT, Retriever

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search.retriever import KEY_VARIABLE, RETRIEVE
from rsearch_cli.search.sources import SearchRequest, SearchSource, open_sources
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.serving import request_body
from rsearch_cli.serving.retriever_server import build_retriever_app
from rsearch_cli.serving.settings import MAX_BODY_BYTES
from rsearch_cli.types import Passage


@pytest.fixture
def server() -> Iterator[Retriever]:
    with Retriever(retry_after="0", stall_seconds=3.0) as server:
        yield server


def open_source(url: str, **options: Any) -> SearchSource:
    config = SourceConfig(type="http", options={"url": url, **options})
    return open_sources(SearchConfig(sources={"General": config}), list)["General"]


def ask(source: SearchSource, request: SearchRequest) -> list[Passage]:
    async def once() -> Any:
        try:
            return await source.search(request)
        finally:
            await source.close()

    return asyncio.run(once())


def test_a_request_is_search_r1s(server) -> None:
    found = ask(open_source(server.url), SearchRequest("harbour", ("Port Ellow",), 2))
    assert found == [Passage("17", "Port Ellow", "A harbour town.", score=0.5)] * 2
    (request,) = server.requests
    body = {"queries": ["harbour Port Ellow"], "topk": 2, "return_scores": True}
    assert request.body == body


@pytest.mark.parametrize(
    "row",
    [
        DOCUMENT,
        {"document": {"id": 17, "title": "Port Ellow", "text": "A harbour town."}},
        {"docid": "17", "contents": '"Port Ellow"\nA harbour town.'},
    ],
)
def test_documents_of_other_shapes_are_read(server, row) -> None:
    server.result = [[row]]
    (found,) = ask(open_source(server.url), SearchRequest("harbour"))
    assert (found.id, found.title, found.text) == ("17", "Port Ellow", "A harbour town.")


@pytest.mark.parametrize(
    "result", [[], [[], []], "no", [[{"document": {}}]], [[{"document": DOCUMENT, "score": "x"}]]]
)
def test_what_is_no_result_is_a_failure(server, result) -> None:
    server.result = result
    with pytest.raises(TransientFailure, match="sent no search results"):
        ask(open_source(server.url), SearchRequest("harbour"))


@pytest.mark.parametrize("url", ["ftp://a.example/", "127.0.0.1:8000"])
def test_an_address_has_to_be_one(url) -> None:
    with pytest.raises(RecipeValueError):
        open_source(url)


class Towns(SearchSource):
    """Two passages for every query."""

    fingerprint = "towns/v1"

    async def search(self, request: SearchRequest) -> list[Passage]:
        return [Passage(str(i), request.query, f"Text {i}", score=1.0 / i) for i in (1, 2, 3)][
            : request.top_k
        ]


@pytest.fixture(params=[None, "a-key-of-sixteen-characters"])
def served(request) -> Iterator[tuple[str, str | None]]:
    import uvicorn

    config = uvicorn.Config(
        build_retriever_app(Towns(), request.param),
        interface="asgi3",
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", request.param
    server.should_exit = True
    thread.join()


def test_the_source_understands_our_server(served, monkeypatch) -> None:
    url, key = served
    if key:
        monkeypatch.setenv(KEY_VARIABLE, key)
    found = ask(open_source(url), SearchRequest("Ellow", top_k=2))
    assert found == [
        Passage("1", "Ellow", "Text 1", score=1.0),
        Passage("2", "Ellow", "Text 2", score=0.5),
    ]


def post(url: str, body: Any, **headers: str) -> tuple[int, str]:
    data = body if isinstance(body, bytes) else dump_json(body).encode()
    request = urllib.request.Request(f"{url}/retrieve", data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        ([], "queries: must be a list of strings"),
        ({"queries": "x"}, "queries: must be a list of strings"),
        ({"queries": ["x"], "topk": 0}, "topk: is 0; it has to be 1 to 100"),
        ({"queries": ["x"], "topk": True}, "topk: is True"),
        ({"queries": ["x"] * 600}, "queries: has 600; send at most 512"),
    ],
)
def test_bad_bodies_get_one_line(served, body, message) -> None:
    url, key = served
    status, text = post(url, body, **({"Authorization": f"Bearer {key}"} if key else {}))
    assert status == 400
    assert message in text


def status_for(*messages: dict[str, Any]) -> list[int]:
    """The status for a body that arrives in these messages, and then never ends; [] without one."""
    waiting = list(messages)
    statuses = []

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.sleep(5)
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": RETRIEVE,
        "headers": [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")],
    }
    asyncio.run(build_retriever_app(Towns())(scope, receive, send))
    return statuses


def test_a_body_in_parts_has_limits(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def part(body: bytes) -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": True}

    half = part(b" " * (MAX_BODY_BYTES // 2 + 1))
    assert status_for(half, half) == [413]
    assert status_for(part(b"{"), {"type": "http.disconnect"}) == []
    assert caplog.records == []
    monkeypatch.setattr(request_body, "BODY_SECONDS", 0.01)
    assert status_for(part(b"{")) == [408]


def test_our_server_wants_its_key_or_this_machine(served) -> None:
    url, key = served
    body = {"queries": ["x"]}
    if key:
        assert post(url, body)[0] == 401
        assert post(url, body, Authorization="Bearer wrong")[0] == 401
    else:
        assert post(url, body, Host="evil.example")[0] == 403
        assert post(url, body)[0] == 200


def test_a_lone_surrogate_fails_no_batch(served) -> None:
    url, key = served
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    status, text = post(url, {"queries": ["x", "\ud800"], "topk": 1}, **headers)
    assert (status, text.count('"contents"')) == (200, 2)


def test_a_key_that_is_sent_back_is_hidden(server, monkeypatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a-key-of-sixteen-characters")
    server.respond = lambda request: (400, {"detail": request.headers["authorization"]})
    with pytest.raises(PermanentFailure) as caught:
        ask(open_source(server.url), SearchRequest("harbour"))
    assert "a-key-of" not in str(caught.value)


def test_scores_come_only_if_asked_for(served) -> None:
    url, key = served
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    plain = post(url, {"queries": ["x", "y"], "topk": 1}, **headers)[1]
    rows = json.loads(plain)["result"]
    assert rows[1] == [{"id": "1", "title": "y", "text": "Text 1", "contents": '"y"\nText 1'}]
