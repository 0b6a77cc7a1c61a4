"""The interface between rollouts and policies: contexts in, generations out.

One `Policy` protocol covers local weights, which continue token ids, and servers, which continue
messages. A context therefore carries both; sampled ids are never re-encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rsearch_cli.policy.chat_template import Chat
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.types import Segment

OnText = Callable[[str], None]
"""Called with all the text generated so far."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 is greedy decoding.
        top_p: Nucleus; 1 keeps all.
        draw: Name of the draw: a server's sampled reply is kept in the cache under it. None asks
            anew every time.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    draw: str | None = None


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered chat, ready for the model's turn.

    Attributes:
        messages: The chat.
        token_ids: `[p]` ids, unpadded; empty where a server keeps them to itself.
        opening: Start of the model's turn that the prompt contains (`<think>`), or "".
        added_opening: Whether `opening` was added here rather than by the chat template.
        usage: Tokens, estimated where there are no ids; None if `token_ids` has them all.
    """

    messages: tuple[dict[str, str], ...]
    token_ids: tuple[int, ...] = ()
    opening: str = ""
    added_opening: bool = False
    usage: int | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.token_ids) if self.usage is None else self.usage


@dataclass(frozen=True, slots=True)
class Context:
    """What a policy continues: a prompt, then what it wrote and what the system inserted."""

    prompt: Prompt
    segments: Sequence[Segment] = ()

    @property
    def token_ids(self) -> list[int]:
        """`[p + l]` ids of the prompt and all segments."""
        return [*self.prompt.token_ids, *(i for s in self.segments for i in s.token_ids)]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.prompt.tokens + sum(segment.tokens for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a batch of token ids whose rows are to be continued differently.

    Attributes:
        token_ids: `[p + l]` ids to continue.
        stops: Strings such as `</search>`.
        max_new_tokens: Its limit, at least 1.
        sampling: Greedy by default.
        on_text: Called with all of its text after every token.
        is_cancelled: Asked after every token; the row ends once it returns True, and what it wrote
            is of no use then.
    """

    token_ids: Sequence[int]
    stops: Sequence[str]
    max_new_tokens: int
    sampling: Sampling = GREEDY
    on_text: OnText | None = None
    is_cancelled: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """What a policy generated in one call.

    Attributes:
        token_ids: `[l]` sampled ids, including an end-of-sequence id; empty where a server returns
            text only.
        text: Decoded ids, without the end-of-sequence id.
        stop: `tag` if a stop string was completed, `eos`, or `length`.
        usage: See `Segment.usage`.
        seconds: See `Segment.seconds`.
        error: See `Segment.error`; `text` is empty then.
        template_chars: See `Segment.template_chars`.
    """

    token_ids: tuple[int, ...]
    text: str
    stop: Literal["tag", "eos", "length"]
    usage: int | None = None
    seconds: float | None = field(default=None, compare=False)
    error: str | None = None
    template_chars: int = 0

    def as_segment(self) -> Segment:
        """Return it as a segment of a completion, written by the model."""
        return Segment(
            self.text,
            self.token_ids,
            "model",
            self.usage,
            self.seconds,
            self.error,
            self.template_chars,
        )


class PromptRenderer(Protocol):
    """The part of a policy that needs no weights (see `policy.chat_tokenizer.ChatTokenizer`)."""

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Strings that would be read as control tokens; outside text must not contain them."""
        ...

    def render(self, messages: Chat, *, open_thought: bool = False) -> Prompt:
        """Render a chat for the model's turn.

        Args:
            messages: The chat.
            open_thought: Begin the turn with `<think>`, unless the chat template does.
        """
        ...


class Policy(PromptRenderer, Protocol):
    """A model that a rollout generates with: local weights, or a server."""

    @property
    def eos_id(self) -> int | None:
        """Id that closes a finished row; None where rows have no ids."""
        ...

    def insert(self, text: str, limit: int) -> Segment:
        """Make a segment of text that the system writes.

        Args:
            text: A result block.
            limit: Most tokens; local weights cut the text there.
        """
        ...

    def generate(
        self,
        contexts: Sequence[Context],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
        cache: PrefixCache | None = None,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        """Continue `[B]` contexts, each up to a stop string, its end or its own limit.

        Args:
            contexts: `[B]` contexts.
            stops: Strings such as `</search>`.
            max_new_tokens: `[B]` limits, each at least 1.
            sampling: Greedy by default.
            cache: Holds keys and values of the previous call for these rows, and receives those of
                this one; policies without a use for it ignore it.
            on_text: With a single context, called as its text grows. The text may start over if a
                server has to be asked again, and some engines only call it at the end.

        Returns:
            `[B]` generations, in order.
        """
        ...
