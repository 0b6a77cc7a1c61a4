"""Private reaches into bm25s, checked on 0.3.16."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def import_bm25s() -> Any:
    """Import bm25s without JAX.

    Where JAX is installed, bm25s runs it once while it is imported (`bm25s/selection.py`), and JAX
    then reserves three quarters of the graphics card. Only the `topk` of bm25s would use it.
    """
    if "bm25s" not in sys.modules:
        hidden = {"jax": sys.modules["jax"]} if "jax" in sys.modules else {}
        sys.modules["jax"] = None  # type: ignore[assignment]  # makes `import jax` an ImportError
        try:
            import bm25s  # noqa: F401
        finally:
            del sys.modules["jax"]
            sys.modules.update(hidden)
    return sys.modules["bm25s"]


def new_scorer() -> Any:
    """Return a `bm25s.BM25` that needs less memory to build its index.

    Its own `_np_csc` sorts by two keys and takes half as much memory again as everything else.
    """
    scorer = import_bm25s().BM25(backend="numpy")
    scorer._np_csc = sort_by_word
    return scorer


def sort_by_word(
    data: NDArray[np.float32],
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    shape: Sequence[int],
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """Sort the scores of all passages, `[z]` in the order of passages, by word.

    Args:
        data: Scores `[z]`.
        rows: Their passages `[z]`.
        cols: Their words `[z]`.
        shape: Number of passages and of words.

    Returns:
        Scores `[z]`, their passages `[z]`, and where each word begins `[words + 1]`.
    """
    import numpy as np

    begins: NDArray[np.int64] = np.zeros(shape[1] + 1, dtype=np.int64)
    np.cumsum(np.bincount(cols, minlength=shape[1]), out=begins[1:])
    order = np.argsort(cols, kind="stable")  # keeps the passages of a word in their order
    return data[order], rows[order], begins
