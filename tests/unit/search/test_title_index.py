"""Passages are found by their title, whatever its case, accents and qualifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsearch_cli.search.title_index import TitleIndex

TITLES = ["Venus (1929 film)", "J. Lee Thompson", "Venus", "Émile Saint-Ober", "東京", "(I)", "!"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Venus", [0, 2]),
        ("venus", [0, 2]),
        ("J Lee Thompson", [1]),
        ("Emile Saint Ober", [3]),
        ("東京", [4]),
        ("I", [5]),
        ("Lee Thompson", []),
        ("", []),
        ("?!", []),
    ],
)
def test_a_title_is_found(name: str, found: list[int], tmp_path: Path) -> None:
    TitleIndex.of(TITLES).save(tmp_path)
    loaded = TitleIndex.load(tmp_path)
    assert loaded.find(name) == found
