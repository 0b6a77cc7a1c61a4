"""A policy without a model: its token ids are bytes, and a test decides what it writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rsearch_cli.policy.generation import (
    GREEDY,
    Context,
    Generation,
    OnText,
    Prompt,
    Sampling,
)
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.types import Segment


class BytePolicy(ABC):
    """Implements `policy.generation.Policy` but for what is written."""

    forbidden: tuple[str, ...] = ("[PAD]",)
    eos_id: int | None = 256

    def render(self, messages: list[dict[str, str]], *, open_thought: bool = False) -> Prompt:
        opening = "<think>" if open_thought else ""
        text = "\n".join(message["content"] for message in messages) + opening
        return Prompt(tuple(messages), tuple(text.encode()), opening, open_thought)

    def insert(self, text: str, limit: int) -> Segment:
        ids = tuple(text.encode())[:limit]
        return Segment(self.decode(ids), ids, "system")

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode()

    @abstractmethod
    def generate(
        self,
        contexts: Sequence[Context],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
        cache: PrefixCache | None = None,
        on_text: OnText | None = None,
    ) -> list[Generation]: ...
