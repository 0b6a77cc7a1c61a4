"""Whether passages hold the words of a sentence that cites them.

A sentence is supported if it cites a passage, and the titles and texts of the passages that it
cites, as the model was shown them, contain together

- all its numbers, and all its names: words with a capital after the first word,
- its first word, unless sentences commonly open with it, with any ending,
- at least 60 % of its content words (all but stop words), with any ending.

This compares words, not meaning: a sentence that negates or swaps what a passage says can pass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rsearch_cli.dialogue.words import content_words, missing, names, numbers, opening, share
from rsearch_cli.rollout.citations import Citation
from rsearch_cli.search.analyzer import split_words

LEAST_SHARE = 0.6
"""Share of the content words that the cited passages must contain."""


def find_problem(sentence: str, cited: Sequence[Citation]) -> str | None:
    """Return what a sentence lacks to be supported by the passages that it cites, or None.

    Args:
        sentence: Without its citations.
        cited: The passages that it cites.
    """
    if not cited:
        return "it cites no passage"
    return _find_missing(sentence, {w for c in cited for w in split_words(_shown(c))})


def _find_missing(sentence: str, there: Collection[str]) -> str | None:
    words = content_words(sentence)
    if not words:
        return "it has no words that a passage could hold"
    if absent := missing(numbers(sentence) | names(sentence), there):
        return f"the passages do not contain {absent[0]}"
    first = opening(sentence)
    if share(first, there) < 1:
        return f"the passages do not contain {min(first)}"
    held = share(words, there)
    if held < LEAST_SHARE:
        return f"the passages contain {held:.0%} of its words"
    return None


def _shown(citation: Citation) -> str:
    return f"{citation.passage.title} {citation.shown}"
