"""Take the pictures of docs/viewer.md: the page of `rsearch view`, in Chromium.

Usage:  python docs/pictures/viewer.py [--run runs/quickstart]

Needs Chromium on PATH and the extra `test`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rsearch_cli.viewer.collection import Collection
from rsearch_cli.viewer.html_file import write_file

HERE = Path(__file__).parent
SIZES = {"overview": 640, "table": 440, "trajectory": 620, "group": 700}
"""Height of each picture."""
WIDTH = 1080


def main() -> None:
    """Write one PNG for each of `SIZES`."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    collection = Collection([parser.parse_args().run])
    collection.refresh()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "view.html"
        write_file(path, collection.index(), collection.parts())
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        addresses = {
            "overview": "#/0/overview",
            "table": "#/0/rows?phase=train&sort=reward",
            "trajectory": "#/0/rows?phase=after-greedy",
            "group": f"#/0/group/{most_varied_group(collection)}",
        }
        for name, height in SIZES.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": height})
            page.goto(path.as_uri() + addresses[name])
            page.wait_for_selector(".loading", state="detached")
            if name == "trajectory":
                open_long_question(page)
            page.screenshot(path=HERE / f"viewer-{name}.png")
            print(HERE / f"viewer-{name}.png")
        browser.close()


def most_varied_group(collection: Collection) -> int:
    """Return the group whose completions got the most different rewards."""
    columns = collection.index()["sources"][0]["rows"]["columns"]
    rewards: dict[int, set[float]] = {}
    for group, reward in zip(columns["group"], columns["reward"], strict=True):
        if group is not None:
            rewards.setdefault(group, set()).add(reward)
    return max(rewards, key=lambda group: len(rewards[group]))


def open_long_question(page: Any) -> None:
    """Open a question of two hops."""
    page.get_by_label("Question or answer contains").fill("mayor of the city where")
    page.locator("table.rows tbody a").first.click()
    page.wait_for_selector(".transcript")


if __name__ == "__main__":
    main()
