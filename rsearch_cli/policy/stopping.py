"""Stopping criteria of transformers for local weights: end rows at their tags, and stream text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from rsearch_cli.policy.generation import Row


class TagStop:
    """Stops each row of a batch once its new text completes a stop string, or it is cancelled.

    A tag may span tokens, and its last token may contain further characters, so the text decides;
    only the tail of a row is decoded, and only when its newest token contains a `>`.

    Rows that can be cancelled also stop at their own limit. Others run on with the batch, so that
    the random numbers of a training do not depend on where a row ends.

    Args:
        tokenizer: Decodes the tail.
        rows: `[B]` rows; their stop strings all end in `>`.
        width: `[B, width]` ids of the left-padded prompts precede the new ones.

    Attributes:
        ends: Number of new tokens of the rows that completed a stop string, by row.
        done: Rows that were stopped, for whatever reason.
    """

    def __init__(self, tokenizer: Any, rows: Sequence[Row], width: int) -> None:
        self._tokenizer = tokenizer
        self._rows = rows
        self._width = width
        self._tails = [2 + max(map(len, row.stops), default=0) for row in rows]
        self.ends: dict[int, int] = {}
        self.done: set[int] = set()

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Return which rows are done, as `[B]` bool (transformers' `StoppingCriteria`)."""
        import torch

        rows, written = range(len(self._rows)), input_ids.shape[1] - self._width
        newest = self._tokenizer.convert_ids_to_tokens(input_ids[:, -1].tolist())
        for row, token in zip(rows, newest, strict=True):
            if row in self.done:
                continue
            if token is not None and ">" in token and self._completed(row, input_ids):
                self.ends[row] = written
                self.done.add(row)
            elif self._is_over(self._rows[row], written):
                self.done.add(row)
        done = [row in self.done for row in rows]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

    def _is_over(self, row: Row, written: int) -> bool:
        """Whether a row that can be cancelled was, or has reached its limit."""
        if row.is_cancelled is None:
            return False
        return written >= row.max_new_tokens or row.is_cancelled()

    def _completed(self, row: int, input_ids: Any) -> bool:
        """Whether the newest token of a row completed a stop string."""
        start = max(self._width, input_ids.shape[1] - self._tails[row])
        tail = input_ids[row, start:].tolist()
        now = self._tokenizer.decode(tail, skip_special_tokens=False)
        before = self._tokenizer.decode(tail[:-1], skip_special_tokens=False)
        return any(now.count(stop) > before.count(stop) for stop in self._rows[row].stops)


class TextStream:
    """Streams the text of the rows that have an `on_text`.

    It is a stopping criterion that never stops: all back ends accept those, but not all of them
    accept a streamer. It comes behind the one that stops.

    Args:
        decode: Turns ids into text.
        rows: `[B]` rows; `on_text` is called with the whole text whenever it has grown by whole
            characters.
        width: `[B, width]` ids of the prompts precede the new ones.
        eos_ids: Ids that close a turn; they have no text.
        done: `TagStop.done`.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        rows: Sequence[Row],
        width: int,
        eos_ids: Sequence[int],
        done: Collection[int],
    ) -> None:
        self._decode = decode
        self._width = width
        self._eos_ids = frozenset(eos_ids)
        self._done = done
        self._open = {i: row.on_text for i, row in enumerate(rows) if row.on_text}

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Report new text; no row is ever done (transformers' `StoppingCriteria`)."""
        import torch

        for row, on_text in list(self._open.items()):
            ids = input_ids[row, self._width :].tolist()
            if row in self._done or ids[-1] in self._eos_ids:
                del self._open[row]
            text = self._decode([i for i in ids if i not in self._eos_ids])
            # An incomplete character decodes to U+FFFD; the next token completes it.
            if not text.endswith("\ufffd"):
                on_text(text)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
