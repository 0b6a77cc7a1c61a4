"""The keys and values of a micro-batch, kept from one turn of its rollouts to the next.

Place in the path: `rollout` opens one for each micro-batch and hands it to every call of
`LocalPolicy.generate` for it; the prompt and the plan are then encoded once, not once a turn. On
failure: whatever cannot be continued exactly (other contexts, a model with sliding windows or a
recurrent state) is not, and the whole context is encoded again.

A kept row looks like this, with `.` for columns that its mask hides:

    [ . . prompt plan . . | last token of the plan, results ]   ← the right part is what is new

Columns are hidden rather than removed: left of a prompt that is shorter than others, and behind a
plan that ended earlier. Positions are counted by the mask, so a hidden column costs memory alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model is given to continue.

    Attributes:
        ids: `[B, P]` new ids, padded on the left.
        mask: `[B, C + P]` 1 for what counts, over the C kept columns and the new ones.
        past: The kept keys and values, or None with C = 0.
    """

    ids: Any
    mask: Any
    past: Any = None


@dataclass(frozen=True, slots=True)
class _Kept:
    past: Any
    mask: Any
    rows: tuple[tuple[int, ...], ...]


class PrefixCache:
    """Keeps what a model has computed for the rows of one micro-batch.

    Weights must not change while it is in use. Rows may drop out between turns, but not change
    their order; they are recognised by their ids, so that a row never gets another one's past.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def resume(self, contexts: Sequence[Sequence[int]], pad: int) -> Inputs | None:
        """What is new in contexts that continue kept rows, with the past of these rows.

        The past is handed over: the cache is empty afterwards, until `keep` fills it again.

        Args:
            contexts: `[B]` whole contexts.
            pad: Id for the padding.

        Returns:
            The inputs, or None if nothing is kept or a context continues no kept row.
        """
        import torch

        kept, self._kept = self._kept, None
        chosen = _match(contexts, kept.rows) if kept else None
        if kept is None or chosen is None:
            return None
        past, mask = kept.past, kept.mask
        if len(chosen) < len(kept.rows):
            index = torch.tensor(chosen, device=mask.device)
            past.batch_select_indices(index)
            mask = mask[index]
        new = [c[len(kept.rows[row]) :] for c, row in zip(contexts, chosen, strict=True)]
        inputs = pad_left(new, pad, mask.device)
        return Inputs(inputs.ids, torch.cat([mask, inputs.mask], dim=1), past)

    def keep(
        self,
        contexts: Sequence[Sequence[int]],
        written: Sequence[Sequence[int]],
        mask: Any,
        past: Any,
    ) -> None:
        """Keep the keys and values that a generation has left.

        Args:
            contexts: `[B]` whole contexts it was given.
            written: `[B]` ids that count of what it wrote; a row may have gone on behind them.
            mask: `[B, M]` mask it was given.
            past: Its keys and values, of M columns and one for each id that was fed back to it; the
                last one sampled never is.
        """
        import torch

        if not _is_plain(past):
            return
        fed = past.get_seq_length() - mask.shape[1]
        counts = torch.tensor([[min(len(ids), fed)] for ids in written], device=mask.device)
        new = torch.arange(fed, device=mask.device) < counts
        rows = tuple((*context, *ids[:fed]) for context, ids in zip(contexts, written, strict=True))
        self._kept = _Kept(past, torch.cat([mask, new.to(mask.dtype)], dim=1), rows)


def pad_left(contexts: Sequence[Sequence[int]], pad: int, device: Any) -> Inputs:
    """`[B]` ragged contexts as `[B, W]` ids and mask, padded on the left."""
    import torch

    width = max(len(c) for c in contexts)
    ids = [[pad] * (width - len(c)) + list(c) for c in contexts]
    mask = [[0] * (width - len(c)) + [1] * len(c) for c in contexts]
    return Inputs(torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def _match(contexts: Sequence[Sequence[int]], rows: Sequence[tuple[int, ...]]) -> list[int] | None:
    """For each context the kept row it continues, in order; None if one has no such row.

    Of rows with the same ids the first one left is taken: their keys and values are the same.
    """
    chosen: list[int] = []
    start = 0
    for context in contexts:
        for row in range(start, len(rows)):
            ids = rows[row]
            if len(context) > len(ids) and tuple(context[: len(ids)]) == ids:
                chosen.append(row)
                start = row + 1
                break
        else:
            return None
    return chosen


def _is_plain(past: Any) -> bool:
    """Whether every layer keeps all columns: windows and states would count the hidden ones."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return isinstance(past, DynamicCache) and all(type(ly) is DynamicLayer for ly in past.layers)
