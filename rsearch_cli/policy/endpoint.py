"""A policy on a server: text through OpenAI's API, for the same rollout as local weights.

It takes the place of `LocalPolicy` in evaluation and in use. A request without an answer gives an
empty generation; `failure_of` finds the reason in the trajectory, so that it is counted and never
scored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from rsearch_cli.errors import OfflineMiss, PolicyError, RecipeValueError, ServiceFailure
from rsearch_cli.policy.chat_template import ChatTemplate
from rsearch_cli.policy.endpoint_calls import FRAME_TOKENS, PolicyCalls, check_problem
from rsearch_cli.policy.endpoint_chat import (
    Written,
    assemble,
    cut_behind,
    drop_echo,
    find_stop,
    is_undecided,
    read_reply,
)
from rsearch_cli.policy.endpoint_probe import SGLANG, Serving
from rsearch_cli.policy.generation import GREEDY, Generation, Sampling
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.policy.texts import TextToken, build_chat, count_tokens, ends_opened, fill, heads
from rsearch_cli.protocol.transcript import THINK
from rsearch_cli.recipe.policy import PolicyConfig
from rsearch_cli.services.chat_client import ChatClient
from rsearch_cli.services.chat_errors import NothingThere, RequestRefused
from rsearch_cli.services.client import ServiceClient
from rsearch_cli.services.completion import Completion
from rsearch_cli.services.event_loop import PATIENCE_SECONDS, EventLoop
from rsearch_cli.services.lifetime import Closing, finish_all
from rsearch_cli.services.outcomes import CallFailure, Reply
from rsearch_cli.types import Trajectory

END = -1
"""Stands for the end of a turn, which has no id of ours."""

OnText = Callable[[str], None]


class EndpointPolicy(Closing):
    """A model behind an OpenAI-compatible server.

    One event loop lives as long as the policy, so that its client keeps its connections: no
    instance in two threads. Close it when done; the client belongs to the caller.

    Attributes:
        forbidden: Marks between turns that hold no angle bracket; servers may read them anywhere.
        eos_id: Stands for the end of a turn.
        line: The server that is asked.
    """

    forbidden: tuple[str, ...] = ("[INST]", "[/INST]")
    eos_id = END

    def __init__(self, policy: PolicyConfig, client: ServiceClient) -> None:
        """Take the recipe's section and the client of the service `policy`; nothing is sent.

        Raises:
            RecipeValueError: OpenAI's own server is asked, and its price is not given.
        """
        endpoint = policy.endpoint
        self.line = ChatClient(
            "the policy",
            endpoint.model or policy.model,
            "--endpoint-model",
            endpoint.url or "",
            endpoint.service.timeout_seconds,
            "rollout.max_new_tokens, search.passage_chars or search.top_k",
        )
        self._client = client
        self._calls = PolicyCalls(endpoint, client, self.line)
        self._loop = EventLoop("replies of the policy's server")
        self._serving: Serving | None = None
        if endpoint.results == "user_turn":
            self._serving = Serving("user_turn", "the recipe says so")
        if self.line.is_public and not endpoint.usd_per_million_output_tokens:
            raise RecipeValueError(
                "policy.endpoint.usd_per_million_output_tokens is 0, and OpenAI charges for its "
                "tokens; give both prices with --set, so that the bill and budget.max_usd hold"
            )

    @property
    def serving(self) -> Serving:
        """What was settled with the server; see `prepare`, which is called if need be."""
        return self._serving or self.prepare()

    def check_key(self) -> None:
        """Check that there is a key where one is needed.

        Raises:
            AccessDenied: OpenAI's own server is asked, and there is no key.
        """
        self.line.check_key("name a server of your own with --endpoint")

    def prepare(self) -> Serving:
        """Ask the server what it is and for a few tokens, before anything is loaded or generated.

        Raises:
            PolicyError: The server does not know the model or the address, refuses a plain request,
                or cannot continue a turn although the recipe wants that.
            ServiceFailure: It does not answer.
            AccessDenied: The key or the account is refused.
            BudgetExceeded: The call could pass the budget.
            OfflineMiss: Nothing may be sent, and it is not known from an earlier run.
        """
        self._serving = self._loop.run(self._calls.settle())
        return self._serving

    def describe_problem(self, chat: list[dict[str, str]]) -> str | None:
        """Why the server's chat template does not render a chat as it is meant.

        None if it does, and where the server cannot be asked for that.

        Raises:
            ServiceFailure: The server does not answer.
        """
        if not self.serving.by_ids:
            return None
        with suppress(OfflineMiss):
            return self._loop.run(self._describe_problem(chat))
        return None

    def encode_prompt(self, messages: list[dict[str, str]]) -> tuple[list[int], str]:
        """Take a chat; gives its tokens, and what the server's template opens, if that is known."""
        size = sum(count_tokens(m["content"]) + FRAME_TOKENS for m in messages)
        return self._encode(TextToken(messages=messages), size), self.serving.opening

    def encode_inserted(self, text: str) -> list[int]:
        """Take text that the system writes."""
        return self._encode(TextToken(text), count_tokens(text))

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
        on_text: OnText | None = None,
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
        write = self._continue_ids if self.serving.by_ids else self._continue_chat
        asked = zip(contexts, max_new_tokens, strict=True)
        replies = finish_all(
            self._guard(write(context, list(stops), most, sampling, on_text))
            for context, most in asked
        )
        # A person who looks on and presses Ctrl-C wants the next question.
        return self._loop.run(replies, 0.0 if on_text else PATIENCE_SECONDS)

    def close(self) -> None:
        """Close connections and event loop; the policy cannot be used afterwards."""
        with self._loop as loop:
            loop.run(self.line.close(), patience=0.0)

    def _encode(self, head: TextToken, estimate: int) -> list[int]:
        """The tokens of a prompt or a text, counted by the server where it has ids for them."""
        if self.serving.by_ids and self._client.may_send:
            # What fails here is tried again when a reply is asked for, and counted then.
            with suppress(CallFailure):
                self._loop.run(self._ids_of(head))
        return [head, *fill(estimate if head.ids is None else len(head.ids))]

    async def _describe_problem(self, chat: list[dict[str, str]]) -> str | None:
        async def ask() -> Reply:
            try:
                ids = await self._ids_of(TextToken(messages=chat))
                rendered = await self.serving.tokens(self.line).decode(ids)
            except RequestRefused as refused:
                return Reply(str(refused))
            meant = [dict(message) for message in self.line.dialect.put(chat, {}).messages]
            return Reply(ChatTemplate.describe_loss(meant, rendered))

        question = "whether the server's chat template holds this chat"
        problem: str | None = await self._calls.look_up(
            question, ask, read=check_problem, messages=chat
        )
        return problem

    async def _ids_of(self, head: TextToken) -> tuple[int, ...]:
        if head.ids is None:
            tokens = self.serving.tokens(self.line)
            if head.messages:
                chat = self.line.dialect.put(head.messages, {}).messages
                head.ids = tuple(await tokens.render(chat))
            else:
                head.ids = tuple(await tokens.encode(head.text))
        return head.ids

    async def _continue_ids(
        self,
        context: Sequence[int],
        stops: list[str],
        most: int,
        sampling: Sampling,
        on_text: OnText | None,
    ) -> Generation:
        """Continue token ids: what the model sees on local weights."""
        tokens, parts = self.serving.tokens(self.line), heads(context)
        options = _options(stops, most, sampling) | dict(tokens.options)

        async def ask() -> Completion:
            prompt = [i for head in parts for i in await self._ids_of(head)]
            tell = (lambda _, text: on_text(text)) if on_text else None
            reply = await self.line.continue_ids(prompt, tell, **options)
            text, stop = find_stop(reply.text, stops, reply.finish, reply.stop_string)
            if reply.token_ids is None or len(text) < len(reply.text):
                ids = tuple(await tokens.encode(text))
            else:
                ids = reply.token_ids
                # The last token may hold characters behind the tag; local weights keep them.
                text = await tokens.decode(ids) if stop == "tag" else text
            return replace(reply, text=text, finish=stop, token_ids=ids)

        messages = build_chat(context, same_turn=True)
        value = await self._calls.reply(messages, options, most, ask)
        ids = value["ids"] or ()
        head = TextToken(value["text"], "model", seconds=value["seconds"], ids=ids)
        return Generation((head, *fill(len(ids))), value["text"], value["finish"])

    async def _continue_chat(
        self,
        context: Sequence[int],
        stops: list[str],
        most: int,
        sampling: Sampling,
        on_text: OnText | None,
    ) -> Generation:
        """Continue a chat, by a turn of its own or within the last one."""
        serving, opened = self.serving, ends_opened(context)
        same_turn = serving.results == "same_turn"
        messages = build_chat(context, same_turn=same_turn, leave_implied=serving.server == SGLANG)
        turn = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        options = _options(stops, most, sampling) | serving.options(continues=bool(turn))

        def read(thought: str, text: str) -> Written:
            return assemble(thought, drop_echo(text, turn), opened=opened)

        def tell(thought: str, text: str) -> None:
            repeats = turn.startswith(text) or (opened and THINK.startswith(text.lstrip()))
            if on_text and not is_undecided(thought, text) and (thought or not repeats):
                written = read(thought, text)
                on_text(cut_behind(written.text, stops, written.thought) or written.text)

        async def ask() -> Completion:
            return await self.line.complete(messages, tell if on_text else None, **options)

        value = await self._calls.reply(messages, options, most, ask)
        written = read(value.get("thought", ""), value["text"])
        return read_reply(written, value, stops, most)

    async def _guard(self, reply: Awaitable[Generation]) -> Generation:
        """A reply, or an empty one that says why there is none."""
        try:
            return await reply
        except ServiceFailure as failure:
            if isinstance(failure.__cause__, NothingThere):
                raise PolicyError(str(failure)) from None
            line = " ".join(str(failure).split())
            return Generation((TextToken(author="model", failure=line),), "", "eos")


def call_seconds(trajectory: Trajectory) -> float:
    """How long the server took for all replies of a trajectory, without any waiting in line."""
    return sum(token.seconds for token in _tokens(trajectory))


def failure_of(trajectory: Trajectory) -> str | None:
    """Why a trajectory has no end, if a request for it got no answer."""
    return next((token.failure for token in _tokens(trajectory) if token.failure), None)


def _options(stops: list[str], most: int, sampling: Sampling) -> dict[str, Any]:
    options = {"temperature": sampling.temperature, "stop": stops, "max_tokens": most}
    return options | ({"top_p": sampling.top_p} if sampling.top_p < 1 else {})


def _tokens(trajectory: Trajectory) -> list[TextToken]:
    return [i for s in trajectory.segments for i in s.token_ids if isinstance(i, TextToken)]
