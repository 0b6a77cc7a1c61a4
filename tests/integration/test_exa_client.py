"""The Exa source on the real exa-py, against a server that does wrong whatever can go wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import resource
import threading
import time
import traceback
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from exa import API_KEY, ExaServer, make_pages
from faults import CHAOS, Fault, Faults
from local_http import Answer, Raw, Received

from rsearch_cli.errors import AccessDenied
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search import exa_client
from rsearch_cli.search.exa import ExaOptions, ExaSource, open_exa
from rsearch_cli.search.exa_client import ExaClient
from rsearch_cli.search.sources import Found, SearchRequest
from rsearch_cli.services.event_loop import EventLoop
from rsearch_cli.services.http import open_client
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.types import Passage

pytestmark = pytest.mark.usefixtures("messages_on_stderr")


@pytest.fixture
def server() -> Iterator[ExaServer]:
    with ExaServer(stall_seconds=20.0) as server:
        yield server


def search(server: ExaServer, name: str = "General", **options: Any) -> list[Passage]:
    source = ExaSource(name, ExaOptions(**options), ExaClient(API_KEY, server.url))
    return asyncio.run(source.search(SearchRequest("who made the lamps", top_k=2))).passages


class EchoServer(ExaServer):
    """A server, or a proxy before it, that says in every answer what it was sent."""

    status = 400
    html = False

    def respond(self, request: Received) -> Answer:
        said = f"not with {request.headers['x-api-key']}: " + "so it is " * 60
        return self.status, said if self.html else {"error": said}


def test_pages_become_passages_in_the_order_of_the_answer(server: ExaServer) -> None:
    first, second = search(server, max_characters=140)
    pages = make_pages({"query": "who made the lamps", "numResults": 2})
    assert [first.id, second.id] == [page["url"] for page in pages]
    assert first == Passage(
        id=pages[0]["url"],
        title="Who Made The Lamps, part 1",
        text="Sentence 1 of part 1 tells of who made the lamps in the web. "
        "Sentence 2 of part 1 tells of who made the lamps in the web.",
    )


def test_each_source_name_searches_its_category(
    server: ExaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXA_API_KEY", API_KEY)
    monkeypatch.setenv("EXA_BASE_URL", f"{server.url}/")
    names = ("General", "News", "Academy", "Own")
    configs = {name: SourceConfig(type="exa") for name in names}
    configs["Firms"] = SourceConfig(type="exa", options={"category": "company"})
    sources = open_exa(configs, list, None)

    async def ask_all() -> None:
        for source in sources.values():
            await source.search(SearchRequest("q"))

    asyncio.run(ask_all())
    assert [r.body.get("category") for r in server.requests] == [
        None,
        "news",
        "publication",
        None,
        "company",
    ]
    assert server.connections == 1  # shared by all names


def test_no_result_is_an_answer() -> None:
    with ExaServer(lambda body: []) as server:
        assert search(server) == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.UNAUTHORIZED, "the key is wrong or was withdrawn"),
        (Fault.NO_CREDITS, "the account has no credit left"),
        (Fault.FORBIDDEN, "the key is not allowed to do this"),
    ],
)
def test_a_refused_key_is_no_failure_to_retry(server: ExaServer, fault: Fault, reason: str) -> None:
    server.faults = Faults([fault])
    with pytest.raises(AccessDenied) as caught:
        search(server)
    assert str(caught.value) == (
        f"Exa at {server.url} refuses EXA_API_KEY: {reason} ({fault}: fault {fault}); see "
        "https://dashboard.exa.ai/api-keys"
    )


def test_a_wrong_key_is_refused_by_the_server_itself(server: ExaServer) -> None:
    service = ExaClient("another-key", server.url)
    with pytest.raises(AccessDenied, match=r"withdrawn \(401: Invalid API key\)"):
        asyncio.run(service.search("q"))


@pytest.mark.parametrize("fault", [Fault.RATE_LIMIT, Fault.SERVER_ERROR, Fault.OVERLOADED])
def test_a_busy_exa_is_worth_another_try_and_costs_nothing(server: ExaServer, fault: Fault) -> None:
    server.faults = Faults([fault])
    with pytest.raises(TransientFailure) as caught:
        search(server)
    assert str(caught.value) == f"Exa at {server.url} answered {fault} (fault {fault})"
    assert caught.value.free
    assert caught.value.retry_after == (None if fault is Fault.SERVER_ERROR else 1.0)


def test_retry_after_may_be_a_date() -> None:
    later = formatdate(time.time() + 60, usegmt=True)
    faults = Faults([Fault.RATE_LIMIT])
    with (
        ExaServer(faults=faults, retry_after=later) as server,
        pytest.raises(TransientFailure) as caught,
    ):
        search(server)
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 60


@pytest.mark.parametrize("fault", [Fault.BAD_REQUEST, Fault.NOT_FOUND])
def test_a_request_that_is_refused_is_not_sent_again(server: ExaServer, fault: Fault) -> None:
    server.faults = Faults([fault])
    with pytest.raises(PermanentFailure) as caught:
        search(server)
    assert str(caught.value) == f"Exa at {server.url} answered {fault} (fault {fault})"
    assert caught.value.free


@pytest.mark.parametrize("fault", [Fault.HTML, Fault.BAD_JSON])
def test_an_answer_that_is_no_json_may_have_been_charged(server: ExaServer, fault: Fault) -> None:
    server.faults = Faults([fault])
    with pytest.raises(TransientFailure) as caught:
        search(server)
    assert str(caught.value) == f"Exa at {server.url} sent no search results"
    assert not caught.value.free


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        "text",
        {"error": "x"},
        {"results": None},
        {"results": [1]},
        {"results": [{"title": "without url"}]},
        {"results": [{"url": "https://a.example", "text": ["a"]}]},
        {"results": [{"url": "https://a.example", "score": "high"}]},
    ],
    ids=str,
)
def test_json_that_is_no_search_result_is_worth_another_try(
    body: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExaServer, "respond", lambda self, request: (200, body))
    with ExaServer() as server, pytest.raises(TransientFailure, match="sent no search results"):
        search(server)


def page(**fields: Any) -> dict[str, Any]:
    return {"url": "https://a.example/1", "title": "A title", "text": "Some text."} | fields


def answer_with(*pages: dict[str, Any]) -> bytes:
    """An answer of Exa's; what stands as `"RAW:x"` is written as x."""
    return re.sub(rb'"RAW:(.*?)"', rb"\1", json.dumps({"results": pages}).encode())


def serve(monkeypatch: pytest.MonkeyPatch, raw: Raw | bytes) -> None:
    """Let every `ExaServer` answer with these bytes."""
    answer = raw if isinstance(raw, Raw) else Raw(raw)
    monkeypatch.setattr(ExaServer, "respond", lambda self, request: (200, answer))


@pytest.mark.parametrize(
    "bad",
    [
        {"score": "RAW:NaN"},
        {"score": "RAW:-Infinity"},
        {"score": "RAW:1e999"},
        {"score": "RAW:1" + "0" * 400},
        {"score": "RAW:1" + "0" * 5000},
        {"score": True},
        {"score": [0.5]},
        {"url": 5},
        {"url": None},
        {"title": 5},
        {"title": []},
        {"text": {"a": 1}},
        {"text": False},
        {"extra": "RAW:" + "[" * 20_000 + "]" * 20_000},
        {"extra": "RAW:" + '{"a":' * 20_000 + "1" + "}" * 20_000},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_a_result_with_a_field_that_is_none_of_its_type_fails_the_call(
    bad: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, answer_with(page(), page(**bad)).replace(b'\\"', b'"'))
    with ExaServer() as server, pytest.raises(TransientFailure, match="sent no search results"):
        search(server)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/half-\ud83d",
        "https://a.example/\u202egnp.exe",
        "https://a.example/a b",
        "https://a.example/\x1b[2J",
        "https://a.example/" + "x" * 3000,
        "javascript:alert(1)",
        "//a.example/1",
        "https:///1",
        "",
    ],
    ids=ascii,
)
def test_a_result_whose_address_cannot_be_cited_is_left_out(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, answer_with(page(url=url), page()))
    with ExaServer() as server:
        assert [passage.id for passage in search(server)] == ["https://a.example/1"]


def test_half_a_surrogate_pair_in_a_text_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = page(title="A \ud83d title", text="Some\udc00 text, and a whole \U0001f600.")
    serve(monkeypatch, answer_with(odd))
    with ExaServer() as server:
        [passage] = search(server)
    assert (passage.title, passage.text) == ("A title", "Some text, and a whole \U0001f600.")


def test_five_thousand_results_where_two_were_asked_for_are_two() -> None:
    many = [page(url=f"https://a.example/{n}") for n in range(5000)]
    with ExaServer() as server:
        server.respond = lambda request: (200, {"results": many})
        assert [p.id for p in search(server)] == ["https://a.example/0", "https://a.example/1"]


HUGE = b'{"results": []' + b" " * (100 * 2**20) + b"}"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (
            Raw(gzip.compress(b" " * 2**28), {"Content-Encoding": "gzip"}),
            "its answer is compressed",
        ),
        (Raw(gzip.compress(b'{"results": []}'), {"Content-Encoding": "br"}), "is compressed"),
        (Raw(HUGE, parts=100), "its answer has more than 8 MiB"),
    ],
    ids=["a gzip bomb", "any compression", "a page of 100 MB"],
)
def test_an_answer_of_any_size_costs_neither_memory_nor_time(
    raw: Raw, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, raw)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with ExaServer() as server, pytest.raises(TransientFailure, match=words):
        search(server)
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert time.process_time() - started < 3.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024  # 60 MiB


def test_what_exa_says_of_a_request_is_told_once_and_in_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    remark = {"code": "IGNORED_FIELD", "path": "/category", "message": "no \x1b[2J\nsuch one"}
    with ExaServer() as server:
        server.respond = lambda request: (200, {"results": [], "warnings": [remark]})
        service = ExaClient(API_KEY, server.url)
        with EventLoop() as loop:
            for _ in range(3):
                loop.run(service.search("q"))
    assert capfd.readouterr().err == "warning: Exa: IGNORED_FIELD /category: no [2J such one\n"


def test_a_cut_connection_may_have_been_charged(server: ExaServer) -> None:
    server.faults = Faults([Fault.CUT])
    with pytest.raises(TransientFailure, match=r"no answer from Exa at http.*\(peer closed") as it:
        search(server)
    assert not it.value.free


def test_a_stalled_call_may_have_been_charged(
    server: ExaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        exa_client, "open_client", lambda check, timeout: open_client(check, timeout=0.2)
    )
    server.faults = Faults([Fault.STALL])
    service = ExaClient(API_KEY, server.url)
    with pytest.raises(TransientFailure, match=r"no answer from Exa at .*\(Read timed out") as it:
        asyncio.run(service.search("q"))
    assert not it.value.free


def test_nobody_there_costs_nothing(server: ExaServer) -> None:
    server.stop()
    with pytest.raises(TransientFailure, match="no answer from Exa at http") as caught:
        search(server)
    assert caught.value.free


def test_a_cancelled_search_stays_cancelled_and_leaves_the_client_usable(
    server: ExaServer,
) -> None:
    server.faults = Faults([Fault.STALL], first=1)
    service = ExaClient(API_KEY, server.url)

    async def cancel_one() -> int:
        slow = asyncio.create_task(service.search("slow"))
        while not server.requests:
            await asyncio.sleep(0.01)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        return len((await service.search("fast", num_results=2)).passages)

    assert asyncio.run(cancel_one()) == 2


def test_after_every_fault_the_same_client_answers_again(server: ExaServer) -> None:
    passing = [fault for fault in CHAOS if fault is not Fault.STALL]
    server.faults = Faults(passing, first=len(passing))
    service = ExaClient(API_KEY, server.url)

    async def try_all() -> int:
        for _ in passing:
            with pytest.raises(TransientFailure):
                await service.search("q")
        return len((await service.search("q", num_results=3)).passages)

    assert asyncio.run(try_all()) == 3
    assert server.counts()["failed"] == dict.fromkeys(map(str, passing), 1)


def test_searches_run_at_once_on_one_client() -> None:
    with ExaServer(latency=1.5) as server:
        source = ExaSource("General", ExaOptions(), ExaClient(API_KEY, server.url))

        async def ask_all() -> list[Found]:
            requests = (SearchRequest(f"question {i}", top_k=1) for i in range(24))
            return await asyncio.gather(*(source.search(request) for request in requests))

        answers = asyncio.run(ask_all())
    assert [found.passages[0].title for found in answers] == [
        f"Question {i}, part 1" for i in range(24)
    ]
    assert server.most_at_once == 24


def test_connections_are_kept_until_they_are_closed(server: ExaServer) -> None:
    service = ExaClient(API_KEY, server.url)

    async def ask_often() -> None:
        for _ in range(3):
            for _ in range(5):
                await service.search("q")
            await service.close()

    asyncio.run(ask_often())
    assert len(server.requests) == 15
    assert server.connections == 3
    wait_until(lambda: server.open_connections == 0)


def test_threads_share_a_source(server: ExaServer) -> None:
    source = ExaSource("News", ExaOptions(), ExaClient(API_KEY, server.url))
    found: list[list[Passage]] = []

    def ask() -> None:
        found.append(loop.run(source.search(SearchRequest("storm", top_k=2))))

    with EventLoop() as loop:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(found) == 4
    assert found.count(found[0]) == 4


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("status", [200, 301, 400, 401, 402, 403, 404, 429, 500])
def test_no_failure_tells_the_key_even_if_exa_does(
    status: int, html: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with EchoServer() as server:
        server.status, server.html = status, html
        with pytest.raises((AccessDenied, PermanentFailure, TransientFailure)) as caught:
            search(server)
    whole = "".join(traceback.format_exception(caught.value))
    assert "/search" in caplog.text  # httpx did log the call
    assert API_KEY not in whole + repr(caught.value) + caplog.text
    assert len(str(caught.value)) < 400
    if status not in (200, 301) and not html:
        assert "not with ***: so it is" in str(caught.value)


def test_a_password_in_the_address_is_used_but_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with ExaServer(faults=Faults([Fault.SERVER_ERROR])) as server:
        service = ExaClient(API_KEY, server.url.replace("//", "//me:secret@"))
        with pytest.raises(TransientFailure) as caught:
            asyncio.run(service.search("q"))
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_searches_at_once_keep_their_connections() -> None:
    with ExaServer(latency=0.05) as server:
        source = ExaSource("General", ExaOptions(), ExaClient(API_KEY, server.url))

        async def main() -> None:
            for turn in range(4):
                requests = [SearchRequest(f"lamp {turn} {i}") for i in range(32)]
                await asyncio.gather(*(source.search(request) for request in requests))

        asyncio.run(main())
        assert len(server.requests) == 4 * 32
        assert server.connections == 32
