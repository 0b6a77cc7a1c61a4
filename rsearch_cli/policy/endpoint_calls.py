"""Calls to the policy's server: their price, their cache key, and the calls themselves."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from rsearch_cli.errors import PolicyError, ServiceFailure
from rsearch_cli.policy.endpoint_probe import (
    MOST_PROBES,
    PROBE_BYTES,
    PROBE_TOKENS,
    ServerMode,
    probe_server,
)
from rsearch_cli.recipe.policy import EndpointConfig
from rsearch_cli.services.cache import make_key
from rsearch_cli.services.chat_client import ChatClient
from rsearch_cli.services.chat_errors import NothingThere, PromptTooLong, RequestRefused
from rsearch_cli.services.client import ServiceClient
from rsearch_cli.services.completion import Completion, check_reply
from rsearch_cli.services.outcomes import Reply
from rsearch_cli.services.runtime import POLICY, TEACHER

FRAME_TOKENS = 16
"""Estimated tokens of the markers around a message."""

_DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Role:
    """What a model on a server is in a run, for messages, settings and the budget.

    Attributes:
        service: Name of its service.
        name: Name in messages.
        section: Its section of the recipe.
        flag: Flag of its URL; that of its name ends in `-model`.
    """

    service: str
    name: str
    section: str
    flag: str


AS_POLICY = Role(POLICY, "the policy", "policy.endpoint", "--endpoint")
AS_TEACHER = Role(TEACHER, "the teacher", "sft.teacher", "--teacher")


def check_problem(value: JsonValue) -> str | None:
    """Read a cached check of a chat: what is wrong with it, or None.

    Raises:
        ValueError: It is neither.
    """
    if value is not None and not isinstance(value, str):
        raise ValueError("not a check of how a server renders a chat")
    return value


class EndpointCalls:
    """Requests to the policy's server, through the run's budget and cache.

    Args:
        endpoint: The recipe's section; prices, `results` and `cache_days` are read.
        client: Client of the service.
        line: Client of the server.
        section: Section of the recipe, for messages.
    """

    def __init__(
        self, endpoint: EndpointConfig, client: ServiceClient, line: ChatClient, section: str
    ) -> None:
        self._endpoint = endpoint
        self._client = client
        self._line = line
        self._section = section

    async def probe(self) -> ServerMode:
        """Find out how to use the server; raises what `EndpointPolicy.prepare` does."""
        worst = self._price(PROBE_BYTES, PROBE_TOKENS)

        async def ask() -> Reply:
            replies: list[Completion] = []
            results = self._endpoint.results
            mode = await probe_server(self._line, results, replies.append, self._section)
            return Reply(mode.as_json(), sum(self._price_of(r, worst) for r in replies))

        try:
            mode: ServerMode = await self.look_up(
                "how the server continues a turn",
                ask,
                read=ServerMode.from_json,
                worst_usd=MOST_PROBES * worst,
                results=self._endpoint.results,
            )
            return mode
        except ServiceFailure as failure:
            if isinstance(failure.__cause__, NothingThere):
                raise PolicyError(f"{failure}{await self._line.describe_models()}") from None
            if isinstance(failure.__cause__, PromptTooLong | RequestRefused):
                raise PolicyError(str(failure)) from None
            raise

    async def look_up(
        self,
        question: str,
        ask: Callable[[], Awaitable[Reply]],
        *,
        read: Callable[[JsonValue], Any],
        worst_usd: float = 0.0,
        **parts: Any,
    ) -> Any:
        """Ask the server about itself, and cache the answer for offline runs.

        Args:
            question: Cache key, together with `parts`.
            ask: Asks the server; called every time, since the server may have changed.
            read: Decodes the answer; raises `ValueError` if it is not valid.
            worst_usd: Worst-case price.
            **parts: JSON values.
        """
        key = self._key(question=question, **parts)
        answer = await self._client.fetch(key, ask, read=read, worst_usd=worst_usd, ttl_seconds=0.0)
        return answer.value

    async def reply(
        self,
        messages: Sequence[Mapping[str, str]],
        options: Mapping[str, Any],
        most: int,
        ask: Callable[[], Awaitable[Completion]],
        draw: str | None = None,
    ) -> Any:
        """Return a reply of the model as JSON: the fields of a `Completion`, and `seconds`.

        Args:
            messages: The context as messages; part of the cache key, also where ids are sent.
            options: Of the request.
            most: Token limit.
            ask: Sends the request.
            draw: See `Sampling.draw`.
        """
        # An upper bound: byte-level tokenizers make at most one token per byte.
        sent = sum(len(m["content"].encode()) + FRAME_TOKENS for m in messages)
        worst = self._price(sent, most)

        async def call() -> Reply:
            started = time.perf_counter()
            completion = await ask()
            value: dict[str, JsonValue] = {
                "text": completion.text,
                "thought": completion.thought,
                "finish": completion.finish,
                "stop_string": completion.stop_string,
                "tokens": completion.output_tokens,
                "ids": list(completion.token_ids) if completion.token_ids is not None else None,
                "seconds": time.perf_counter() - started,
            }
            return Reply(value, self._price_of(completion, worst))

        repeats = options["temperature"] == 0 or draw is not None
        # A sampled reply must not answer another request.
        draw = draw if repeats else uuid.uuid4().hex
        key = self._key(messages=list(messages), options=dict(options), draw=draw)
        kept = self._endpoint.cache_days * _DAY_SECONDS if repeats else 0.0
        answer = await self._client.fetch(
            key, call, read=check_reply, worst_usd=worst, ttl_seconds=kept
        )
        return answer.value

    def _key(self, **parts: Any) -> str:
        server, model = self._line.url, self._line.model
        return make_key(self._client.service, endpoint=server, model=model, **parts)

    def _price_of(self, completion: Completion, worst: float) -> float:
        """Return the price in USD by the server's token counts; without counts, the worst case."""
        if completion.input_tokens is None or completion.output_tokens is None:
            return worst
        return self._price(completion.input_tokens, completion.output_tokens)

    def _price(self, input_tokens: int, output_tokens: int) -> float:
        sent = input_tokens * self._endpoint.usd_per_million_input_tokens
        return (sent + output_tokens * self._endpoint.usd_per_million_output_tokens) / 1e6
