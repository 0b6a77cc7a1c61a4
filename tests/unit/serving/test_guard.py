from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rsearch_cli.recipe.addresses import is_loopback
from rsearch_cli.serving.api_errors import ApiError
from rsearch_cli.serving.guard import Guard, RateLimiter, route_of
from rsearch_cli.serving.settings import REMOTE_RATE, ServeSettings

KEY = "sixteen-characters-or-more"
WRONG = ["", KEY, f"Basic {KEY}", "Bearer", "Bearer wrong", f"Bearer {KEY}x", "Bearer é"]


class Metrics:
    """Records what a guard counts."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self.in_flight = self
        self.now = 0

    def inc(self) -> None:
        self.now += 1

    def dec(self) -> None:
        self.now -= 1

    def count_request(self, route: str, status: int) -> None:
        self.requests.append((route, status))


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"{}"})


def ask(guard: Guard, path: str = "/v1/models", client: str = "127.0.0.1", **headers: str) -> Any:
    """Status, headers and body of the response to a request."""
    given = {"host": "localhost:8000", **headers}
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "client": (client, 1),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    names = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    body = b"".join(message["body"] for message in sent[1:])
    return sent[0]["status"], names, json.loads(body)


@pytest.fixture
def guard() -> Guard:
    return Guard(answer, ServeSettings(), Metrics())


@pytest.fixture
def locked() -> Guard:
    return Guard(answer, ServeSettings(api_key=KEY), Metrics())


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.8.9.1", "[::1]:8000", "localhost."],
)
def test_names_of_this_machine_are_answered(guard: Guard, host: str) -> None:
    assert ask(guard, host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "[::2]", "["],
)
@pytest.mark.parametrize("path", ["/v1/models", "/", "/health", "/static/page.js"])
def test_other_names_are_refused_without_a_key(guard: Guard, host: str, path: str) -> None:
    status, _, body = ask(guard, path, host=host)
    assert (status, body["error"]["code"]) == (403, "wrong_host")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3000", "https://[", "file://"]
)
def test_pages_of_other_sites_are_refused_without_a_key(guard: Guard, origin: str) -> None:
    status, _, body = ask(guard, origin=origin)
    assert (status, body["error"]["code"]) == (403, "wrong_origin")


def test_the_own_page_is_answered(guard: Guard) -> None:
    assert ask(guard, origin="http://localhost:8000")[0] == 200


def test_the_key_opens_under_any_name(locked: Guard) -> None:
    assert ask(locked, host="agents.example", authorization=f"Bearer {KEY}")[0] == 200
    assert ask(locked, authorization=f"bearer  {KEY}")[0] == 200


@pytest.mark.parametrize(
    "given", ["", KEY, f"Basic {KEY}", "Bearer wrong", f"Bearer {KEY}x", "Bearer é"]
)
def test_any_other_key_is_refused(locked: Guard, given: str) -> None:
    status, headers, body = ask(locked, authorization=given)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert headers["www-authenticate"] == "Bearer"
    assert KEY not in json.dumps(body)


@pytest.mark.parametrize("path", ["/", "/health", "/static/page.js"])
def test_page_and_health_need_no_key(locked: Guard, path: str) -> None:
    assert ask(locked, path)[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/mcp", "/mcp/", "/v1/chat/completions", "/else"])
def test_everything_else_needs_the_key(locked: Guard, path: str) -> None:
    assert ask(locked, path)[0] == 401


def test_every_response_has_the_security_headers(guard: Guard) -> None:
    for path, host in (("/v1/models", "localhost"), ("/", "localhost"), ("/", "evil.example")):
        _, headers, _ = ask(guard, path, host=host)
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("no-cache" if path == "/" else "no-store")
        assert not any(name.startswith("access-control") for name in headers)


def test_a_server_that_drains_takes_no_questions(guard: Guard) -> None:
    guard.draining = True
    status, headers, body = ask(guard, "/v1/chat/completions")
    assert (status, body["error"]["code"]) == (503, "shutting_down")
    assert int(headers["retry-after"]) >= 1
    assert ask(guard, "/v1/models")[0] == 200


def test_what_fails_in_the_app_is_an_error_without_details(caplog: Any) -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("secret path /home/x")

    metrics = Metrics()
    status, _, body = ask(Guard(fail, ServeSettings(), metrics))
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(body)
    assert "ValueError: secret path" in caplog.text
    assert (metrics.requests, metrics.now) == ([("models", 500)], 0)


def test_the_rate_of_a_client_refills() -> None:
    now = 0.0
    limiter = RateLimiter(60, lambda: now)
    for _ in range(60):
        limiter.check("10.0.0.1")
    with pytest.raises(ApiError) as caught:
        limiter.check("10.0.0.1")
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    assert caught.value.headers() == {"Retry-After": "1"}
    limiter.check("10.0.0.2")
    now = 1.01
    limiter.check("10.0.0.1")
    with pytest.raises(ApiError):
        limiter.check("10.0.0.1")


def test_this_machine_has_no_rate_unless_one_is_set() -> None:
    limiter = RateLimiter(None, lambda: 0.0)
    for _ in range(10 * REMOTE_RATE):
        limiter.check("127.0.0.1")
    for _ in range(REMOTE_RATE):
        limiter.check("10.0.0.1")
    with pytest.raises(ApiError):
        limiter.check("10.0.0.1")
    strict = RateLimiter(1, lambda: 0.0)
    strict.check("127.0.0.1")
    with pytest.raises(ApiError):
        strict.check("127.0.0.1")


def test_the_rates_of_many_clients_take_little_memory() -> None:
    limiter = RateLimiter(1, lambda: 0.0)
    for number in range(20_000):
        limiter.check(f"10.0.{number // 256}.{number % 256}")
    assert len(limiter._left) == 10_000


def test_loopback() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not any(map(is_loopback, ["", "0.0.0.0", "::", "10.0.0.1", "host"]))


def test_routes_have_few_names() -> None:
    paths = ["/", "/static/a.js", "/v1/models", "/v1/models/x", "/mcp/", "/x" * 100]
    assert [route_of(path) for path in paths] == [
        "page",
        "page",
        "models",
        "models",
        "mcp",
        "other",
    ]
