"""Counts the memory of the tensors that live inside a block; fake tensors count too."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Bytes of all storages made inside the block: now, and at most.

    Args:
        known: Tensors that exist already and are not counted.
        block: Sizes are rounded up to a multiple of this, as CUDA's allocator does with 512.
    """

    def __init__(self, known: Iterable[torch.Tensor] = (), block: int = 1) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self._known = {t.untyped_storage()._cdata for t in known}
        self.now = self.most = 0
        self._block = block

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def take_peak(self) -> int:
        """Return the most since the last call, and start again from what lives now."""
        most, self.most = self.most, self.now
        return most

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        size = -(-storage.nbytes() // self._block) * self._block
        before = self.sizes.get(key)
        if key in self._known or before == size:
            return
        if before is None:
            weakref.finalize(storage, self._forget, key)
        # A storage that `resize_` made larger is counted again.
        self.sizes[key] = size
        self.now += size - (before or 0)
        self.most = max(self.most, self.now)

    def _forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key)
