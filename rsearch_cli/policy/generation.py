"""What a policy is asked and what it gives: sampling settings, stops and generations.

Place in the path: between `rollout`, which asks, and the back ends that run a model. On failure:
nothing here fails; a row that meets no stop ends at its token limit and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rsearch_cli.policy.prefix_cache import PrefixCache


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 is greedy decoding.
        top_p: Nucleus; 1 keeps all.
    """

    temperature: float = 0.0
    top_p: float = 1.0


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model wrote in one go.

    Attributes:
        token_ids: `[l]` sampled ids, a sampled end-of-sequence id included.
        text: Decoded ids, without the end-of-sequence id.
        stop: `tag` if one of the stop strings was completed, `eos`, or `length`.
    """

    token_ids: tuple[int, ...]
    text: str
    stop: Literal["tag", "eos", "length"]


class PromptPolicy(Protocol):
    """What a prompt needs of a policy (see `policy.chat_tokenizer.ChatTokenizer`)."""

    forbidden: tuple[str, ...]

    def encode_prompt(self, messages: list[dict[str, str]]) -> tuple[list[int], str]:
        """Ids of a rendered chat, and what its template has opened for the model."""
        ...

    def encode_inserted(self, text: str) -> list[int]:
        """Ids of text that the system writes."""
        ...


class TextPolicy(PromptPolicy, Protocol):
    """What a rollout needs of a policy (see `policy.local.LocalPolicy`)."""

    @property
    def eos_id(self) -> int:
        """The id that closes a finished row."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, exactly."""
        ...

    def generate(
        self,
        contexts: Sequence[Sequence[int]],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
        cache: PrefixCache | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Generation]:
        """Continue each of `[B]` contexts up to a stop, its end or its own limit.

        What is computed for them may be left in `cache`, for the call that continues them. Where
        there is one context, `on_text` may be told all of its text so far, any number of times.
        """
        ...


class TagStop:
    """Stops each row of a batch as soon as its own new text ends a stop string.

    A tag may be one token or many, and its last token may hold characters after it; so a row is
    decoded, but only its tail and only when its newest token holds the tag's last character.

    Args:
        tokenizer: Decodes the tail.
        stops: Stop strings; all end in `>`.
        width: `[B, width]` ids of the left-padded prompts precede the new ones.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], width: int) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._width = width
        self._tail = 2 + max(len(stop) for stop in stops)
        self.ends: dict[int, int] = {}

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Tell per row whether it is done, as `[B]` bool (transformers' StoppingCriteria)."""
        import torch

        length = input_ids.shape[1]
        newest = self._tokenizer.convert_ids_to_tokens(input_ids[:, -1].tolist())
        for row, token in enumerate(newest):
            if row in self.ends or token is None or ">" not in token:
                continue
            start = max(self._width, length - self._tail)
            if self._completed(input_ids[row, start:].tolist()):
                self.ends[row] = length - self._width
        done = [row in self.ends for row in range(input_ids.shape[0])]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

    def _completed(self, tail: list[int]) -> bool:
        """Whether the last token of `tail` brought a stop string to its end."""
        now = self._tokenizer.decode(tail, skip_special_tokens=False)
        before = self._tokenizer.decode(tail[:-1], skip_special_tokens=False)
        return any(now.count(stop) > before.count(stop) for stop in self._stops)


class TextWatch:
    """Tells what the only row of a batch has written so far, token by token.

    It is a stopping criterion that never stops: every back end takes one, and not every one takes
    a streamer.

    Args:
        decode: From ids to text.
        on_text: Told the whole text whenever it has grown by whole characters.
        width: `[1, width]` ids of the prompt precede the new ones.
        ends: Ids that close a turn; they are no text.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        on_text: Callable[[str], None],
        width: int,
        ends: Sequence[int],
    ) -> None:
        self._decode = decode
        self._on_text = on_text
        self._width = width
        self._ends = frozenset(ends)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Tell the text, and that nothing is done (transformers' StoppingCriteria)."""
        import torch

        ids = [i for i in input_ids[0, self._width :].tolist() if i not in self._ends]
        text = self._decode(ids)
        # Half a character decodes to this mark; the rest of it comes with the next token.
        if not text.endswith("\ufffd"):
            self._on_text(text)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
