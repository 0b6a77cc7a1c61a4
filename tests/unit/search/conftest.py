"""A small fictional corpus, and a private cache folder for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsearch_cli.types import Passage


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep indexes and answers of a test inside its own folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def corpus() -> list[Passage]:
    """Passages of the invented region of Ostervale, where one fact leads to the next."""
    rows = [
        (
            "Brindle Works",
            "Brindle Works is a lamp maker. It was founded by Tessa Korrin.",
            "General",
        ),
        (
            "Halden Mills",
            "Halden Mills is a paper maker. It was founded by Aldo Verrin.",
            "General",
        ),
        ("Tessa Korrin", "Tessa Korrin was born in Port Ellow and studied glass.", "General"),
        ("Aldo Verrin", "Aldo Verrin was born in Marrowgate and studied pulp.", "General"),
        (
            "Where founders are born",
            "Most of each lamp maker's founders were born there.",
            "General",
        ),
        ("Port Ellow", "Port Ellow is a harbour town. Its mayor is Imre Sandoval.", "General"),
        ("Marrowgate", "Marrowgate is a hill town. Its mayor is Petra Lunn.", "General"),
        ("Storm at Port Ellow", "A storm closed the harbour of Port Ellow on Monday.", "News"),
        ("On glass", "Tessa Korrin describes how lead changes glass.", "Academy"),
        ("Ostervale", "Ostervale is the region around Port Ellow and Marrowgate.", ""),
    ]
    return [Passage(f"p{i}", title, text, source) for i, (title, text, source) in enumerate(rows)]
