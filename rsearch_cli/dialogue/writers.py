"""What rewrites questions and writes paragraphs: the policy itself, or a server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from rsearch_cli.errors import OfflineMiss, PolicyError, RecipeValueError, ServiceFailure
from rsearch_cli.policy.chat_template import Chat
from rsearch_cli.policy.generation import Context, Policy, Prompt, Row
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prompts import room_behind
from rsearch_cli.protocol.results import neutralise
from rsearch_cli.protocol.transcript import ANSWER_CLOSE, SEARCH_CLOSE
from rsearch_cli.recipe.addresses import hide_login, is_http
from rsearch_cli.recipe.dialogue import DialogueConfig
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.trust import is_builtin
from rsearch_cli.services.cache import make_key
from rsearch_cli.services.chat_client import OPENAI_URL, ChatClient
from rsearch_cli.services.completion import LENGTH, Completion
from rsearch_cli.services.event_loop import is_given_up
from rsearch_cli.services.outcomes import PermanentFailure, Reply
from rsearch_cli.services.runtime import WRITER, Services

T = TypeVar("T")

PROMPT_VERSION = 1
"""Part of the cache key; raised whenever a prompt changes."""

URL_VARIABLE = "OPENAI_BASE_URL"

# A trained agent may search or answer although it was asked to write; both tags end it.
_STOPS = [ANSWER_CLOSE, SEARCH_CLOSE]
_FRAME_TOKENS = 128
_ANSWER = re.compile(r"<answer>([^<]*)(?:</answer>)?")


class Unusable(ValueError):
    """A text that a writer wrote cannot be used; the message says why."""


class Writer(Protocol):
    """Writes a text of its own, apart from any rollout."""

    @property
    def name(self) -> str:
        """What it is, for messages."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether it runs on local weights, which only one thread may use at a time."""
        ...

    def clean(self, text: str) -> str:
        """Return outside text on one line, without tags and control tokens."""
        ...

    def write(self, drafts: Sequence[Chat], read: Callable[[str], T]) -> T:
        """Answer the first of several requests that fits the model's context.

        Args:
            drafts: Equivalent chats that end in the request, the most complete one first.
            read: Converts the reply, without its thinking; raises `Unusable`.

        Raises:
            Unusable: The reply was cut off, or `read` refuses it.
            RsearchError: There is no reply.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def open_writer(recipe: Recipe, policy: Policy, services: Services) -> Writer | None:
    """Open what `dialogue.writer` names; None if nothing can write.

    Nothing is sent.

    Raises:
        RecipeValueError: OPENAI_BASE_URL is used, and is not an http address.
    """
    chosen = recipe.dialogue.writer
    if chosen == "auto":
        chosen = "policy"
        if recipe.dialogue.endpoint.url is not None:
            chosen = "endpoint"
        elif _only_searches(recipe):
            chosen = "none"
    if chosen == "endpoint":
        return EndpointWriter(recipe.dialogue, services)
    return PolicyWriter(policy, recipe) if chosen == "policy" else None


def explain_missing(recipe: Recipe) -> str:
    """Return why there is no writer, and what to set, for the end of a message."""
    server = "set dialogue.endpoint.url to an OpenAI-compatible server that can"
    if recipe.dialogue.writer == "none":
        return f"dialogue.writer is none; set it to policy, or {server}"
    return f"this model can only search; {server}"


class PolicyWriter:
    """The policy, on local weights without the trained adapter.

    The adapter was trained to write search plans; its base still follows other instructions. A
    server offers one model only, with whatever training it has.

    Args:
        policy: The policy.
        recipe: Its dialogue and policy sections are read.
    """

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        self.name = "the model itself"
        self._policy = policy
        self._recipe = recipe
        self.is_local = isinstance(policy, LocalPolicy)

    def clean(self, text: str) -> str:
        """Return outside text on one line, without tags and control tokens."""
        return neutralise(text, self._policy.forbidden)

    def write(self, drafts: Sequence[Chat], read: Callable[[str], T]) -> T:
        """Generate a reply greedily; see `Writer.write`."""
        policy = self._policy
        prompt, most = self._fit(drafts)
        if isinstance(policy, LocalPolicy):
            row = Row(prompt.token_ids, _STOPS, most, is_cancelled=is_given_up)
            with policy.without_adapter():
                (generation,) = policy.generate_rows([row])
        else:
            # It is streamed: then Ctrl-C does not wait for the rest of it.
            (generation,) = policy.generate([Context(prompt)], _STOPS, [most], on_text=_ignore)
        if generation.error is not None:
            raise ServiceFailure(generation.error)
        if generation.stop == "length":
            raise Unusable(
                f"it was cut off after {most} tokens; raise dialogue.max_output_tokens or "
                "policy.max_seq_length"
            )
        return read(strip_thought(prompt.opening + generation.text))

    def close(self) -> None:
        """Do nothing; the policy is closed by whoever opened it."""

    def _fit(self, drafts: Sequence[Chat]) -> tuple[Prompt, int]:
        """Render the first request that leaves room for a reply; return it with that room."""
        most, settings = self._recipe.dialogue.max_output_tokens, self._recipe.policy
        enough = min(most, settings.max_seq_length // 2)
        for draft in drafts:
            prompt = self._render(draft)
            room = room_behind(prompt.tokens, settings)
            if room >= enough:
                return prompt, min(most, room)
        raise PolicyError(
            f"policy.max_seq_length={settings.max_seq_length} leaves no room for a reply"
        )

    def _render(self, chat: Chat) -> Prompt:
        """Render a chat; as a single message if the chat template cannot hold earlier turns."""
        try:
            return self._policy.render(chat)
        except PolicyError:
            whole = "\n\n".join(message["content"] for message in chat)
            return self._policy.render([{"role": "user", "content": whole}])


class EndpointWriter:
    """The server that `dialogue.endpoint` names; equal requests are answered from the cache.

    Args:
        dialogue: The recipe's section.
        services: The services of the agent.

    Raises:
        RecipeValueError: OPENAI_BASE_URL is used, and is not an http address.
    """

    is_local = False

    def __init__(self, dialogue: DialogueConfig, services: Services) -> None:
        self._settings = dialogue
        endpoint = dialogue.endpoint
        url = endpoint.url or os.environ.get(URL_VARIABLE) or OPENAI_URL
        if not is_http(url):
            raise RecipeValueError(
                f"{URL_VARIABLE} is not an http address, got {hide_login(url)!r}; unset it to use "
                f"{OPENAI_URL}, or set dialogue.endpoint.url"
            )
        self._line = ChatClient(
            "the writer",
            endpoint.model,
            "dialogue.endpoint.model",
            url,
            endpoint.service.timeout_seconds,
            "dialogue.history_tokens or search.passage_chars",
        )
        self.name = f"{endpoint.model} at {self._line.url}"
        self._client = services.client(WRITER)
        self._loop = services.loop

    def clean(self, text: str) -> str:
        """Return outside text on one line, without tags and control tokens."""
        return neutralise(text)

    def write(self, drafts: Sequence[Chat], read: Callable[[str], T]) -> T:
        """Request a greedy reply; see `Writer.write`."""
        if self._client.may_send:
            self._line.check_key("set dialogue.endpoint.url to a server of your own")
        messages = drafts[0]
        most = self._settings.max_output_tokens

        async def ask() -> Reply:
            completion = await self._line.complete(messages, temperature=0, max_tokens=most)
            if completion.finish == LENGTH:
                raise PermanentFailure(
                    f"it was cut off after {most} tokens; raise dialogue.max_output_tokens"
                )
            return Reply(completion.text, self._price_of(completion, messages))

        key = make_key(
            WRITER,
            endpoint=self._line.url,
            model=self._line.model,
            prompt=PROMPT_VERSION,
            messages=messages,
            max_tokens=most,
        )
        request = self._client.fetch(
            key,
            ask,
            worst_usd=self._worst_usd(messages),
            # Cached replies are checked too: they may have been imported.
            read=lambda reply: read(strip_thought(check_text(reply))),
        )
        try:
            value: T = self._loop.run(request, 0.0).value
        except OfflineMiss:
            raise OfflineMiss("cache.mode is offline, and the reply is not in the cache") from None
        return value

    def close(self) -> None:
        """Close the connections."""
        self._loop.finish(self._line.close())

    def _worst_usd(self, messages: Sequence[Mapping[str, str]]) -> float:
        """Return the highest price of one attempt; tokenizers make at most one token a byte."""
        sent = sum(len(message["content"].encode()) for message in messages)
        return self._usd(sent + _FRAME_TOKENS, self._settings.max_output_tokens)

    def _price_of(self, completion: Completion, messages: Sequence[Mapping[str, str]]) -> float:
        """Return the price by the server's token counts; without counts, the highest."""
        if completion.input_tokens is None or completion.output_tokens is None:
            return self._worst_usd(messages)
        return self._usd(completion.input_tokens, completion.output_tokens)

    def _usd(self, input_tokens: int, output_tokens: int) -> float:
        prices = self._settings.endpoint
        sent = input_tokens * prices.usd_per_million_input_tokens
        return (sent + output_tokens * prices.usd_per_million_output_tokens) / 1e6


def _ignore(text: str) -> None:
    pass


def make_chat(instructions: str, examples: Sequence[tuple[str, str]], request: str) -> Chat:
    """Return a chat that shows examples as earlier turns; the instructions open the first one."""
    turns = [*examples, (request, "")]
    contents = [text for turn in turns for text in turn][:-1]
    contents[0] = f"{instructions}\n\n{contents[0]}"
    return [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(contents)
    ]


def check_text(value: object) -> str:
    """Return a stored reply if it is a text.

    Raises:
        Unusable: It is something else.
    """
    if not isinstance(value, str):
        raise Unusable("it is not text")
    return value


def strip_thought(text: str) -> str:
    """Return a reply without its thinking, and without the tags of a single answer block.

    Raises:
        Unusable: Its thought does not end.
    """
    text = text.rpartition("</think>")[2]
    if "<think>" in text:
        raise Unusable("its thought does not end")
    text = text.strip()
    answer = _ANSWER.fullmatch(text)
    return answer[1].strip() if answer else text


def _only_searches(recipe: Recipe) -> bool:
    """Whether the policy is a built-in model on local weights, which follows no instructions."""
    return recipe.policy.endpoint.url is None and is_builtin(recipe.policy.model)
