"""Calls to the policy's server: priced, named for the cache, and made through the client."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from rsearch_cli.errors import PolicyError, ServiceFailure
from rsearch_cli.policy.endpoint_probe import (
    MOST_PROBES,
    PROBE_BYTES,
    PROBE_TOKENS,
    Serving,
    settle,
)
from rsearch_cli.recipe.policy import EndpointConfig
from rsearch_cli.services.cache import make_key
from rsearch_cli.services.chat_client import ChatClient
from rsearch_cli.services.chat_errors import NothingThere, PromptTooLong, RequestRefused
from rsearch_cli.services.client import ServiceClient
from rsearch_cli.services.completion import Completion, check_reply
from rsearch_cli.services.outcomes import Reply

FRAME_TOKENS = 16
"""An estimate of the marks around a message."""

_DAY_SECONDS = 86400.0


def check_problem(value: JsonValue) -> str | None:
    """Read what was found out about a chat: what is wrong with it, or None.

    Raises:
        ValueError: It is neither.
    """
    if value is not None and not isinstance(value, str):
        raise ValueError("no account of how a server renders a chat")
    return value


class PolicyCalls:
    """What is asked of the policy's server.

    Args:
        endpoint: The recipe's section; prices, `results` and `cache_days` are read.
        client: Of the service `policy`.
        line: To the server.
    """

    def __init__(self, endpoint: EndpointConfig, client: ServiceClient, line: ChatClient) -> None:
        self._endpoint = endpoint
        self._client = client
        self._line = line

    async def settle(self) -> Serving:
        """Find out how the server is asked; see `EndpointPolicy.prepare` for what is raised."""
        worst = self._price(PROBE_BYTES, PROBE_TOKENS)

        async def ask() -> Reply:
            replies: list[Completion] = []
            serving = await settle(self._line, self._endpoint.results, replies.append)
            return Reply(serving.as_json(), sum(self._price_of(r, worst) for r in replies))

        try:
            settled = await self.look_up(
                "how the server continues a turn",
                ask,
                read=Serving.from_json,
                worst_usd=MOST_PROBES * worst,
                results=self._endpoint.results,
            )
            serving: Serving = settled
            return serving
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
        """Find out something about the server, and keep it for runs that are offline.

        Args:
            question: Names it, with `parts`.
            ask: Asks the server; another one may be there tomorrow, so it is asked every time.
            read: Turns the answer into what is returned; raises `ValueError` for one that is not
                valid.
            worst_usd: Most that this can cost.
            **parts: JSON values.
        """
        key = self._name(question=question, **parts)
        answer = await self._client.fetch(key, ask, read=read, worst_usd=worst_usd, ttl_seconds=0.0)
        return answer.value

    async def reply(
        self,
        messages: Sequence[Mapping[str, str]],
        options: Mapping[str, Any],
        most: int,
        ask: Callable[[], Awaitable[Completion]],
    ) -> Any:
        """Get a reply of the model, as the fields of a `Completion` and its `seconds`.

        Args:
            messages: All that the reply follows.
            options: Of the request.
            most: Limit of tokens.
            ask: Asks the server.
        """
        # No tokenizer that falls back to bytes makes more tokens than there are bytes.
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

        greedy = options["temperature"] == 0
        # A sample answers no other request.
        draw = None if greedy else uuid.uuid4().hex
        key = self._name(messages=list(messages), options=dict(options), draw=draw)
        kept = self._endpoint.cache_days * _DAY_SECONDS if greedy else 0.0
        answer = await self._client.fetch(
            key, call, read=check_reply, worst_usd=worst, ttl_seconds=kept
        )
        return answer.value

    def _name(self, **parts: Any) -> str:
        server, model = self._line.url, self._line.model
        return make_key(self._client.service, endpoint=server, model=model, **parts)

    def _price_of(self, completion: Completion, worst: float) -> float:
        """What a call cost by the server's own count, in USD; the worst if it does not count."""
        if completion.input_tokens is None or completion.output_tokens is None:
            return worst
        return self._price(completion.input_tokens, completion.output_tokens)

    def _price(self, input_tokens: int, output_tokens: int) -> float:
        sent = input_tokens * self._endpoint.usd_per_million_input_tokens
        return (sent + output_tokens * self._endpoint.usd_per_million_output_tokens) / 1e6
