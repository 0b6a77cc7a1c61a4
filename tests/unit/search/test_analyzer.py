from __future__ import annotations

import unicodedata

import pytest

from rsearch_cli.search.analyzer import fold, split_indexed, split_query, split_words


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("北京是首都。", ["北京", "京是", "是首", "首都"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("ｶﾞﾝﾀﾞﾑ", ["ガン", "ンダ", "ダム"]),
        ("か が", ["か", "が"]),
        ("서울은 한국", ["서울", "울은", "한국"]),
        ("กรุงเทพ", ["กรุ", "รุง", "งเ", "เท", "ทพ"]),
        ("ພາສາລາວ", ["ພາ", "າສ", "ສາ", "າລ", "ລາ", "າວ"]),
        ("ភាសា", ["ភាសា"]),
        ("မြန်မာ", ["မြန်", "န်မာ"]),
        ("iPhone手机 2024年", ["iphone", "手机", "2024", "年"]),
        ("２０２４年ＡＢＣ", ["2024", "年", "abc"]),
        ("龙", ["龙"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("தமிழ்", ["தமிழ்"]),
        ("مُحَمَّد שָׁלוֹם", ["محمد", "שלום"]),
    ],
)
def test_scripts_without_blanks_are_cut_into_pairs(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_a_single_syllable_is_indexed_beside_the_pairs() -> None:
    assert split_indexed("龙女 강물 ไทย abc") == [
        "龙女", "龙", "女", "강물", "강", "물", "ไท", "ทย", "abc",
    ]  # fmt: skip
    assert split_query("龙") == ["龙"]


def test_text_in_other_scripts_is_folded_as_before() -> None:
    """Latin, Greek, Cyrillic, Hebrew, Arabic and every symbol: an index of them stays the same."""
    strokes = {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "\u0131": "i"}
    for code in (*range(0x80, 0x900), *range(0x1E00, 0x2C00), *range(0xA640, 0xA700)):
        text = f"a{chr(code)}b\u0301"
        plain = unicodedata.normalize("NFKD", text)
        old = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
        assert fold(text) == old.translate(str.maketrans(strokes)), hex(code)


def test_a_query_loses_its_stop_words() -> None:
    assert split_query("Who is the mayor of Port Ellow?") == ["mayor", "port", "ellow"]


def test_a_query_of_stop_words_alone_keeps_them() -> None:
    assert split_query("The Who") == ["the", "who"]
