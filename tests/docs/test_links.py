"""Links of the documentation lead somewhere, and every page can be reached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import PAGES, ROOT, anchors, name_of, read, relative_links

DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
README_LINES = 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_and_anchors_exist(page: Path) -> None:
    broken = []
    for target in relative_links(page):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if (
            not linked.exists()
            or not linked.is_relative_to(ROOT)
            or (anchor and anchor not in anchors(linked))
        ):
            broken.append(target)
    assert broken == []


def test_the_index_leads_to_every_page() -> None:
    seen, ahead = set(), [INDEX]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        linked = {(page.parent / t.partition("#")[0]).resolve() for t in relative_links(page)}
        ahead += [p for p in linked - seen if p.suffix == ".md" and p.is_relative_to(DOCS)]
    assert [name_of(page) for page in sorted(DOCS.rglob("*.md")) if page not in seen] == []


def test_the_readme_is_short_and_leads_to_the_index() -> None:
    readme = ROOT / "README.md"
    assert len(read(readme).splitlines()) <= README_LINES
    assert "docs/README.md" in relative_links(readme)


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# `exa`: the web, *now*\n## Twice\n## Twice\n```text\n# no heading\n```\n")
    assert anchors(page) == {"exa-the-web-now", "twice", "twice-1"}


def test_the_architecture_places_every_part_of_the_package() -> None:
    parts = {p.stem for p in (ROOT / "rsearch_cli").iterdir() if p.suffix == ".py" or p.is_dir()}
    placed = set(re.findall(r"`(\w+)`", read(DOCS / "architecture.md")))
    assert {p for p in parts - placed if not p.startswith("__")} == {"models"}


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "extending.md"], ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", read(page)))
    missing = [
        n for n in named if not (ROOT / n).exists() and not (ROOT / "rsearch_cli" / n).exists()
    ]
    assert missing == []
