"""Exact match and F1 of an answer against its references, as HotpotQA computes them.

Rewards and reports both use this module, so training and evaluation measure the same. SQuAD's rules
assume spaces between words and ASCII punctuation; `cjk` compares answers in scripts without spaces,
such as Chinese, Japanese and Thai, and in Korean, by letters.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from rsearch_cli.protocol.characters import HANGUL, UNSPACED

Normalisation = Literal["squad", "cjk"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Closed answers: a word shared with a longer answer ("no" in "no one") earns nothing.
_CLOSED = frozenset({"yes", "no", "noanswer"})
_BY_LETTER = re.compile(f"[{UNSPACED}{HANGUL}]")
_TOKEN = re.compile(rf"[{UNSPACED}{HANGUL}]|[^\s{UNSPACED}{HANGUL}]+")


def normalise_answer(text: str) -> str:
    """Lower-case `text` and drop ASCII punctuation, articles and surplus whitespace.

    The steps and their order are those of `normalize_answer` in SQuAD's evaluation script v1.1
    (Rajpurkar et al. 2016, arXiv 1606.05250), which HotpotQA took over (Yang et al. 2018,
    arXiv 1809.09600, `hotpot_evaluate_v1.py`): punctuation is deleted, not replaced by a space, and
    before the articles go; punctuation beyond ASCII stays.
    """
    without_punctuation = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", without_punctuation).split())


def is_by_letter(texts: Iterable[str]) -> bool:
    """Return whether any text contains a script that `cjk` compares by letters."""
    return any(map(_BY_LETTER.search, texts))


def describe_unspaced(references: Sequence[Sequence[str]], normalisation: Normalisation) -> str:
    """Return a warning if answers are in a script that SQuAD's rules compare badly, else "".

    Args:
        references: The accepted answers of each question.
        normalisation: The rules that answers are compared by.
    """
    count = sum(map(is_by_letter, references)) if normalisation == "squad" else 0
    if not count:
        return ""
    return (
        f"{count} of {len(references)} questions have an answer in Chinese, Japanese, Korean, Thai "
        "or the like, which SQuAD's rules compare as one word, punctuation included; set "
        "reward.normalisation=cjk to compare letters"
    )


def exact_match(
    answer: str, references: Sequence[str], normalisation: Normalisation = "squad"
) -> float:
    """Return 1.0 if the normalised answer equals any normalised reference, else 0.0.

    Args:
        answer: The answer as written.
        references: Accepted answers.
        normalisation: `squad`, or `cjk` (see `_separate_letters`), which differs only for pairs
            with a text in one of its scripts.
    """
    return float(any(a == b for a, b in _normalise_pairs(answer, references, normalisation)))


def f1(answer: str, references: Sequence[str], normalisation: Normalisation = "squad") -> float:
    """Return the harmonic mean of token precision and recall in [0, 1], best over the references.

    `f1_score` of `hotpot_evaluate_v1.py`: tokens count as often as they occur; the score is 0 if
    one side is exactly yes, no or noanswer and the other differs, and if the sides have no token
    in common, two empty ones included.

    Args:
        answer: As in `exact_match`.
        references: As in `exact_match`.
        normalisation: As in `exact_match`; letters are the tokens of `cjk`.

    Raises:
        ValueError: `references` is empty.
    """
    return max(_pair_f1(a, b) for a, b in _normalise_pairs(answer, references, normalisation))


def _normalise_pairs(
    answer: str, references: Sequence[str], normalisation: Normalisation
) -> list[tuple[str, str]]:
    """Return the answer with each reference, normalised, tokens separated by spaces."""
    pairs = []
    for reference in references:
        by_letter = normalisation == "cjk" and is_by_letter((answer, reference))
        normalise = _separate_letters if by_letter else normalise_answer
        if not normalise(answer) and not normalise(reference):
            # Articles or punctuation alone ("A", "The The", "!") are compared as they are written:
            # all of them would be equal, empty answers included, with an F1 of 0.
            normalise = _fold
        pairs.append((normalise(answer), normalise(reference)))
    return pairs


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _separate_letters(text: str) -> str:
    """Separate the letters of unspaced scripts, and the words of others, by spaces.

    As MLQA's evaluation segments Chinese (Lewis et al. 2020, arXiv 1910.07475,
    `mixed_segmentation`), and KorQuAD's Korean: Unicode punctuation is removed, and so are the
    spaces between letters. Full-width forms become plain ones (NFKC).
    """
    folded = unicodedata.normalize("NFKC", text).lower().translate(_NO_PUNCTUATION)
    plain = "".join(c for c in folded if not unicodedata.category(c).startswith("P"))
    return " ".join(_TOKEN.findall(_ARTICLES.sub(" ", plain)))


def _pair_f1(answer: str, reference: str) -> float:
    if answer != reference and (answer in _CLOSED or reference in _CLOSED):
        return 0.0
    answer_tokens, reference_tokens = answer.split(), reference.split()
    shared = (Counter(answer_tokens) & Counter(reference_tokens)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(answer_tokens), shared / len(reference_tokens)
    return 2 * precision * recall / (precision + recall)
