"""Stopping criteria of transformers for local weights: end a row at a tag, and stream its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class TagStop:
    """Stops each row of a batch once its new text completes a stop string.

    A tag may span tokens, and its last token may contain further characters, so the text decides;
    only the tail of a row is decoded, and only when its newest token contains a `>`.

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
        """Return which rows are done, as `[B]` bool (transformers' `StoppingCriteria`)."""
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
        """Whether the last token of `tail` completed a stop string."""
        now = self._tokenizer.decode(tail, skip_special_tokens=False)
        before = self._tokenizer.decode(tail[:-1], skip_special_tokens=False)
        return any(now.count(stop) > before.count(stop) for stop in self._stops)


class TextStream:
    """Streams the text of a batch of one row.

    It is a stopping criterion that never stops: all back ends accept those, but not all of them
    accept a streamer.

    Args:
        decode: Turns ids into text.
        on_text: Called with the whole text whenever it has grown by whole characters.
        width: `[1, width]` ids of the prompt precede the new ones.
        ends: Ids that close a turn; they have no text.
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
        """Report the text; no row is ever done (transformers' `StoppingCriteria`)."""
        import torch

        ids = [i for i in input_ids[0, self._width :].tolist() if i not in self._ends]
        text = self._decode(ids)
        # An incomplete character decodes to U+FFFD; the next token completes it.
        if not text.endswith("\ufffd"):
            self._on_text(text)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
