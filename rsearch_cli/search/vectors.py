"""Vectors of a corpus in a FAISS index on disk, mapped into memory.

Up to 50,000 vectors are compared one by one, rounded to 16 bits; more are quantised to 8 bits, and
from 200,000 on grouped into cells of which a search reads the nearest ones (IVF). Encoding is
stored in shards, so a build that was interrupted continues with the next one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsearch_cli.errors import DataMalformed, SourceError
from rsearch_cli.runs.atomic_write import flush_to_disk, replacing
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search.encoder import INSTALL, Encoder
from rsearch_cli.search.index_folder import building_alone, is_whole, staged_folder
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
_HEADER = 256  # bytes; a header is shorter
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

    def check(self, mask: NDArray[np.bool_] | None) -> None:
        """Try a search.

        Raises:
            DataMalformed: Indexes of this kind cannot be searched with a mask.
        """
        import numpy as np

        try:
            self.search(np.zeros((1, self.dimension), np.float32), 1, mask)
        except RuntimeError as error:
            raise DataMalformed(
                f"index {self.key} ({type(self._index).__name__}) cannot be searched for the "
                "passages of one source; build a flat, SQ or IVF index"
            ) from error

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


def open_or_build(
    passages: Sequence[Passage],
    corpus_key: str,
    name: str,
    encoder: Encoder,
    folder: Path,
    on_encoded: Callable[[int], None] = lambda count: None,
) -> tuple[VectorIndex, bool]:
    """Open the vectors of a corpus; build them if they are missing, damaged or another encoder's.

    One process builds; others wait for it. An interrupted build continues.

    Args:
        passages: `[n]`, the corpus.
        corpus_key: Identifies its content.
        name: Name of the encoder, for messages.
        encoder: The encoder.
        folder: The folder of the vectors, which appears once they are complete.
        on_encoded: Called with the number of encoded passages after every shard.

    Returns:
        The vectors, and whether they were there already.

    Raises:
        SourceError: The folder cannot be written.
    """
    try:
        with building_alone(folder):
            if (found := find_vectors(folder, encoder)) is not None:
                return found, True
            _build(passages, corpus_key, name, encoder, folder, on_encoded)
    except OSError as error:
        raise SourceError(
            f"dense index {folder} cannot be written: {error.strerror or error}; make room, or "
            "set RSEARCH_CACHE_DIR to another folder"
        ) from error
    return _open(folder), False


def find_vectors(folder: Path, encoder: Encoder) -> VectorIndex | None:
    """Map the vectors in a folder into memory; None if they are of no use, which is reported."""
    whole = is_whole(folder)
    if not whole:
        if whole is False:
            logger.warning(f"dense index {folder} is damaged")
        return None
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    if not encoder.matches(about["probe"]):
        logger.warning(
            f"dense index {folder} was built with another encoder: {about['encoder']} has other "
            "weights or another prefix now"
        )
        return None
    return _open(folder)


def open_faiss_file(path: Path, encoder: Encoder, passages: int) -> VectorIndex:
    """Map a ready-made FAISS index into memory, whose vectors are in the order of the corpus.

    Raises:
        DataMalformed: It cannot be read, or fits neither the corpus nor the encoder.
    """
    try:
        index = _read_stranger(path)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).rsplit(": ", 1)[-1].strip()
        raise DataMalformed(
            f"{path} is not an index that FAISS can read ({reason}); copy it again, or build it "
            "with faiss.write_index"
        ) from error
    if not index.is_trained:
        raise DataMalformed(f"index {path} is not trained; build it again")
    if type(index).__name__.startswith("IndexIDMap"):
        raise DataMalformed(
            f"index {path} numbers its vectors itself (IDMap); build it in the order of the corpus"
        )
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


def _build(
    passages: Sequence[Passage],
    corpus_key: str,
    name: str,
    encoder: Encoder,
    folder: Path,
    on_encoded: Callable[[int], None],
) -> None:
    probe = encoder.probe()
    digest = hashlib.sha256(dump_json(probe).encode()).hexdigest()[:16]
    about = {
        "key": f"{corpus_key}/v{VECTORS_VERSION}/{digest}",
        "encoder": name,
        "probe": probe,
        "passages": len(passages),
    }
    state = folder.parent / f".encoding-{folder.name}"
    _begin(state, about, encoder)
    for number, start in enumerate(range(0, len(passages), SHARD)):
        end = min(start + SHARD, len(passages))
        path = state / f"{number:06d}.npy"
        if not _is_shard(path, end - start, encoder.dimension):
            texts = [_text_of(passages[i]) for i in range(start, end)]
            _write_shard(path, encoder.encode_passages(texts))
        on_encoded(end)
    with staged_folder(folder) as target:
        _write_index(state, len(passages), encoder.dimension, target / _INDEX)
        (target / _ABOUT).write_text(dump_json(about), encoding="utf-8")
    shutil.rmtree(state)


def _begin(state: Path, about: dict[str, Any], encoder: Encoder) -> None:
    """Continue an interrupted build of the same vectors, or start from nothing."""
    try:
        before = json.loads((state / _ABOUT).read_text(encoding="utf-8"))
        same = before["passages"] == about["passages"] and encoder.matches(before["probe"])
    except (OSError, ValueError, LookupError, TypeError):
        same = False
    if same:
        done = sum(1 for _ in state.glob("*.npy")) * SHARD
        logger.info(f"continuing an interrupted build: about {done:,} passages are encoded")
        return
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    (state / _ABOUT).write_text(dump_json(about), encoding="utf-8")


def _is_shard(path: Path, rows: int, dimension: int) -> bool:
    """Return whether a shard is there and whole."""
    import numpy as np

    try:
        return bool(np.load(path).shape == (rows, dimension))
    except (OSError, ValueError, EOFError):
        return False


def _write_shard(path: Path, vectors: NDArray[np.float32]) -> None:
    import numpy as np

    with replacing(path) as staged:
        with staged.open("wb") as file:
            np.save(file, vectors.astype(np.float16))
        flush_to_disk(staged)


def _write_index(state: Path, count: int, dimension: int, path: Path) -> None:
    import numpy as np

    faiss = import_faiss()
    index = make_index(count, dimension)
    if not index.is_trained:
        cells = faiss.try_extract_index_ivf(index)
        wanted = FLAT_UP_TO if cells is None else cells.nlist * _TRAINING_PER_CELL
        step = max(1, count // wanted)
        # Copies: a slice would keep its whole shard in memory.
        sample = [shard[::step].copy() for shard in _shards(state)]
        index.train(np.concatenate(sample))
    for shard in _shards(state):
        index.add(shard)
    if index.ntotal != count:
        raise OSError(f"{index.ntotal} of {count} vectors are in {state}")
    faiss.write_index(index, str(path))


def _shards(state: Path) -> Iterator[NDArray[np.float32]]:
    import numpy as np

    for path in sorted(state.glob("*.npy")):
        yield np.load(path).astype(np.float32)


def _text_of(passage: Passage) -> str:
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


def _open(folder: Path) -> VectorIndex:
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    return VectorIndex(_map(folder / _INDEX), about["key"])


def _read_stranger(path: Path) -> Any:
    """Map an index that may be damaged: FAISS crashes on less than a header, and trusts sizes."""
    faiss = import_faiss()
    size = path.stat().st_size
    if size < _HEADER:
        raise RuntimeError(f"{size} bytes")
    limit = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(size)
    try:
        return _map(path)
    finally:
        faiss.set_deserialization_vector_byte_limit(limit)


def _map(path: Path) -> Any:
    faiss = import_faiss()
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
