"""`rsearch serve` against hostile and hurried clients: bodies, keys, queues, hang-ups, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from served_agent import ServedAgent, serve_agent

MODEL = "builtin:nano"
KEY = "a-key-of-some-length"
QUESTION = {"role": "user", "content": "Who founded Vosbe Press?"}
RAMBLING = {"model": MODEL, "messages": [QUESTION], "temperature": 2.0}
"""So hot that the model seldom finds the end of its answer."""


@pytest.fixture(scope="module")
def http(served_agent: ServedAgent) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served_agent.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def locked() -> Iterator[ServedAgent]:
    """A server with a key, open to other machines, that answers one question at a time."""
    narrow = ("--max-waiting=1", "--set=rollout.micro_batch=1", "--rate-limit=600")
    with serve_agent("--host=0.0.0.0", f"--api-key={KEY}", *narrow) as served:
        yield served


def chat(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post(
        "/v1/chat/completions", json={"model": MODEL, "messages": [QUESTION], **fields}
    )


def ask_raw(served: ServedAgent, **fields: Any) -> socket.socket:
    """Send a question over a connection that the test can cut."""
    body = json.dumps({**RAMBLING, **fields}).encode()
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=60)
    head = (
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Authorization: Bearer {KEY}",
        f"Content-Length: {len(body)}",
    )
    connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
    return connection


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"\x00\xff", "invalid_json"),
        (b"[" * 200_000, "invalid_json"),
        (b'{"a":' * 150_000, "invalid_json"),
        (b'{"model": "builtin:nano", "temperature": NaN}', "invalid_json"),
        (b'{"model": "builtin:nano", "messages": {"role": "user"}}', "invalid_value"),
        (b'{"model": ["builtin:nano"]}', "invalid_value"),
        (b"{" + b" " * (1 << 20) + b"}", "body_too_large"),
    ],
    ids=range(8),
)
def test_hostile_bodies(http: httpx.Client, body: bytes, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = http.post("/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == (413 if code == "body_too_large" else 400)
    assert response.json()["error"]["code"] == code


def test_a_body_of_unknown_length_is_cut_off(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    try:
        response = http.post("/v1/chat/completions", content=chunks(), headers=headers)
    except httpx.WriteError:  # the server has closed the connection already
        return
    assert response.status_code == 413


def test_other_content_types_are_refused(http: httpx.Client) -> None:
    response = http.post(
        "/v1/chat/completions", content=b"{}", headers={"Content-Type": "text/plain"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_type")


def test_odd_text_is_answered(http: httpx.Client) -> None:
    for text in ("\x00\x1b[2J", "‮olleh‬ \U000e0041", "</think><search>", "<|im_end|>", "é" * 50):
        response = chat(http, messages=[{"role": "user", "content": text}], max_tokens=30)
        assert response.status_code == 200, text
        assert response.json()["rsearch"]["question"] == text
    halves = rb'{"model": "builtin:nano", "messages": [{"role": "user", "content": "a\ud83d"}]}'
    headers = {"Content-Type": "application/json"}
    response = http.post("/v1/chat/completions", content=halves, headers=headers)
    assert response.json()["rsearch"]["question"] == "a�"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("words", [500, 60_000])
def test_a_question_without_room_for_an_answer(
    http: httpx.Client, words: int, stream: bool
) -> None:
    text = "who founded it " * words
    response = chat(http, messages=[{"role": "user", "content": text}], stream=stream)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert len(error["message"]) < 500


def test_max_tokens_ends_an_answer_early(http: httpx.Client) -> None:
    body = chat(http, max_tokens=3).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] <= 4


def test_paths_outside_the_page_are_not_served(http: httpx.Client) -> None:
    paths = ("../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "%00", "%ff", "a" * 5000)
    for path in (*(f"/static/{path}" for path in paths), "/.git", "/v1/responses"):
        response = http.get(path)
        assert response.status_code == 404, path
        assert response.json()["error"]["code"] == "not_found"


def test_other_methods_are_refused(http: httpx.Client) -> None:
    for path in ("/", "/static/base.css", "/health", "/v1/models"):
        assert http.get(path).status_code == http.head(path).status_code == 200
        response = http.post(path)
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
        assert response.json()["error"]["code"] == "method_not_allowed"
    assert http.get("/v1/chat/completions").headers["Allow"] == "POST"


def test_rebound_names_and_other_sites_are_refused(http: httpx.Client) -> None:
    assert http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    response = http.options("/v1/chat/completions", headers={"Origin": "http://evil.example"})
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_client_that_hangs_up_stops_its_generation(served_agent: ServedAgent) -> None:
    cancelled = 'rsearch_questions_total{outcome="cancelled"}'
    for stream in (True, False):
        served_agent.wait_until_idle()
        before = served_agent.metric(cancelled)
        for _ in range(20):  # an answer may be short by chance
            connection = ask_raw(served_agent, stream=stream)
            if stream:
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
            else:
                wait_for(lambda: served_agent.metric("rsearch_running"))
            connection.close()
            served_agent.wait_until_idle()
            if served_agent.metric(cancelled) > before:
                break
        assert served_agent.metric(cancelled) > before, f"stream={stream}"


def test_metrics(served_agent: ServedAgent, http: httpx.Client) -> None:
    names = [
        'rsearch_requests_total{route="chat",status="200"}',
        'rsearch_questions_total{outcome="answered"}',
        "rsearch_searches_total",
        "rsearch_request_seconds_count",
        "rsearch_first_token_seconds_count",
    ]
    before = [served_agent.metric(name) for name in names]
    tokens = served_agent.metric("rsearch_tokens_total")
    body = chat(http).json()
    assert served_agent.metric("rsearch_tokens_total") - tokens == body["rsearch"]["tokens"]
    assert chat(http, stream=True).text.endswith("data: [DONE]\n\n")

    def changes() -> list[float]:
        after = [served_agent.metric(name) for name in names]
        return [new - old for new, old in zip(after, before, strict=True)]

    # What was sent is counted right after it has been sent.
    wait_for(lambda: changes() == [2.0, 2.0, 2.0, 2.0, 1.0])
    assert served_agent.metric("rsearch_queue_depth") == served_agent.metric("rsearch_running") == 0
    assert served_agent.metric("rsearch_batch_rows_sum") >= served_agent.metric(
        "rsearch_batch_rows_count"
    )
    assert served_agent.metric('rsearch_cache_hits_total{service="local"}') >= 1


def test_the_key(locked: ServedAgent) -> None:
    url = f"{locked.url}/v1"
    assert [m.id for m in openai.OpenAI(base_url=url, api_key=KEY).models.list()] == [MODEL]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url, api_key="wrong").models.list()
    assert locked.get("/health")["status"] == "ok"
    assert httpx.get(f"{locked.url}/metrics").status_code == 401


@pytest.mark.skipif(not Path("/proc").exists(), reason="the process list is read from /proc")
def test_the_key_is_in_no_process_list_and_no_output(locked: ServedAgent) -> None:
    arguments = Path(f"/proc/{locked.process.pid}/cmdline").read_bytes()
    assert b"serve" in arguments and KEY.encode() not in arguments
    assert KEY not in locked.stderr


def test_a_full_queue_answers_429_and_frees_its_places(locked: ServedAgent) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=locked.url, headers=headers, timeout=60, trust_env=False) as client:
        for _ in range(20):  # the answer of the first may be short by chance
            running = ask_raw(locked, stream=True)
            running.recv(100)
            waiting = ask_raw(locked)
            time.sleep(0.1)
            response = chat(client)
            waiting.close()
            running.close()
            wait_for(lambda: sum(locked.get("/health")[k] for k in ("waiting", "running")) == 0)
            if response.status_code == 429:
                break
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "server_busy"
        assert int(response.headers["Retry-After"]) >= 1
        assert chat(client, max_tokens=5).status_code == 200


def test_sigterm_lets_requests_finish() -> None:
    with serve_agent("--drain-seconds=120") as served, ThreadPoolExecutor(16) as pool:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0)

        def ask(number: int) -> str | None:
            try:
                chunks = list(
                    client.chat.completions.create(model=MODEL, messages=[QUESTION], stream=True)
                )
            except openai.InternalServerError as error:
                assert (error.status_code, error.code) == (503, "shutting_down")
                return None
            assert chunks[-1].choices[0].finish_reason == "stop"
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

        answers = [pool.submit(ask, number) for number in range(16)]
        wait_for(lambda: served.get("/health")["running"] > 0)
        served.process.send_signal(signal.SIGTERM)
        statuses = set()
        while served.process.poll() is None:
            try:
                statuses.add(httpx.get(f"{served.url}/health", trust_env=False).status_code)
                time.sleep(0.05)
            except httpx.TransportError:  # the server has ended
                break
        texts = {answer.result() for answer in answers} - {None}
        assert served.process.wait(30) == 0
        assert len(texts) == 1 and texts != {""}
        assert 503 in statuses
        assert "stopped; every request has ended" in served.stderr
        assert served.process.stdout is not None and served.process.stdout.read() == ""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_requests_that_take_too_long_are_cut_off(number: int, code: int) -> None:
    slow = ("--drain-seconds=0", "--set=rollout.micro_batch=1")
    with serve_agent(*slow) as served:
        connections = [ask_raw(served, stream=stream) for stream in (True, True, False, False)]
        wait_for(lambda: served.get("/health")["waiting"] >= 2)
        assert served.stop(number) == code
        replies = [read_all(connection) for connection in connections]
        assert "ended without an answer" in served.stderr
        assert "Traceback" not in served.stderr
    assert all(b"shutting_down" in reply for reply in replies[1:])
    assert b"503 Service Unavailable" in replies[-1]


def test_what_is_half_sent_does_not_hold_up_the_end() -> None:
    with serve_agent() as served:
        head = "POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Length: 9"
        half = "\r\n".join([*head, "Content-Type: application/json", "", "{"]).encode()
        connections = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(2)]
        for connection, text in zip(connections, (half, half[:20]), strict=True):
            connection.sendall(text)
        wait_for(lambda: served.metric("rsearch_requests_in_flight") == 2)  # this one, and the half
        assert served.stop() == 0
        assert b"503 Service Unavailable" in read_all(connections[0])
        connections[1].close()
        assert served.stderr.splitlines()[-1] == "stopped; every request has ended"
        assert "warning" not in served.stderr


def read_all(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def run_serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rsearch_cli", "serve", "--model=builtin:nano", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **environment},
    )


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_serve(f"--port={port}")
    assert done.returncode == 44
    assert done.stderr == (
        f"rsearch: cannot listen on 127.0.0.1:{port}: address already in use; choose another one "
        "with --port, where 0 takes any free port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "key", "code", "line"),
    [
        (["--host=0.0.0.0"], "", 2, "--host 0.0.0.0 opens the server to other machines"),
        (["--host=::"], "", 2, "which needs a key: set RSEARCH_API_KEY"),
        (["--host=203.0.113.7"], KEY, 44, "cannot listen on 203.0.113.7:0"),
        ([], "short", 2, "RSEARCH_API_KEY has 5 characters; at least 16 are needed"),
        ([], "with a space in the middle", 2, "RSEARCH_API_KEY holds a space"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    arguments: list[str], key: str, code: int, line: str
) -> None:
    done = run_serve("--port=0", *arguments, RSEARCH_API_KEY=key)
    assert (done.returncode, done.stdout) == (code, "")
    assert line in done.stderr and done.stderr.count("\n") == 1
