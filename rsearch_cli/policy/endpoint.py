"""A policy behind an OpenAI-compatible server, for the same rollouts as local weights.

A request that fails after all retries yields an empty generation with an `error`, so that it is
counted and never scored.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

from rsearch_cli.errors import OfflineMiss, PolicyError, RecipeValueError, ServiceFailure
from rsearch_cli.policy.chat_template import ChatTemplate
from rsearch_cli.policy.endpoint_calls import (
    AS_POLICY,
    FRAME_TOKENS,
    EndpointCalls,
    Role,
    check_problem,
)
from rsearch_cli.policy.endpoint_chat import (
    ReplyText,
    count_tokens,
    cut_at_stop,
    find_stop,
    is_ambiguous,
    join_thought,
    read_generation,
    strip_echo,
    to_messages,
)
from rsearch_cli.policy.endpoint_probe import SGLANG, ServerMode
from rsearch_cli.policy.generation import (
    GREEDY,
    Context,
    Generation,
    OnText,
    Prompt,
    Sampling,
)
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.protocol.transcript import THINK
from rsearch_cli.recipe.policy import PolicyConfig
from rsearch_cli.services.chat_client import ChatClient
from rsearch_cli.services.chat_errors import NothingThere, RequestRefused
from rsearch_cli.services.completion import Completion
from rsearch_cli.services.event_loop import GRACE_SECONDS, finish_all
from rsearch_cli.services.outcomes import CallFailure, Reply
from rsearch_cli.services.runtime import Services
from rsearch_cli.types import Segment

logger = logging.getLogger(__name__)


class EndpointPolicy(AbstractContextManager["EndpointPolicy"]):
    """A model behind an OpenAI-compatible server.

    Attributes:
        forbidden: Turn markers without angle brackets, which servers may parse anywhere.
        eos_id: None: rows of text have no ids.
        line: Client of the server.
    """

    forbidden: tuple[str, ...] = ("[INST]", "[/INST]")
    eos_id = None

    def __init__(self, policy: PolicyConfig, services: Services, role: Role = AS_POLICY) -> None:
        """Set up the policy; nothing is sent.

        Args:
            policy: The recipe's section.
            services: The services of the run.
            role: What the model is in the run.

        Raises:
            RecipeValueError: OpenAI's own server without a price.
        """
        endpoint = policy.endpoint
        self.line = ChatClient(
            role.name,
            endpoint.model or policy.model,
            f"{role.flag}-model",
            endpoint.url or "",
            endpoint.service.timeout_seconds,
            "rollout.max_new_tokens, search.passage_chars or search.top_k",
        )
        self._client = services.client(role.service)
        self._calls = EndpointCalls(endpoint, self._client, self.line, role.section)
        self._role = role
        self._loop = services.loop
        self._mode: ServerMode | None = None
        if endpoint.results == "user_turn":
            self._mode = ServerMode("user_turn", "the recipe says so")
        if self.line.is_public and not endpoint.usd_per_million_output_tokens:
            raise RecipeValueError(
                f"{role.section}.usd_per_million_output_tokens is 0, but OpenAI charges for "
                "tokens; set both prices with --set, so that the bill and budget.max_usd are right"
            )

    @property
    def mode(self) -> ServerMode:
        """How the server is used; calls `prepare` if that is not known yet."""
        return self._mode or self.prepare()

    def start(self) -> None:
        """Check the key and the server, and log how it is used; do nothing offline.

        Raises what `check_key` and `prepare` do.
        """
        if self._client.may_send:
            self.check_key()
            logger.info(self.prepare().describe(self._role.section))

    def check_key(self) -> None:
        """Check that there is a key where one is needed.

        Raises:
            AccessDenied: OpenAI's own server without a key.
        """
        self.line.check_key(f"name a server of your own with {self._role.flag}")

    def prepare(self) -> ServerMode:
        """Probe the server with a few tokens, before anything is loaded or generated.

        Raises:
            PolicyError: The server does not know the model or the address, refuses a plain request,
                or cannot continue a turn although the recipe requires it.
            ServiceFailure: It does not answer.
            AccessDenied: The key or the account is refused.
            BudgetExceeded: The call could exceed the budget.
            OfflineMiss: Offline, and no earlier run has probed this server.
        """
        self._mode = self._loop.run(self._calls.probe())
        return self._mode

    def describe_problem(self, chat: list[dict[str, str]]) -> str | None:
        """Return why the server's chat template does not render a chat faithfully.

        None if it does, and if the server cannot show it.

        Raises:
            ServiceFailure: The server does not answer.
        """
        if not self.mode.by_ids:
            return None
        with suppress(OfflineMiss):
            return self._loop.run(self._describe_problem(chat))
        return None

    def render(self, messages: list[dict[str, str]], *, open_thought: bool = False) -> Prompt:
        """Make a prompt of a chat; the server renders it if it continues ids."""
        opening = self.mode.opening
        added = open_thought and not opening
        prompt = Prompt(
            tuple(messages),
            opening=THINK if added else opening,
            added_opening=added,
            usage=sum(count_tokens(m["content"]) + FRAME_TOKENS for m in messages)
            + (count_tokens(THINK) if added else 0),
        )
        ids = self._encode_now(lambda: self._render_ids(prompt))
        return replace(prompt, token_ids=ids, usage=None) if ids else prompt

    def insert(self, text: str, limit: int) -> Segment:
        """Make a segment of text that the system writes; it is never cut."""
        ids = self._encode_now(lambda: self._encode_ids(text))
        return Segment(text, ids, "system", usage=None if ids else count_tokens(text))

    def generate(
        self,
        contexts: Sequence[Context],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
        cache: PrefixCache | None = None,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        """Continue every context, as many at once as the recipe's service allows.

        The server caches prefixes by itself, so `cache` is not used. With `on_text` replies are
        streamed; it is called from another thread.

        Raises:
            AccessDenied: The key or the account is refused.
            BudgetExceeded: A call could exceed the budget.
            OfflineMiss: Offline, and a reply is not in the cache.
            PolicyError: The server does not know the model or the address.
            KeyboardInterrupt: Ctrl-C; without `on_text`, calls in flight had
                `services.event_loop.GRACE_SECONDS` to finish.
        """
        replies = self._reply_to_all(contexts, stops, max_new_tokens, sampling, on_text)
        # In a session, Ctrl-C means that the next question is wanted at once.
        return self._loop.run(replies, 0.0 if on_text else GRACE_SECONDS)

    def submit(
        self,
        context: Context,
        stops: Sequence[str],
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        on_text: OnText | None = None,
    ) -> Future[list[Generation]]:
        """Start to continue one context as `generate` does; cancelling the future hangs up."""
        replies = self._reply_to_all([context], stops, [max_new_tokens], sampling, on_text)
        return self._loop.submit(replies)

    def _reply_to_all(
        self,
        contexts: Sequence[Context],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling,
        on_text: OnText | None,
    ) -> Coroutine[Any, Any, list[Generation]]:
        continue_ = self._continue_ids if self.mode.by_ids else self._continue_chat
        return finish_all(
            self._catch_failure(continue_(context, list(stops), most, sampling, on_text))
            for context, most in zip(contexts, max_new_tokens, strict=True)
        )

    def close(self) -> None:
        """Close the connections."""
        self._loop.finish(self.line.close())

    def __exit__(self, *error: object) -> None:
        self.close()

    def _encode_now(self, encode: Callable[[], Coroutine[Any, Any, list[int]]]) -> tuple[int, ...]:
        """Return ids from the server's tokenizer, or () where there are none to be had."""
        if self.mode.by_ids and self._client.may_send:
            # A failure here is retried, and counted, when a reply is requested.
            with suppress(CallFailure):
                return tuple(self._loop.run(encode()))
        return ()

    async def _describe_problem(self, chat: list[dict[str, str]]) -> str | None:
        async def ask() -> Reply:
            try:
                ids = await self._render_ids(Prompt(tuple(chat)))
                rendered = await self.mode.tokenizer(self.line).decode(ids)
            except RequestRefused as refused:
                return Reply(str(refused))
            meant = [dict(message) for message in self.line.dialect.put(chat, {}).messages]
            return Reply(ChatTemplate.describe_loss(meant, rendered))

        question = "whether the server's chat template holds this chat"
        problem: str | None = await self._calls.look_up(
            question, ask, read=check_problem, messages=chat
        )
        return problem

    async def _render_ids(self, prompt: Prompt) -> list[int]:
        chat = self.line.dialect.put(prompt.messages, {}).messages
        ids = await self.mode.tokenizer(self.line).render(chat)
        return ids + await self._encode_ids(prompt.opening) if prompt.added_opening else ids

    async def _encode_ids(self, text: str) -> list[int]:
        return await self.mode.tokenizer(self.line).encode(text) if text else []

    async def _context_ids(self, context: Context) -> list[int]:
        """Return the ids of a context; those that could not be had before are encoded now."""
        ids = list(context.prompt.token_ids) or await self._render_ids(context.prompt)
        for segment in context.segments:
            ids += segment.token_ids or await self._encode_ids(segment.text)
        return ids

    async def _continue_ids(
        self,
        context: Context,
        stops: list[str],
        most: int,
        sampling: Sampling,
        on_text: OnText | None,
    ) -> Generation:
        """Continue token ids: the model sees exactly what it sees on local weights."""
        tokenizer = self.mode.tokenizer(self.line)
        options = _options(stops, most, sampling) | dict(tokenizer.options)

        async def ask() -> Completion:
            prompt = await self._context_ids(context)
            tell = (lambda _, text: on_text(text)) if on_text else None
            reply = await self.line.continue_ids(prompt, tell, **options)
            text, stop = find_stop(reply.text, stops, reply.finish, reply.stop_string)
            if reply.token_ids is None or len(text) < len(reply.text):
                ids = tuple(await tokenizer.encode(text))
            else:
                ids = reply.token_ids
                # The last token may contain text behind the tag; local weights keep it.
                text = await tokenizer.decode(ids) if stop == "tag" else text
            return replace(reply, text=text, finish=stop, token_ids=ids)

        messages = to_messages(context, same_turn=True)
        value = await self._calls.reply(messages, options, most, ask, sampling.draw)
        ids = tuple(value["ids"] or ())
        return Generation(ids, value["text"], value["finish"], seconds=value["seconds"])

    async def _continue_chat(
        self,
        context: Context,
        stops: list[str],
        most: int,
        sampling: Sampling,
        on_text: OnText | None,
    ) -> Generation:
        """Continue a chat, with a new turn or within the last one."""
        mode = self.mode
        same_turn = mode.results == "same_turn"
        opened = context.prompt.added_opening and not any(s.text for s in context.segments)
        messages = to_messages(context, same_turn=same_turn, omit_template=mode.server == SGLANG)
        turn = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        options = _options(stops, most, sampling) | mode.options(continues=bool(turn))

        def read(thought: str, text: str) -> ReplyText:
            return join_thought(thought, strip_echo(text, turn), opened=opened)

        def tell(thought: str, text: str) -> None:
            repeats = turn.startswith(text) or (opened and THINK.startswith(text.lstrip()))
            if on_text and not is_ambiguous(thought, text) and (thought or not repeats):
                written = read(thought, text)
                on_text(cut_at_stop(written.text, stops, written.thought_chars) or written.text)

        async def ask() -> Completion:
            return await self.line.complete(messages, tell if on_text else None, **options)

        value = await self._calls.reply(messages, options, most, ask, sampling.draw)
        written = read(value.get("thought", ""), value["text"])
        return read_generation(written, value, stops, most)

    async def _catch_failure(self, reply: Awaitable[Generation]) -> Generation:
        """Return a reply, or an empty one with the error."""
        try:
            return await reply
        except ServiceFailure as failure:
            if isinstance(failure.__cause__, NothingThere):
                raise PolicyError(str(failure)) from None
            return Generation((), "", "eos", error=" ".join(str(failure).split()))


def _options(stops: list[str], most: int, sampling: Sampling) -> dict[str, Any]:
    options = {"temperature": sampling.temperature, "stop": stops, "max_tokens": most}
    return options | ({"top_p": sampling.top_p} if sampling.top_p < 1 else {})
