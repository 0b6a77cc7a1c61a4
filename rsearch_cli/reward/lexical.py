"""How well an answer matches the references: exact match and F1 as HotpotQA computes them.

Place in the path: called by `composite` for the reward and by `evaluate.metrics` for the report, so
that training and evaluation can never measure different things. On failure: it has none; any two
strings have a score.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Answers of a closed kind: sharing a word with a longer answer ("no" in "no one") earns nothing.
_CLOSED = frozenset({"yes", "no", "noanswer"})


def normalise_answer(text: str) -> str:
    """Lower-case `text` and drop ASCII punctuation, articles and surplus whitespace.

    The steps and their order are those of `normalize_answer` in SQuAD's evaluation script v1.1
    (Rajpurkar et al. 2016, arXiv 1606.05250), which HotpotQA took over (Yang et al. 2018,
    arXiv 1809.09600, `hotpot_evaluate_v1.py`): punctuation is deleted, not replaced by a space, and
    before the articles go; punctuation beyond ASCII stays.
    """
    without_punctuation = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", without_punctuation).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1.0 if the normalised `answer` equals any normalised reference, else 0.0."""
    normalised = normalise_answer(answer)
    return float(any(normalised == normalise_answer(reference) for reference in references))


def f1(answer: str, references: Sequence[str]) -> float:
    """Harmonic mean of token precision and recall in [0, 1], best over the references.

    `f1_score` of `hotpot_evaluate_v1.py`: tokens count as often as they occur; where one side is
    exactly yes, no or noanswer and the other differs, the score is 0; two sides without a token in
    common, two empty ones included, score 0.

    Raises:
        ValueError: `references` is empty.
    """
    return max(_pair_f1(normalise_answer(answer), normalise_answer(r)) for r in references)


def _pair_f1(answer: str, reference: str) -> float:
    if answer != reference and (answer in _CLOSED or reference in _CLOSED):
        return 0.0
    answer_tokens, reference_tokens = answer.split(), reference.split()
    shared = (Counter(answer_tokens) & Counter(reference_tokens)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(answer_tokens), shared / len(reference_tokens)
    return 2 * precision * recall / (precision + recall)
