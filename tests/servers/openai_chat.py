"""A local server that speaks OpenAI's `POST /v1/chat/completions`, for the real `openai` client.

Its replies are a function of the request; the default grades answers by comparing texts. A request
that OpenAI would refuse is refused in OpenAI's words. The module is not called `openai.py`, because
this folder is on the path and it would hide the client. As a script it prints one JSON line with
its URL, and serves until its input is closed or it is interrupted:

    python tests/servers/openai_chat.py --port 0 --latency-ms 200 --jitter-ms 50
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from faults import CHAOS, Faults
from local_http import Answer, LocalServer, Received

API_KEY = "openai-key-for-tests-only"
"""The key that the server takes unless it is told another."""

USD_PER_INPUT_TOKEN = 0.15 / 1e6
USD_PER_OUTPUT_TOKEN = 0.60 / 1e6

_TYPES: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "messages": list,
    "temperature": (int, float),
    "top_p": (int, float),
    "stop": list,
    "max_tokens": int,
    "response_format": dict,
    "stream": bool,
    "stream_options": dict,
}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 404: "model_not_found"}
_BLOCK = re.compile(r"^<(\w+)-([0-9a-f]{16})>\n(.*?)\n</\1-\2>$", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r'^(?:\d+\. )?"(.*)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Said:
    """One reply, where its text alone does not tell enough.

    Attributes:
        text: What the model wrote.
        finish: Why it stopped.
        usage: Whether the server counts tokens.
    """

    text: str
    finish: str = "stop"
    usage: bool = True


Grade = Callable[[dict[str, Any]], "str | Said"]
"""From the request's body to the reply."""


class ChatServer(LocalServer):
    """OpenAI's chat endpoint; see `LocalServer` for latency, faults and counts.

    Attributes:
        grade: Gives the reply; may be set anew at any time.
        formats: Values of `response_format.type` that are accepted.
        usd: What the requests would have cost, in USD; a reply that was lost on its way counts.
    """

    def __init__(
        self,
        grade: Grade | None = None,
        *,
        api_key: str | None = API_KEY,
        formats: tuple[str, ...] = ("json_schema", "json_object", "text"),
        extras: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:
        """Describe the server.

        Args:
            grade: Gives the reply; None compares the answer with the references.
            api_key: The key that a request must carry; None takes any.
            formats: Values of `response_format.type` that are accepted.
            extras: Arguments beyond OpenAI's that are accepted, as vLLM has them.
            **settings: Those of `LocalServer`.
        """
        super().__init__(**settings)
        self.grade = grade or grade_by_text
        self.formats = formats
        self.usd = 0.0
        self._api_key = api_key
        self._extras = extras

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL."""
        return f"{self.url}/v1"

    @property
    def prompts(self) -> list[str]:
        """Text of every request's user message, in order of arrival."""
        return [user_message(request.body) for request in self.requests]

    def counts(self) -> dict[str, Any]:
        """Totals so far; see `LocalServer.counts`. Adds `usd`."""
        return super().counts() | {"usd": self.usd}

    def respond(self, request: Received) -> Answer:
        """Check the request as OpenAI does, and answer it."""
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            return 404, self.describe_error(404, f"Invalid URL ({request.path})")
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._api_key is not None and key != self._api_key:
            return 401, self.describe_error(401, f"Incorrect API key provided: {key}.")
        if (flaw := find_flaw(request.body, self.formats, self._extras)) is not None:
            return 400, self.describe_error(400, flaw)
        said = self.grade(request.body)
        answer = make_completion(request.body, said if isinstance(said, Said) else Said(said))
        self.usd += price(request.body, answer["choices"][0]["message"]["content"])
        return 200, answer

    def split(self, request: Received, value: Any) -> list[str] | None:
        """OpenAI's chunks, a word each, where the request asks for a stream."""
        return split_completion(value) if request.body.get("stream") else None

    def describe_error(self, status: int, message: str) -> dict[str, Any]:
        """OpenAI's error body."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        error = {"message": message, "type": kind, "param": None, "code": _CODES.get(status)}
        return {"error": error}


def find_flaw(body: Any, formats: tuple[str, ...], extras: tuple[str, ...] = ()) -> str | None:
    """What OpenAI would refuse in the body of a request, or None; it knows no `extras`."""
    if not isinstance(body, dict):
        return "We could not parse the JSON body of your request."
    for name in ("model", "messages"):
        if not body.get(name):
            return f"you must provide a {name} parameter"
    for name, value in body.items():
        if name in extras:
            continue
        if name not in _TYPES:
            return f"Unrecognized request argument supplied: {name}"
        if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name != "stream"):
            return f"Invalid type for '{name}'."
    for message in body["messages"]:
        if message.keys() != {"role", "content"} or not isinstance(message["content"], str):
            return "Invalid value for 'messages'."
        if message["role"] not in ("system", "user", "assistant"):
            return f"Invalid value: '{message['role']}'."
    if len(body.get("stop", ())) > 4:
        return "Invalid 'stop': array too long. Expected an array with maximum length 4."
    if body.get("max_tokens", 1) < 1:
        return "Invalid 'max_tokens': integer below minimum value."
    return _find_format_flaw(body.get("response_format", {"type": "text"}), formats)


def _find_format_flaw(wanted: dict[str, Any], formats: tuple[str, ...]) -> str | None:
    if wanted.get("type") not in formats:
        return f"Invalid parameter: 'response_format' of type '{wanted.get('type')}'."
    if wanted["type"] != "json_schema":
        return None
    named = wanted.get("json_schema", {})
    schema = named.get("schema", {})
    if not re.fullmatch(r"[\w-]{1,64}", named.get("name", "")):
        return "Invalid 'response_format.json_schema.name'."
    # What OpenAI asks of a strict schema.
    if schema.get("additionalProperties") is not False or (
        schema.get("required") != list(schema.get("properties", ()))
    ):
        return "Invalid schema for response_format 'verdict'."
    return None


def make_completion(body: dict[str, Any], said: Said) -> dict[str, Any]:
    """OpenAI's answer around a reply; tokens are counted as four bytes each."""
    usage = {
        "prompt_tokens": count_prompt_tokens(body),
        "completion_tokens": count_tokens(said.text),
        "total_tokens": count_prompt_tokens(body) + count_tokens(said.text),
    }
    message = {"role": "assistant", "content": said.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish}
    completion = {
        "id": "chatcmpl-local",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body["model"],
        "choices": [choice],
    }
    return completion | ({"usage": usage} if said.usage else {})


def split_completion(completion: dict[str, Any]) -> list[str]:
    """An answer as the events of a stream: its words, why it ended, the count, the end."""
    choice = completion["choices"][0]
    deltas = [{"content": word} for word in re.findall(r"\s*\S+|\s+", choice["message"]["content"])]
    head = completion | {"object": "chat.completion.chunk", "usage": None}
    parts = [
        head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    parts.append(head | {"choices": [end]})
    if "usage" in completion:
        parts.append(head | {"choices": [], "usage": completion["usage"]})
    return [*(json.dumps(part) for part in parts), "[DONE]"]


def count_tokens(text: str) -> int:
    """Tokens of a text, at four bytes each."""
    return -(-len(text.encode(errors="surrogatepass")) // 4)


def count_prompt_tokens(body: dict[str, Any]) -> int:
    """Tokens of all messages of a request."""
    return sum(count_tokens(message["content"]) for message in body["messages"])


def price(body: dict[str, Any], text: str) -> float:
    """What a request and its reply cost, in USD."""
    sent = count_prompt_tokens(body) * USD_PER_INPUT_TOKEN
    return sent + count_tokens(text) * USD_PER_OUTPUT_TOKEN


def user_message(body: dict[str, Any]) -> str:
    """The last user message of a request."""
    return [m["content"] for m in body["messages"] if m["role"] == "user"][-1]


def read_blocks(prompt: str) -> dict[str, list[str]]:
    """The texts that stand between the prompt's delimiters, by the name of their block."""
    return {name: _LINE.findall(lines) for name, _, lines in _BLOCK.findall(prompt)}


def grade_by_text(body: dict[str, Any]) -> str:
    """The verdict of a careful clerk: the same text, apart from case, is right; all else wrong."""
    blocks = read_blocks(user_message(body))
    return write_verdict(body, is_right(blocks["answer"][0], blocks["references"]))


def is_right(answer: str, references: list[str]) -> bool:
    """Whether an answer equals a reference, apart from case and blanks."""
    return answer.strip().casefold() in {r.strip().casefold() for r in references}


def write_verdict(body: dict[str, Any], right: bool) -> str:
    """A verdict of the kind that the system message asks for, the best or the worst one."""
    system = body["messages"][0]["content"]
    if '"verdict"' in system:
        return json.dumps({"verdict": "correct" if right else "wrong"})
    if '"items"' in system:
        references = read_blocks(user_message(body))["references"]
        return json.dumps({"items": references[:1] if right else ["something else"]})
    return json.dumps({"score": 1.0 if right else 0.0})


def find_objects(text: str) -> Iterator[str]:
    """Every JSON object that stands in a text, from first to last, nested ones included."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            _, end = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        yield text[match.start() : end]


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(description="A local server that speaks OpenAI's chat API.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--fail-share", type=float, default=0.0, help="0 to 1")
    parser.add_argument("--stall-seconds", type=float, default=30.0)
    args = parser.parse_args()
    server = ChatServer(
        port=args.port,
        latency=args.latency_ms / 1000,
        jitter=args.jitter_ms / 1000,
        faults=Faults(CHAOS, share=args.fail_share),
        stall_seconds=args.stall_seconds,
    )
    with server:
        print(json.dumps({"base_url": server.base_url, "api_key": API_KEY}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
        print(json.dumps(server.counts()), flush=True)


if __name__ == "__main__":
    main()
