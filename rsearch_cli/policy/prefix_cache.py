"""Keys and values of a micro-batch, kept from one turn of its rollouts to the next.

Prompt and plan are then encoded once instead of once per turn. Contexts that cannot be continued
exactly (other ids, sliding windows, recurrent state) are encoded again as a whole.

A kept row, with `.` for columns that its mask hides:

    [ . . prompt plan . . | last token of the plan, results ]   ← the right part is new

Columns are hidden rather than removed: padding left of short prompts, and surplus behind plans that
ended early. Positions are counted by the mask, so hidden columns cost memory only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of a generation.

    Attributes:
        ids: `[B, P]` new ids, padded on the left.
        mask: `[B, C + P]` 1 for visible columns, over the C kept and the new ones.
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
    """Keys and values of the rows of one micro-batch.

    The weights must not change while it is in use. Rows may drop out between turns, but not change
    their order; they are matched by their ids, so that no row gets the past of another.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    @property
    def size(self) -> int:
        """Number of rows that are kept."""
        return len(self._kept.rows) if self._kept else 0

    def clear(self) -> None:
        """Free the memory."""
        self._kept = None

    @classmethod
    def join(cls, caches: Sequence[PrefixCache]) -> PrefixCache:
        """Move the rows of several caches into one, in order; the caches are empty afterwards."""
        import torch

        joint = cls()
        kept = [cache._kept for cache in caches if cache._kept is not None]
        for cache in caches:
            cache.clear()
        if not kept:
            return joint
        width = max(part.mask.shape[1] for part in kept)
        for parts in zip(*(part.past.layers for part in kept), strict=True):
            layer = parts[0]
            layer.keys = torch.cat([_widen(part.keys, width, dim=-2) for part in parts])
            layer.values = torch.cat([_widen(part.values, width, dim=-2) for part in parts])
        mask = torch.cat([_widen(part.mask, width, dim=-1) for part in kept])
        joint._kept = _Kept(kept[0].past, mask, tuple(row for part in kept for row in part.rows))
        return joint

    def resume(self, contexts: Sequence[Sequence[int]], pad: int) -> Inputs | None:
        """Return the new part of contexts that continue kept rows, with the past of these rows.

        The cache is empty afterwards, until `keep` fills it again.

        Args:
            contexts: `[B]` whole contexts.
            pad: Id of the pad token.

        Returns:
            The inputs, or None if a context continues no kept row.
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
        """Keep the keys and values of a generation.

        Args:
            contexts: `[B]` whole contexts.
            written: `[B]` generated ids up to the stop; a row may have continued after them.
            mask: `[B, M]` mask of the inputs.
            past: Keys and values: M columns, and one for each generated id but the last.
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
    """Pad `[B]` ragged contexts on the left to `[B, W]` ids and mask."""
    import torch

    width = max(len(c) for c in contexts)
    ids = [[pad] * (width - len(c)) + list(c) for c in contexts]
    mask = [[0] * (width - len(c)) + [1] * len(c) for c in contexts]
    return Inputs(torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def _widen(columns: Any, width: int, dim: int) -> Any:
    """Add columns of zeros on the left."""
    import torch

    shape = list(columns.shape)
    shape[dim] = width - shape[dim]
    return torch.cat([columns.new_zeros(shape), columns], dim=dim) if shape[dim] else columns


def _match(contexts: Sequence[Sequence[int]], rows: Sequence[tuple[int, ...]]) -> list[int] | None:
    """Match each context to the kept row that it continues, in order; None if one has no row.

    Among rows with the same ids any will do, since their keys and values are equal.
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
    """Whether every layer keeps all columns; sliding windows and states would see hidden ones."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return isinstance(past, DynamicCache) and all(type(ly) is DynamicLayer for ly in past.layers)
