"""The best passages are those that scoring every passage gives, to the last bit."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsearch_cli.errors import DataEmpty
from rsearch_cli.search import postings_writer
from rsearch_cli.search.postings import Postings, WeightedWords
from rsearch_cli.search.postings_writer import PostingsWriter

WORDS = [f"w{n}" for n in range(30)]
RARER = np.array([1 / (n + 1) ** 1.5 for n in range(30)])

Passages = list[list[str]]


def write(passages: Passages, folder: Path | None = None) -> Postings:
    if folder is None:
        with TemporaryDirectory() as elsewhere:
            return write(passages, Path(elsewhere))  # what is mapped stays
    writer = PostingsWriter(folder)
    for words in passages:
        writer.add(words)
    writer.finish()
    return Postings(folder, len(passages))


@cache
def make(seed: int, count: int) -> tuple[Passages, Postings]:
    """Passages of few words, some of them in almost every passage, so that scores are equal."""
    chance = np.random.default_rng(seed)
    lengths = chance.integers(0, 9, count)
    lengths[0] = 5
    passages = [chance.choice(WORDS, n, p=RARER / RARER.sum()).tolist() for n in lengths]
    return passages, write(passages)


def score_all(passages: Passages, words: list[str]) -> np.ndarray:
    """Score every passage, one after the other: `[n]`."""
    total = np.zeros(len(passages), dtype=np.float32)
    mean = sum(map(len, passages)) / len(passages)
    for word in words:
        having = sum(word in passage for passage in passages)
        rarity = np.float32(math.log(1 + (len(passages) - having + 0.5) / (having + 0.5)))
        for i, passage in enumerate(passages):
            times = Counter(passage)[word]
            share = times / (1.5 * (0.25 + 0.75 * len(passage) / mean) + times)
            total[i] += np.float32(float(rarity) * share)
    return total


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 3),
    size=st.sampled_from([1, 7, 300]),
    own=st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=6),
    added=st.sets(st.sampled_from([*WORDS, "unknown"]), max_size=6),
    weight=st.integers(1, 20),
    count=st.sampled_from([1, 3, 50]),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
)
def test_the_best_passages_are_those_of_scoring_all(
    seed, size, own, added, weight, count, share
) -> None:
    passages, postings = make(seed, size)
    scores = score_all(passages, own) * weight + score_all(passages, sorted(added))
    allowed = None if share is None else np.random.default_rng(seed).random(size) < share
    possible = [i for i in range(size) if scores[i] > 0 and (allowed is None or allowed[i])]
    best = sorted(possible, key=lambda i: -scores[i])[:count]
    groups: list[WeightedWords] = [(own, weight), (sorted(added), 1)]
    found = postings.find_best(groups, count, allowed)
    assert list(found.items()) == [(i, float(scores[i])) for i in best]
    everything = np.arange(size, dtype=np.int32)
    assert postings.score(groups, everything).tolist() == scores.tolist()


def test_common_words_are_not_read_where_rare_ones_decide(monkeypatch) -> None:
    chance = np.random.default_rng(0)
    passages = [["the", f"x{n}", *chance.choice(WORDS, 3).tolist()] for n in range(2000)]
    passages[7] += ["amber", "amber"]
    postings = write(passages)
    read: list[int] = []
    own = postings._read
    monkeypatch.setattr(
        postings, "_read", lambda word: read.append(postings._frequency(word)) or own(word)
    )
    words = [postings._find_word(word) for word in ("amber", "the")]
    found, _, count = postings._collect(words, dict.fromkeys(words, 1), [8.0, 0.1, 0.0], 1, None)
    assert (found.tolist(), count, read) == ([7], 1, [1])


@pytest.mark.parametrize("batch", [1, 10, 10**6])
def test_the_size_of_a_batch_does_not_matter(tmp_path: Path, monkeypatch, batch: int) -> None:
    passages, postings = make(0, 300)
    monkeypatch.setattr(postings_writer, "_BATCH", batch)
    again = write(passages, tmp_path)
    for name in ("_begins", "_passages", "_scores"):
        assert getattr(again, name).tolist() == getattr(postings, name).tolist()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npy"] * 4 + [".txt"]


def test_words_are_found_on_disk(tmp_path: Path) -> None:
    passages = [["b", "a", "zebra"], ["éclair", "北京", "\U0001d504", "\uffee"], ["aa", "abc"]]
    find = write(passages, tmp_path)._find_word
    words = sorted(word for passage in passages for word in passage)
    assert [find(word) for word in words] == list(range(len(words)))
    assert [find(word) for word in ("", "0", "abd", "zz", "\U0010ffff")] == [None] * 5


def test_passages_without_words_have_no_postings(tmp_path: Path) -> None:
    with pytest.raises(DataEmpty, match="none of the 2 passages of the corpus contains a word"):
        write([[], []], tmp_path)
