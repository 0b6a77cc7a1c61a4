"""Titles are found in a text, whatever their case, accents and qualifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsearch_cli.search.title_index import TitleIndex

TITLES = [
    "Venus (1929 film)",
    "J. Lee Thompson",
    "Venus",
    "Émile Saint-Ober",
    "東京",
    "James Douglas, 14th Earl of Morton",
    "Franz, Duke of Hohenberg",
    "Italy",
    "Victor Emmanuel III of Italy",
    "Place of birth",
    "The Who",
    "!",
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Venus", [[0, 2]]),
        ("Venus (1929 film) director", [[0]]),
        ("She saw venus in Venus.", [[0, 2]]),
        ("by J Lee Thompson; by J. LEE THOMPSON", [[1], [1]]),
        ("the film of Emile Saint Ober\u2019s", [[3]]),
        ("東京", [[4]]),
        ("son of James Douglas, a colonel", []),
        ("son of James Douglas, 14th Earl of Morton", [[5]]),
        ("in Italy, King Victor Emmanuel III of Italy", [[8], [7]]),
        ("the sister of Franz, Duke of Hohenberg", [[6]]),
        ("Franz of Hohenberg", []),
        ("place of birth of venus", [[9]]),
        ("The place of birth of James Douglas", []),
        ("The Who", [[10]]),
        ("Lee Thompson", []),
        ("", []),
        ("?!", []),
    ],
)  # fmt: skip
def test_titles_in_a_text(text: str, found: list[list[int]], tmp_path: Path) -> None:
    TitleIndex.of(TITLES).save(tmp_path)
    loaded = TitleIndex.load(tmp_path)
    assert loaded.find(text) == found


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    index = TitleIndex.of(TITLES)
    text = "Word " * 50_000
    assert index.find(f"Venus {text}") == [[0, 2]]
    assert index.find(f"{text} Venus") == []
