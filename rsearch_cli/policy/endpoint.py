"""A policy on a server: text through OpenAI's chat API, for the same rollout as local weights.

Place in the path: where `LocalPolicy` stands, in evaluation; calls go through the gateway, so they
are bounded, paced, tried again, paid for and, if wanted, cached. On failure: a request that got no
answer gives an empty generation, and `failure_of` finds it in the trajectory, so that it is counted
and never scored. A refused key, a spent budget and an unknown model stop the run, once the calls in
flight have ended. Ids are those of `texts`; what is sent is estimated at four bytes a token,
because no count comes before the reply.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import JsonValue

from rsearch_cli.errors import PolicyError, RecipeValueError, ServiceFailure
from rsearch_cli.policy.generation import GREEDY, Generation, Sampling
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.policy.texts import (
    THINK,
    TextToken,
    build_chat,
    count_tokens,
    cut_behind,
    ends_opened,
    fill,
    find_stop,
)
from rsearch_cli.recipe.policy import Policy
from rsearch_cli.services.cache import make_key
from rsearch_cli.services.call import Reply
from rsearch_cli.services.chat import ChatLine, Completion, NothingThere
from rsearch_cli.services.gateway import Gateway
from rsearch_cli.services.lifetime import Closing, finish_all
from rsearch_cli.services.loop import PATIENCE_SECONDS, CallLoop
from rsearch_cli.services.values import is_finite, read_token_count
from rsearch_cli.types import Trajectory

END = -1
"""Stands for the end of a turn, which has no id of ours."""

# Roles and the marks between them, a message.
_FRAME_TOKENS = 16
_DAY_SECONDS = 86400.0


class EndpointPolicy(Closing):
    """A model behind an OpenAI-compatible server.

    One event loop lives as long as the policy, so that its client keeps its connections: no
    instance in two threads. Close it when done; the gateway belongs to the caller.

    Attributes:
        forbidden: Marks between turns that hold no angle bracket; servers may read them anywhere.
        eos_id: Stands for the end of a turn.
        line: The server that is asked.
    """

    forbidden: tuple[str, ...] = ("[INST]", "[/INST]")
    eos_id = END

    def __init__(self, policy: Policy, gateway: Gateway) -> None:
        """Take the recipe's section and the gateway of the service `policy`; nothing is sent.

        Raises:
            RecipeValueError: OpenAI's own server is asked, and its price is not given.
        """
        endpoint = policy.endpoint
        self._endpoint = endpoint
        self._model = endpoint.model or policy.model
        timeout = endpoint.service.timeout_seconds
        self.line = ChatLine(
            "the policy", self._model, "--endpoint-model", endpoint.url or "", timeout
        )
        self._gateway = gateway
        self._loop = CallLoop("replies of the policy's server")
        if self.line.is_public and not endpoint.usd_per_million_output_tokens:
            raise RecipeValueError(
                "policy.endpoint.usd_per_million_output_tokens is 0, and OpenAI charges for its "
                "tokens; give both prices with --set, so that the bill and budget.max_usd hold"
            )

    def check_key(self) -> None:
        """Check that there is a key where one is needed.

        Raises:
            AccessDenied: OpenAI's own server is asked, and there is no key.
        """
        self.line.check_key("name a server of your own with --endpoint")

    def encode_prompt(self, messages: list[dict[str, str]]) -> tuple[list[int], str]:
        """Take a chat; what its template opens, the server does not tell."""
        size = sum(count_tokens(m["content"]) + _FRAME_TOKENS for m in messages)
        return [TextToken(messages=messages), *fill(size)], ""

    def encode_inserted(self, text: str) -> list[int]:
        """Take text that the system writes."""
        return [TextToken(text), *fill(count_tokens(text))]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, exactly."""
        return "".join(i.text for i in ids if isinstance(i, TextToken))

    def generate(
        self,
        contexts: Sequence[Sequence[int]],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
        cache: PrefixCache | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Generation]:
        """Continue every context, as many at once as the recipe's service allows.

        The server keeps its own cache of what it has computed; `cache` is not used. With `on_text`
        replies are streamed, and told in another thread while this one waits; if one breaks off and
        is asked for again, its text begins anew.

        Raises:
            AccessDenied: The key or the account is refused.
            BudgetExceeded: A call could pass the budget.
            OfflineMiss: A reply is not in the cache, and nothing may be sent.
            PolicyError: The server does not know the model or the address.
            KeyboardInterrupt: Ctrl-C; without `on_text` what was under way had
                `services.loop.PATIENCE_SECONDS`.
        """
        asked = zip(contexts, max_new_tokens, strict=True)
        # A person who looks on and presses Ctrl-C wants the next question.
        patience = 0.0 if on_text else PATIENCE_SECONDS
        replies = self._generate_all(list(asked), list(stops), sampling, on_text)
        return self._loop.run(replies, patience)

    def close(self) -> None:
        """Close connections and event loop; the policy cannot be used afterwards."""
        with self._loop as loop:
            loop.run(self.line.close(), patience=0.0)

    async def _generate_all(
        self,
        asked: list[tuple[Sequence[int], int]],
        stops: list[str],
        sampling: Sampling,
        on_text: Callable[[str], None] | None,
    ) -> list[Generation]:
        return await finish_all(
            self._continue(context, stops, most, sampling, on_text) for context, most in asked
        )

    async def _continue(
        self,
        context: Sequence[int],
        stops: list[str],
        most: int,
        sampling: Sampling,
        on_text: Callable[[str], None] | None,
    ) -> Generation:
        messages = build_chat(context, self._endpoint)
        opened = ends_opened(context)

        def tell(text: str) -> None:
            if on_text and not (opened and THINK.startswith(text)):
                on_text(_read_text(cut_behind(text, stops) or text, opened=opened))

        try:
            value = await self._fetch(messages, stops, most, sampling, tell if on_text else None)
            return _read_reply(value, stops, most, opened=opened)
        except ServiceFailure as failure:
            if isinstance(failure.__cause__, NothingThere):
                raise PolicyError(str(failure)) from None
            line = " ".join(str(failure).split())
            return Generation((TextToken(author="model", failure=line),), "", "eos")

    async def _fetch(
        self,
        messages: list[dict[str, str]],
        stops: list[str],
        most: int,
        sampling: Sampling,
        on_text: Callable[[str], None] | None,
    ) -> JsonValue:
        options: dict[str, Any] = {"temperature": sampling.temperature, "stop": stops}
        options |= {"max_tokens": most} | ({"top_p": sampling.top_p} if sampling.top_p < 1 else {})
        if messages[-1]["role"] == "assistant":
            # vLLM and SGLang must be told; llama.cpp does so by itself.
            options["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
        # No tokenizer that falls back to bytes makes more tokens than there are bytes.
        sent = sum(len(m["content"].encode()) + _FRAME_TOKENS for m in messages)
        worst = self._price(sent, most)

        async def ask() -> Reply:
            started = time.perf_counter()
            completion = await self.line.complete(messages, on_text, **options)
            return Reply(
                {
                    "text": completion.text,
                    "finish": completion.finish,
                    "stop_string": completion.stop_string,
                    "tokens": completion.output_tokens,
                    "seconds": time.perf_counter() - started,
                },
                self._price_of(completion, worst),
            )

        greedy = sampling.temperature == 0
        key = make_key(
            self._gateway.service,
            endpoint=self.line.url,
            model=self._model,
            messages=messages,
            options=options,
            draw=None if greedy else uuid.uuid4().hex,  # a sample answers no other request
        )
        answer = await self._gateway.fetch(
            key,
            ask,
            worst_usd=worst,
            ttl_seconds=self._endpoint.cache_days * _DAY_SECONDS if greedy else 0.0,
            read=check_reply,
        )
        return answer.value

    def _price_of(self, completion: Completion, worst: float) -> float:
        """What a call cost by the server's own count, in USD; the worst if it does not count."""
        if completion.input_tokens is None or completion.output_tokens is None:
            return worst
        return self._price(completion.input_tokens, completion.output_tokens)

    def _price(self, input_tokens: int, output_tokens: int) -> float:
        sent = input_tokens * self._endpoint.usd_per_million_input_tokens
        return (sent + output_tokens * self._endpoint.usd_per_million_output_tokens) / 1e6


def call_seconds(trajectory: Trajectory) -> float:
    """How long the server took for all replies of a trajectory, without any waiting in line."""
    return sum(token.seconds for token in _tokens(trajectory))


def failure_of(trajectory: Trajectory) -> str | None:
    """Why a trajectory has no end, if a request for it got no answer."""
    return next((token.failure for token in _tokens(trajectory) if token.failure), None)


def check_reply(value: JsonValue) -> JsonValue:
    """Let a reply pass that is whole: the cache may hold anything.

    Raises:
        ValueError: A part is missing or of another type.
    """
    if not isinstance(value, dict):
        raise ValueError("no reply of a model")
    ends = (value.get("text"), value.get("finish"), value.get("stop_string") or "")
    tokens = value.get("tokens")
    if not all(isinstance(end, str) for end in ends) or not is_finite(value.get("seconds")):
        raise ValueError("a reply of a model lacks a part")
    if tokens is not None and read_token_count(tokens) is None:
        raise ValueError(f"a reply of a model has {tokens!r:.40} tokens")
    return value


def _read_text(text: str, *, opened: bool) -> str:
    """A reply without the tag that had been opened for it, and that some servers repeat."""
    return text.removeprefix(THINK) if opened else text


def _read_reply(value: Any, stops: Sequence[str], most: int, *, opened: bool) -> Generation:
    text, stop = find_stop(value["text"], stops, value["finish"], value["stop_string"])
    text = _read_text(text, opened=opened)
    # A server that does not know stop strings has written, and counted, what was cut off.
    tokens = value["tokens"] if value["tokens"] is not None else count_tokens(text)
    first = TextToken(text, "model", seconds=value["seconds"])
    return Generation((first, *fill(min(tokens, most))), text, stop)


def _tokens(trajectory: Trajectory) -> list[TextToken]:
    return [i for s in trajectory.segments for i in s.token_ids if isinstance(i, TextToken)]
