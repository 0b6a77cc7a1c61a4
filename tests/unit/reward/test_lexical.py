"""Answer scores against values worked out by hand from the official HotpotQA script's rules."""

from __future__ import annotations

import pytest

from rsearch_cli.reward.lexical import exact_match, f1, is_by_letter, normalise_answer

# answer, reference, exact match, F1
PAIRS = [
    # The same, up to what normalisation takes away.
    ("Paris", "Paris", 1, 1),
    ("paris", "PARIS", 1, 1),
    ("  Paris \n", "Paris", 1, 1),
    ("Paris.", "Paris", 1, 1),
    ('"Paris"', "Paris", 1, 1),
    ("The Beatles", "Beatles", 1, 1),
    ("a cat", "the cat", 1, 1),
    ("an apple", "apple", 1, 1),
    ("New   York\tCity", "New York City", 1, 1),
    ("U.S.A.", "USA", 1, 1),
    ("rock'n'roll", "rocknroll", 1, 1),
    ("Jean-Luc", "JeanLuc", 1, 1),
    ("$1,000", "1000", 1, 1),
    # Overlap: F1 = 2 * shared / (tokens of the answer + tokens of the reference).
    ("New York", "New York City", 0, 4 / 5),
    ("New York City in the USA", "New York City", 0, 6 / 8),
    ("Barack Obama", "Obama", 0, 2 / 3),
    ("Obama, Barack", "Barack Obama", 0, 1),
    ("Jean Luc", "Jean-Luc", 0, 0),
    ("London", "Paris", 0, 0),
    ("cat", "cats", 0, 0),
    ("a an the cat", "cat dog", 0, 2 / 3),
    ("Athena", "the na", 0, 0),
    # Tokens count as often as they occur.
    ("New York New York", "New York", 0, 2 * 0.5 * 1 / 1.5),
    ("the the dog dog", "dog", 0, 2 / 3),
    ("duran duran", "duran duran", 1, 1),
    ("ha ha ha", "ha ha", 0, 4 / 5),
    # Numbers and dates are words like any other.
    ("1984", "1984", 1, 1),
    ("1984", "1985", 0, 0),
    ("12 May 1984", "May 12, 1984", 0, 1),
    ("May 1984", "12 May 1984", 0, 4 / 5),
    ("3.14", "314", 1, 1),
    ("7", "seven", 0, 0),
    ("-5", "5", 1, 1),
    # Yes, no and noanswer take all or nothing.
    ("yes", "yes", 1, 1),
    ("Yes.", "yes", 1, 1),
    ("no", "No!", 1, 1),
    ("yes", "no", 0, 0),
    ("no one", "no", 0, 0),
    ("no", "no one", 0, 0),
    ("yes it is", "yes", 0, 0),
    ("noanswer", "no answer", 0, 0),
    ("yes man", "yes sir", 0, 1 / 2),
    # Empty on one side or both: equal strings match, but no shared token is no F1.
    ("", "", 1, 0),
    ("", "Paris", 0, 0),
    ("Paris", "", 0, 0),
    # What the script leaves nothing of is compared as it is written.
    ("the", "an", 0, 0),
    ("A", "A", 1, 1),
    ("the the", "The The", 1, 1),
    ("?", "!", 0, 0),
    ("...", "", 0, 0),
    ("   ", "a", 0, 0),
    ("Grade A", "A", 0, 0),
    # Beyond ASCII nothing is folded, and punctuation stays.
    ("Beyoncé", "beyoncé", 1, 1),
    ("Beyoncé", "Beyonce", 0, 0),
    ("ÅNGSTRÖM", "ångström", 1, 1),
    ("東京", "東京", 1, 1),
    ("“Paris”", "Paris", 0, 0),
    ("1914–1918", "1914-1918", 0, 0),
    ("New\u00a0York", "New York", 1, 1),
    ("Straße", "STRASSE", 0, 0),
]


@pytest.mark.parametrize(("answer", "reference", "matches", "score"), PAIRS)
def test_hand_computed_pairs(answer: str, reference: str, matches: int, score: float) -> None:
    assert exact_match(answer, [reference]) == matches
    assert f1(answer, [reference]) == pytest.approx(score)


@pytest.mark.parametrize(("answer", "reference", "matches", "score"), PAIRS)
def test_the_order_of_the_two_sides_does_not_matter(
    answer: str, reference: str, matches: int, score: float
) -> None:
    assert exact_match(reference, [answer]) == matches
    assert f1(reference, [answer]) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The  Quick, brown fox!", "quick brown fox"),
        ("A.B.C.", "abc"),
        # Punctuation goes first, so that "a." is an article afterwards, and "the-a" is not.
        ("a. the-a", "thea"),
        ("Theatre of an era", "theatre of era"),
        ("_under_score_", "underscore"),
        ("", ""),
    ],
)
def test_normalisation(text: str, normalised: str) -> None:
    assert normalise_answer(text) == normalised


def test_the_best_of_several_references_counts() -> None:
    references = ("United Kingdom of Great Britain", "Great Britain", "UK")
    assert exact_match("great britain", references) == 1.0
    assert exact_match("britain", references) == 0.0
    assert f1("britain", references) == pytest.approx(2 / 3)


def test_scores_without_references_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        f1("Paris", [])


CJK = [
    ("北京。", "北京", 1, 1),
    ("「北京」", "北京", 1, 1),
    ("北京市", "北京", 0, 2 * (2 / 3) / (2 / 3 + 1)),
    ("上海", "北京", 0, 0),
    ("２０２４年", "2024年", 1, 1),
    ("東京 タワー", "東京タワー", 1, 1),
    ("ﾄｳｷｮｳ", "トウキョウ", 1, 1),
    ("세종 대왕", "세종대왕", 1, 1),
    ("세종대왕은", "세종대왕", 0, 2 * (4 / 5) / (4 / 5 + 1)),
    ("กรุงเทพ", "กรุงเทพ ", 1, 1),
    ("IBM 公司", "IBM公司", 1, 1),
    ("the 北京", "北京", 1, 1),
    ("", "北京", 0, 0),
    ("no", "北京", 0, 0),
]


@pytest.mark.parametrize(("answer", "reference", "em", "score"), CJK)
def test_cjk_compares_letters(answer: str, reference: str, em: int, score: float) -> None:
    assert exact_match(answer, [reference], "cjk") == em
    assert f1(answer, [reference], "cjk") == pytest.approx(score)


def test_squads_rules_keep_what_they_do_not_know() -> None:
    assert exact_match("北京。", ["北京"]) == 0.0
    assert f1("北京市", ["北京"]) == 0.0


@pytest.mark.parametrize(("answer", "reference", "em", "score"), PAIRS)
def test_cjk_leaves_pairs_without_its_scripts_to_squads_rules(
    answer: str, reference: str, em: int, score: float
) -> None:
    if not is_by_letter([answer, reference]):
        assert exact_match(answer, [reference], "cjk") == em
        assert f1(answer, [reference], "cjk") == pytest.approx(score)


def test_the_best_reference_counts_each_by_its_own_rules() -> None:
    assert exact_match("北京。", ["Beijing", "北京"], "cjk") == 1.0
    assert exact_match("Beijing.", ["北京", "Beijing"], "cjk") == 1.0
