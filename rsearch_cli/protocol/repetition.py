"""Measure how repetitive a completion is, a sign of a collapsed policy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from rsearch_cli.protocol.transcript import TAG
from rsearch_cli.types import Segment

_THINK_OPEN = re.compile(r"<\s{0,2}think\s{0,2}>", re.IGNORECASE)
# Chinese and Japanese have no spaces between words: each character counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")
_N = 4


def repeated_tags(opening: str, segments: Sequence[Segment]) -> float:
    """Return the share of the model's tags that repeat an earlier one of the same turn, in [0, 1].

    A turn ends at a result block. `<think><think><think>` gives 2 / 3.

    Args:
        opening: Start of the model's turn in the prompt; counts as written by the model.
        segments: The completion in order; only the model's own text is read.
    """
    turns = [
        [f"{tag[1]}{tag[2].lower()}" for tag in TAG.finditer(text)]
        for text in _model_turns(opening, segments)
    ]
    written = sum(len(tags) for tags in turns)
    return 1 - sum(len(set(tags)) for tags in turns) / written if written else 0.0


def repeated_ngrams(opening: str, segments: Sequence[Segment]) -> float:
    """Return the share of word 4-grams in the thoughts that repeat an earlier one, in [0, 1].

    This is 1 - distinct-4 (Li et al. 2016, arXiv 1510.03055) over all thoughts of a completion. A
    thought extends to the next tag or to the end, so that unclosed ones count too.

    Args:
        opening: Start of the model's turn in the prompt; counts as written by the model.
        segments: The completion in order; only the model's own text is read.
    """
    grams: list[tuple[str, ...]] = []
    for text in _model_turns(opening, segments):
        for tag in _THINK_OPEN.finditer(text):
            end = TAG.search(text, tag.end())
            words = _WORD.findall(text[tag.end() : end.start() if end else None].lower())
            grams += zip(*(words[i:] for i in range(_N)), strict=False)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _model_turns(opening: str, segments: Sequence[Segment]) -> list[str]:
    """Return what the model wrote between insertions; the first text includes the opening."""
    parts = [("model", opening), *((s.author, s.text) for s in segments)]
    return [
        "".join(part[1] for part in run)
        for author, run in groupby(parts, key=lambda part: part[0])
        if author == "model"
    ]
