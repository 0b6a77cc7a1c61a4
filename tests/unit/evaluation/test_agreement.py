"""Exact match and F1 against other implementations, on 3,000 pairs with many odd ones among them.

`official_*` follow `hotpot_evaluate_v1.py` (Yang et al. 2018) line by line and share no code with
the package. torchmetrics' SQuAD is asked where it is installed.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter

import pytest

from rsearch_cli.reward.lexical import exact_match, f1

WORDS = """the a an The A An of Paris paris New York City 1984 1,000 3.14 U.S. rock'n'roll 東京 Café
Ångström naïve yes no Yes NO noanswer -5 — – “quoted” (Rome) theatre another and & Jr. II İstanbul
straße ß fi \u00a0 \u200b \u2028 '' ... ? ! the. a. an, n't it's 12th 2,5 €10 50% #1 C++
Ｆｕｌｌ""".split()
WHOLE = ("", " ", "\n\t", "yes", "no", "noanswer", "Yes.", "No!", "the", "a an the", "...", "\x00")


def make_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)

    def text() -> str:
        if rng.random() < 0.15:
            return rng.choice(WHOLE)
        words = rng.choices(WORDS, k=rng.randint(1, 7))
        return rng.choice((" ", "  ", "\n", "-", ", ")).join(words)

    def alter(answer: str) -> str:
        words = answer.split()
        rng.shuffle(words)
        kept = words[: rng.randint(0, len(words))] + rng.choices(WORDS, k=rng.randint(0, 2))
        change = rng.choice((str.lower, str.upper, str.title, lambda words: f"the {words}."))
        return change(" ".join(kept))

    pairs = []
    for _ in range(count):
        answer = text()
        reference = rng.choice((text(), answer, alter(answer), alter(answer)))
        pairs.append((answer, reference))
    return pairs


PAIRS = make_pairs(3000, seed=1)


def official_normalize_answer(s):
    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(s.lower())))


def official_f1(prediction, ground_truth):
    normalized_prediction = official_normalize_answer(prediction)
    normalized_ground_truth = official_normalize_answer(ground_truth)
    for one, other in (
        (normalized_prediction, normalized_ground_truth),
        (normalized_ground_truth, normalized_prediction),
    ):
        if one in ["yes", "no", "noanswer"] and one != other:
            return 0
    prediction_tokens = normalized_prediction.split()
    ground_truth_tokens = normalized_ground_truth.split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


def official_exact_match(prediction, ground_truth):
    return official_normalize_answer(prediction) == official_normalize_answer(ground_truth)


def test_the_pairs_hold_what_could_go_wrong():
    normal = [(official_normalize_answer(a), official_normalize_answer(b)) for a, b in PAIRS]
    kinds = {
        "empty": sum("" in pair for pair in normal),
        "closed": sum(bool({"yes", "no", "noanswer"} & set(pair)) for pair in normal),
        "unicode": sum(not (a + b).isascii() for a, b in PAIRS),
        "numbers": sum(any(c.isdigit() for c in a + b) for a, b in PAIRS),
        "articles": sum(a.split() != official_normalize_answer(a).split() for a, _ in PAIRS),
        "equal": sum(a == b for a, b in normal),
        "partial": sum(0 < official_f1(*pair) < 1 for pair in PAIRS),
    }
    assert all(count >= 100 for count in kinds.values()), kinds


def holds_words(pair):
    return any(map(official_normalize_answer, pair))


def test_every_pair_scores_as_in_the_official_evaluation():
    """All but pairs of which nothing is left; the official rules call "!" a match of "The"."""
    pairs = list(filter(holds_words, PAIRS))
    assert len(pairs) >= 0.9 * len(PAIRS)
    ours = [(exact_match(a, [b]), f1(a, [b])) for a, b in pairs]
    theirs = [(float(official_exact_match(*p)), pytest.approx(official_f1(*p))) for p in pairs]
    assert ours == theirs


def test_means_agree_with_squad_of_torchmetrics():
    squad = pytest.importorskip("torchmetrics.text", reason="torchmetrics is not installed").SQuAD
    # SQuAD has no rule for yes and no, and torchmetrics scores two empty answers 1: left out.
    odd = {"", "yes", "no", "noanswer"}
    pairs = [p for p in PAIRS if not odd & {official_normalize_answer(text) for text in p}]
    assert len(pairs) >= 1000
    metric = squad()
    for i, (answer, reference) in enumerate(pairs):
        metric.update(
            [{"prediction_text": answer, "id": str(i)}],
            [{"answers": {"answer_start": [0], "text": [reference]}, "id": str(i)}],
        )
    found = metric.compute()
    count = len(pairs)
    assert sum(exact_match(a, [b]) for a, b in pairs) / count * 100 == pytest.approx(
        float(found["exact_match"]), abs=1e-3
    )
    assert sum(f1(a, [b]) for a, b in pairs) / count * 100 == pytest.approx(
        float(found["f1"]), abs=1e-2
    )
