"""Do BM25, dense and hybrid search cope with a million passages?

The corpus is made up: sentences of the 6,119 Wikipedia paragraphs of `bridge_dev_corpus.jsonl`
are recombined under titles of their own, and words that occur once there are replaced by invented
ones, so that the vocabulary grows with the corpus as a real one does. The real paragraphs are in
it, too. The requests are those that the executor sends for the 160 plans of `bridge_dev`, with the
names that parents found; they are sent to the open source one after the other, at first with
nothing of the index in the page cache (`cold`), then again (`warm`), then 16 at once.

Encoding a million passages would take hours of two cores. So only 2,000 of the real paragraphs are
encoded, and every other passage gets the vector of one of them with random noise. Queries are
encoded for real; `encode` is the part of that.

Each step runs in a process of its own, whose memory is read from /proc: `anon` is memory of the
process itself, `file` are pages of mapped files, which the system can drop at any time. The steps
need 3 GB of disk per million passages in `--folder`, and those of a folder that has a corpus use
what is there. `cpu` is the time of the process, which other work on the machine hardly changes. The
last line on stdout is one JSON object, which also goes to `results/search_scale.json`, under the
number of passages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from retrieval import find_encoder
from title_recall import DATA, HERE, RECIPE, read_bridge

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import SearchRequest, SearchSource, open_sources
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import Passage

RESULTS = HERE / "results" / "search_scale.json"
KINDS = ("bm25", "dense", "hybrid")
CORPUS, REQUESTS, REAL_VECTORS = "corpus.jsonl", "requests.json", "real.npy"
AT_ONCE = 16
_PATHS = ("corpus", "index", "key")
ENCODED = 2000  # of the real paragraphs
NOISE = 0.7  # length of the noise that is added to a vector of length 1
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el", "or")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--folder", type=Path, help="For corpus and indexes, which are kept.")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step is not None:
        run_step(given.step, given.folder)
        return
    if read_bridge(DATA.parent) is None:
        print(json.dumps({"skipped": "bridge_dev_* is not here"}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        report = measure(given.folder or Path(temporary), given.passages, given.kinds)
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    kept[str(given.passages)] = report
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


def measure(folder: Path, passages: int, kinds: Sequence[str]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / CORPUS
    report: dict[str, Any] = {"passages": passages}
    if not corpus.exists():
        write_corpus(corpus, passages)
    report["corpus_mb"] = round(corpus.stat().st_size / 1e6)
    command = ["-m", "rsearch_cli", "index", str(corpus), "--json"]
    report["build bm25"] = watch(command, folder)
    show("build bm25", report)
    report["requests"] = step("requests", folder)
    show("requests", report)
    if set(kinds) != {"bm25"}:
        report["build dense"] = step("dense", folder)
        show("build dense", report)
    for kind in kinds:
        report[kind] = step(f"answer-{kind}", folder)
        show(kind, report)
    return report


def show(name: str, report: dict[str, Any]) -> None:
    print(f"{name}: {json.dumps(report[name])}", flush=True)


def step(name: str, folder: Path) -> dict[str, Any]:
    return watch([__file__, "--step", name, "--folder", str(folder)], folder)


def watch(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run Python, and return its report with its time and the most memory that it had."""
    environment = os.environ | {"RSEARCH_CACHE_DIR": str(folder / "cache")}
    started, before = time.perf_counter(), cpu()
    peak = {"anon_mb": 0, "file_mb": 0, "rss_mb": 0}
    with subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            for name, size in read_memory(process.pid).items():
                peak[name] = max(peak[name], size)
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        assert process.stdout is not None
        printed = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{arguments} failed")
    report = {k: v for k, v in json.loads(printed).items() if k not in _PATHS}
    times = {"wall_seconds": round(seconds, 1), "cpu_seconds": round(cpu() - before, 1)}
    return report | times | {"peak": peak}


def cpu() -> float:
    """CPU time of all processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_memory(pid: int | str = "self") -> dict[str, int]:
    """Memory of a process in MB; {} if it has just ended."""
    names = {"RssAnon": "anon_mb", "RssFile": "file_mb", "VmRSS": "rss_mb"}
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    fields = (line.partition(":")[::2] for line in lines.splitlines())
    return {names[k]: int(v.split()[0]) * 1024 // 1_000_000 for k, v in fields if k in names}


# The corpus


def write_corpus(path: Path, count: int) -> None:
    """Write the real paragraphs and as many made-up ones as are missing, mixed."""
    bridge = read_bridge(DATA.parent)
    assert bridge is not None
    real = bridge[0][:count]
    chance = random.Random(0)
    places = set(chance.sample(range(count), len(real)))
    invented = make_passages(real, count, np.random.default_rng(0))
    given = iter(real)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for number in range(count):
            title, text = next(invented)
            if number in places:
                passage = next(given)
                title, text = passage.title, passage.text
            row = {"id": str(number), "title": title, "text": text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    partial.rename(path)


def make_passages(
    real: Sequence[Passage], count: int, chance: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """Yield titles and texts; the numbers of sentences are those of the real paragraphs."""
    texts = [[s for s in p.text.split(". ") if s] for p in real]
    seen = Counter(word for text in texts for s in text for word in s.split())
    sentences = [make_template(s, seen) for text in texts for s in text]
    lengths = [len(text) for text in texts]
    for number in range(count):
        length = max(1, lengths[int(chance.integers(len(lengths)))])
        chosen = [sentences[int(i)] for i in chance.integers(len(sentences), size=length)]
        parts = []
        for template, slots in chosen:
            ranks = chance.zipf(1.2, slots)
            parts.append(template.format(*[invent(int(rank)) for rank in ranks]))
        title = f"{invent(int(chance.zipf(1.2)))} {invent(number)}"
        yield title.title(), ". ".join(parts)


def make_template(sentence: str, seen: Counter[str]) -> tuple[str, int]:
    """Return a sentence with `{}` for words that occur once, and how many there are."""
    words = sentence.replace("{", "(").replace("}", ")").split()
    slots = ["{}" if seen[word] == 1 and word.isalpha() else word for word in words]
    return " ".join(slots), slots.count("{}")


def invent(rank: int) -> str:
    """Return the word of a rank, the same one every time."""
    word = ""
    rank = rank % 2**40 + len(SYLLABLES)
    while rank:
        rank, digit = divmod(rank, len(SYLLABLES))
        word += SYLLABLES[digit]
    return word


# The steps, each in a process of its own


def run_step(name: str, folder: Path) -> None:
    kind = name.removeprefix("answer-")
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "requests": lambda: collect_requests(folder),
        "dense": lambda: build_vectors(folder),
    }
    report = steps[name]() if name in steps else answer(folder, kind)
    print(json.dumps(report))


def open_source(folder: Path, kind: str) -> SearchSource:
    return open_sources(make_search(folder, kind), list)["General"]


def make_search(folder: Path, kind: str) -> SearchConfig:
    options = {} if kind == "bm25" else {"encoder": find_encoder()}
    config = SourceConfig(type=kind, corpus=str(folder / CORPUS), options=options)
    recipe = load_recipe(RECIPE, ["search.expand_dependents=linked", "search.top_k=5"]).recipe
    return recipe.search.model_copy(update={"sources": {"General": config}})


class RecordingSource(SearchSource):
    """A source that remembers its requests."""

    def __init__(self, source: SearchSource) -> None:
        self.fingerprint = source.fingerprint
        self.requests: list[SearchRequest] = []
        self._source = source

    async def search(self, request: SearchRequest) -> Any:
        self.requests.append(request)
        return await self._source.search(request)


def collect_requests(folder: Path) -> dict[str, Any]:
    """Execute the plans, and write down what the executor asks for."""
    bridge = read_bridge(DATA.parent)
    assert bridge is not None
    plans = bridge[2]
    source = RecordingSource(open_source(folder, "bm25"))
    recipe = load_recipe(RECIPE).recipe
    with (
        tempfile.TemporaryDirectory() as cache,
        open_services(recipe, None, Path(cache)) as services,
        PlanExecutor({"General": source}, make_search(folder, "bm25"), services) as executor,
    ):
        executor.execute(plans)
    rows = [asdict(request) for request in source.requests]
    (folder / REQUESTS).write_text(json.dumps(rows), encoding="utf-8")
    names = [len(request.expansion) for request in source.requests]
    return {
        "requests": len(rows),
        "with_expansion": sum(map(bool, names)),
        "names": {"mean": round(float(np.mean(names)), 1), "most": max(names)},
    }


def build_vectors(folder: Path) -> dict[str, Any]:
    """Build the dense index of the corpus, of real vectors with noise."""
    from rsearch_cli.search.bm25 import indexes_folder, open_corpus
    from rsearch_cli.search.dense import DenseOptions, open_corpus_vectors, vectors_folder
    from rsearch_cli.search.encoder import Encoder

    encoder = find_encoder()
    assert encoder is not None
    index, options = open_corpus(folder / CORPUS, indexes_folder()), DenseOptions(encoder=encoder)
    noisy = NoisyEncoder(Encoder(encoder), folder / REAL_VECTORS)
    started = time.perf_counter()
    open_corpus_vectors(index, options, noisy, indexes_folder())  # type: ignore[arg-type]
    size = sum(f.stat().st_size for f in vectors_folder(indexes_folder(), index, options).iterdir())
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "bytes": size,
        "encoded": len(noisy.real),
        "encoding_per_second": noisy.per_second,
    }


class NoisyEncoder:
    """Encodes the real paragraphs, and gives all other texts the vector of one with noise."""

    def __init__(self, encoder: Any, kept: Path) -> None:
        bridge = read_bridge(DATA.parent)
        assert bridge is not None
        texts = [f"{p.title}\n{p.text}" for p in bridge[0][:ENCODED]]
        self._rows = {text: row for row, text in enumerate(texts)}
        self._chance = np.random.default_rng(0)
        self.per_second: float | None = None
        if not kept.exists():
            started = time.perf_counter()
            np.save(kept, encoder.encode_passages(texts))
            self.per_second = round(len(texts) / (time.perf_counter() - started), 1)
        self.real = np.load(kept)
        self.dimension, self.probe, self.matches = encoder.dimension, encoder.probe, encoder.matches

    def encode_passages(self, texts: Sequence[str]) -> Any:
        noise = self._chance.normal(size=(len(texts), self.dimension)).astype(np.float32)
        noise *= NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
        vectors = self.real[self._chance.integers(len(self.real), size=len(texts))] + noise
        for i, text in enumerate(texts):
            if text in self._rows:
                vectors[i] = self.real[self._rows[text]]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def answer(folder: Path, kind: str) -> dict[str, Any]:
    """Send the requests, and return the times in milliseconds and the memory after each round."""
    rows = json.loads((folder / REQUESTS).read_text(encoding="utf-8"))
    rows = rows if kind == "bm25" else rows[::2]
    requests = [
        SearchRequest(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})
        for row in rows
    ]
    started = time.perf_counter()
    source = open_source(folder, kind)
    report: dict[str, Any] = {"open_seconds": round(time.perf_counter() - started, 2)}
    report["memory_open"] = read_memory()
    if kind != "bm25":
        report["encode"] = summarise(asyncio.run(time_encoding(source, requests)))
    drop_pages(folder / "cache")
    report["cold"] = summarise(asyncio.run(time_each(source, requests)))
    report["memory_cold"] = read_memory()
    report["warm"] = summarise(asyncio.run(time_each(source, requests)))
    report["warm_cpu"] = summarise(asyncio.run(time_each(source, requests, time.process_time)))
    report["memory_warm"] = read_memory()
    report["at_once"] = summarise(asyncio.run(time_together(source, requests)))
    report["memory_at_once"] = read_memory()
    return report


async def time_each(
    source: SearchSource,
    requests: Sequence[SearchRequest],
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    return [await time_one(source, request, clock) for request in requests]


async def time_together(source: SearchSource, requests: Sequence[SearchRequest]) -> list[float]:
    room = asyncio.Semaphore(AT_ONCE)

    async def wait(request: SearchRequest) -> float:
        async with room:
            return await time_one(source, request)

    return await asyncio.gather(*map(wait, requests))


async def time_one(
    source: SearchSource, request: SearchRequest, clock: Callable[[], float] = time.perf_counter
) -> float:
    started = clock()
    found = await source.search(request)
    assert isinstance(found, list) and len(found) <= request.top_k
    return clock() - started


async def time_encoding(source: Any, requests: Sequence[SearchRequest]) -> list[float]:
    """Return how long the queries of each request take the encoder alone."""
    seconds = []
    for request in requests:
        texts = [f"{name} {request.query}" for name in source._name(request)] or [request.query]
        started = time.perf_counter()
        await source._models.queries.encode(texts)
        seconds.append(time.perf_counter() - started)
    return seconds


def summarise(seconds: Sequence[float]) -> dict[str, float]:
    p50, p95 = (round(float(np.quantile(seconds, q)) * 1000, 1) for q in (0.5, 0.95))
    return {"n": len(seconds), "p50_ms": p50, "p95_ms": p95, "max_ms": round(max(seconds) * 1e3, 1)}


def drop_pages(folder: Path) -> None:
    """Drop all files in a folder from the page cache of the system."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


if __name__ == "__main__":
    main()
