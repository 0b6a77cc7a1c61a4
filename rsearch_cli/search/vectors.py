"""Vectors of a corpus in a FAISS index on disk, mapped into memory.

Up to 50,000 vectors are stored and compared as they are; more are quantised to 8 bits, and from
200,000 on grouped into cells of which a search reads the nearest ones (IVF). Encoding is stored
in shards, so a build that was interrupted continues with the next one.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsearch_cli.errors import DataMalformed, SourceError
from rsearch_cli.runs.atomic_write import replacing
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search.encoder import INSTALL, Encoder
from rsearch_cli.search.index_folder import is_whole, staged_folder
from rsearch_cli.types import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

VECTORS_VERSION = 1
"""Increase it when the text that is encoded, or the layout of a folder, changes."""

FLAT_UP_TO = 50_000
IVF_FROM = 200_000
SHARD = 2048
"""Passages of a shard; an interrupted build loses one at most."""

_INDEX, _ABOUT = "vectors.faiss", "vectors.json"
_PROBES = 64  # cells that a search reads
_TRAINING_PER_CELL = 64


class VectorIndex:
    """The vectors of all passages of a corpus.

    Args:
        index: An index of FAISS with inner products.
        key: Identifies its content.

    Attributes:
        key: See above.
    """

    def __init__(self, index: Any, key: str) -> None:
        self.key = key
        self._index = index
        faiss = import_faiss()
        cells = faiss.try_extract_index_ivf(index)
        self._probes = None if cells is None else min(_PROBES, cells.nlist)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._index.d)

    def search(
        self, queries: NDArray[np.float32], count: int, mask: NDArray[np.bool_] | None
    ) -> list[dict[int, float]]:
        """Return the passages nearest to each query with their cosine, best first.

        Args:
            queries: `[n, d]`.
            count: Most passages for a query.
            mask: `[passages]`, True where a passage may be found; None for all.
        """
        import numpy as np

        faiss = import_faiss()
        bits = None if mask is None else np.packbits(mask, bitorder="little")
        chosen = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
        if self._probes is not None:
            options = faiss.SearchParametersIVF(nprobe=self._probes, **chosen)
        else:
            options = faiss.SearchParameters(**chosen) if chosen else None
        scores, ids = self._index.search(queries, min(count, len(self)), params=options)
        return [
            {int(i): float(score) for i, score in zip(*row, strict=True) if i >= 0}
            for row in zip(ids, scores, strict=True)
        ]


def open_vectors(folder: Path, encoder: Encoder) -> VectorIndex:
    """Map a folder written by `build_vectors` into memory.

    Raises:
        DataMalformed: It was built with another encoder.
    """
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    if not encoder.matches(about["probe"]):
        raise DataMalformed(
            f"index {folder} was built with another encoder ({about['encoder']}), other weights or "
            "other prefixes; build it again with rsearch index --dense, or name that encoder"
        )
    return VectorIndex(_map(folder / _INDEX), about["key"])


def open_faiss_file(path: Path, encoder: Encoder, passages: int) -> VectorIndex:
    """Map a ready-made FAISS index into memory, whose vectors are in the order of the corpus.

    Raises:
        DataMalformed: It cannot be read, or fits neither the corpus nor the encoder.
    """
    try:
        index = _map(path)
    except RuntimeError as error:
        reason = str(error).rsplit(": ", 1)[-1].strip()
        raise DataMalformed(f"{path} is not an index that FAISS can read ({reason})") from error
    if index.ntotal != passages:
        raise DataMalformed(
            f"index {path} has {index.ntotal:,} vectors, and the corpus {passages:,} passages; "
            "they must be made from the same file"
        )
    if index.d != encoder.dimension:
        raise DataMalformed(
            f"index {path} has vectors of {index.d} numbers, and the encoder gives "
            f"{encoder.dimension}; name the encoder that it was built with"
        )
    if index.metric_type != import_faiss().METRIC_INNER_PRODUCT:
        raise DataMalformed(f"index {path} does not compare by inner product; build it so")
    stat = path.stat()
    return VectorIndex(index, f"{path.name}-{stat.st_size}-{stat.st_mtime_ns}")


def build_vectors(
    passages: Sequence[Passage],
    corpus_key: str,
    name: str,
    encoder: Encoder,
    folder: Path,
    on_encoded: Callable[[int], None] = lambda count: None,
) -> None:
    """Encode a corpus and write its vectors into a folder, which appears once it is complete.

    Args:
        passages: `[n]`, the corpus.
        corpus_key: Identifies its content.
        name: Name of the encoder, for messages.
        encoder: The encoder.
        folder: The folder; a damaged one is replaced.
        on_encoded: Called with the number of encoded passages after every batch of them.

    Raises:
        OSError: Something cannot be written.
    """
    about = {
        "key": f"{corpus_key}/{folder.name}",
        "version": VECTORS_VERSION,
        "encoder": name,
        "probe": encoder.probe(),
        "passages": len(passages),
    }
    state = folder.parent / f".encoding-{folder.name}"
    _begin(state, about, encoder)
    for number, start in enumerate(range(0, len(passages), SHARD)):
        if not (state / _shard_name(number)).exists():
            vectors = encoder.encode_passages(
                [_text_of(passages[i]) for i in range(start, min(start + SHARD, len(passages)))]
            )
            _write_shard(state / _shard_name(number), vectors)
        on_encoded(min(start + SHARD, len(passages)))
    with staged_folder(folder) as target:
        _write_index(state, len(passages), encoder.dimension, target / _INDEX)
        (target / _ABOUT).write_text(dump_json(about), encoding="utf-8")
    shutil.rmtree(state)


def has_vectors(folder: Path) -> bool:
    """Return whether an intact index is there; a damaged one is reported."""
    whole = is_whole(folder)
    if whole is False:
        logger.warning(f"dense index {folder} is damaged")
    return bool(whole)


def make_index(count: int, dimension: int) -> Any:
    """Return an empty FAISS index that suits a number of vectors."""
    faiss = import_faiss()
    recipe = "Flat" if count <= FLAT_UP_TO else "SQ8"
    if count >= IVF_FROM:
        recipe = f"IVF{int(4 * math.sqrt(count))},SQ8"
    return faiss.index_factory(dimension, recipe, faiss.METRIC_INNER_PRODUCT)


def import_faiss() -> Any:
    """Import FAISS.

    Raises:
        SourceError: It is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise SourceError(
            f"a dense source needs faiss-cpu ({error}); install it with: {INSTALL}"
        ) from error
    return faiss


def _begin(state: Path, about: dict[str, Any], encoder: Encoder) -> None:
    """Continue an interrupted build of the same vectors, or start from nothing."""
    try:
        before = json.loads((state / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    same = before is not None and before | {"probe": None} == about | {"probe": None}
    if same and encoder.matches(before["probe"]):
        done = sum(1 for _ in state.glob("*.npy")) * SHARD
        logger.info(f"continuing an interrupted build: about {done:,} passages are encoded")
        return
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    (state / _ABOUT).write_text(dump_json(about), encoding="utf-8")


def _write_shard(path: Path, vectors: NDArray[np.float32]) -> None:
    import numpy as np

    with replacing(path) as staged, staged.open("wb") as file:
        np.save(file, vectors.astype(np.float16))


def _write_index(state: Path, count: int, dimension: int, path: Path) -> None:
    import numpy as np

    faiss = import_faiss()
    index = make_index(count, dimension)
    if not index.is_trained:
        cells = faiss.try_extract_index_ivf(index)
        wanted = FLAT_UP_TO if cells is None else cells.nlist * _TRAINING_PER_CELL
        step = max(1, count // wanted)
        sample = [shard[::step] for shard in _shards(state)]
        index.train(np.concatenate(sample))
    for shard in _shards(state):
        index.add(shard)
    faiss.write_index(index, str(path))


def _shards(state: Path) -> Iterator[NDArray[np.float32]]:
    import numpy as np

    for path in sorted(state.glob("*.npy")):
        yield np.load(path).astype(np.float32)


def _shard_name(number: int) -> str:
    return f"{number:06d}.npy"


def _text_of(passage: Passage) -> str:
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


def _map(path: Path) -> Any:
    faiss = import_faiss()
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
