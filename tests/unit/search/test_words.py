from __future__ import annotations

import pytest

from rsearch_cli.search.words import split_query, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Jorge Luis Borges", ["jorge", "luis", "borges"]),
        ("Borås Tidning", ["boras", "tidning"]),
        ("Bora\u030as", ["boras"]),
        ("Łódź, Tromsø", ["lodz", "tromso"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("Allen's and Allen\u2019s", ["allen", "and", "allen"]),
        ("snake_case-word", ["snake", "case", "word"]),
        ("born 1899", ["born", "1899"]),
        ("Ελλάδα Россия", ["ελλαδα", "россия"]),
        ("?! \ud800 …", []),
    ],
)
def test_words_are_folded(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_a_query_loses_its_stop_words() -> None:
    assert split_query("Who is the mayor of Port Ellow?") == ["mayor", "port", "ellow"]


def test_a_query_of_stop_words_alone_keeps_them() -> None:
    assert split_query("The Who") == ["the", "who"]
