"""Words of scripts with and without blanks."""

from __future__ import annotations

import pytest

from rsearch_cli.protocol.characters import count_words


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("capital of France", 3),
        ("rock'n'roll — C++ (1984)", 4),
        ("서울은 대한민국의 수도", 3),
        ("बिहार की राजधानी", 3),
        ("北京", 1),
        ("北京是中国的首都", 3),
        ("《红楼梦》的作者", 2),
        ("2008年奥运会 host", 4),
        ("ウィリアム・シェイクスピア", 4),
        ("กรุงเทพมหานคร", 2),
        ("字" * 30, 10),
        ("字" * 31, 11),
    ],
)
def test_words_are_counted_with_and_without_blanks(text: str, count: int) -> None:
    assert count_words(text) == count
