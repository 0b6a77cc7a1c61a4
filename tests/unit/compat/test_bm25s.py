"""bm25s: whether importing it still runs JAX, and whether its index still needs more memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from rsearch_cli.compat.bm25s import new_scorer, sort_by_word

# A module `jax` that tells that it was imported.
JAX = "print('jax was imported')\nclass lax:\n    top_k = staticmethod(lambda x, k: x)\n"


def run(code: str, site: Path) -> str:
    (site / "jax").mkdir(exist_ok=True)
    (site / "jax" / "__init__.py").write_text(JAX)
    (site / "jax" / "lax.py").write_text("def top_k(x, k): return x\n")
    start = f"import sys; sys.path.insert(0, {str(site)!r}); "
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_bm25s_still_imports_jax(tmp_path: Path) -> None:
    """When this fails, `import_bm25s` may no longer be needed."""
    assert run("import bm25s", tmp_path) == "jax was imported"


def test_bm25s_is_imported_without_jax(tmp_path: Path) -> None:
    code = "from rsearch_cli.compat.bm25s import import_bm25s; import_bm25s()"
    assert run(code, tmp_path) == ""
    assert run(f"{code}; import jax", tmp_path) == "jax was imported"


def peak_bytes(sort: Callable[..., Any], arguments: dict[str, Any]) -> int:
    tracemalloc.start()
    sort(**arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_its_own_sorting_still_needs_more_memory() -> None:
    """When this fails, `sort_by_word` may no longer be needed."""
    random = np.random.default_rng(0)
    passages, words = 8_000, 5_000
    places = np.unique(random.integers(0, passages * words, 400_000))
    arguments = {
        "data": random.random(len(places), dtype=np.float32),
        "rows": (places // words).astype(np.int32),
        "cols": (places % words).astype(np.int32),
        "shape": (passages, words),
    }
    own = bm25s.BM25(backend="numpy")._np_csc
    assert peak_bytes(own, arguments) > 1.3 * peak_bytes(sort_by_word, arguments)
    for theirs, ours in zip(own(**arguments), sort_by_word(**arguments), strict=True):
        assert np.array_equal(theirs, ours)


def test_the_scorer_sorts_with_ours() -> None:
    assert new_scorer()._np_csc is sort_by_word
