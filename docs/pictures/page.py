"""Take the pictures of the page at `/` in docs/serving.md: desktop in light, phone in dark colours.

Serves a finished quickstart and asks it in Chromium.

Usage:  python docs/pictures/page.py [--run runs/quickstart]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests/servers"))
from served_agent import serve_agent  # noqa: E402

QUESTION = "Where was the author of The Gorpus Lantern born?"
DESKTOP = {"width": 1000, "height": 640}
PHONE = {"width": 360, "height": 720}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    run = parser.parse_args().run
    with serve_agent(f"--model={run}", world=()) as served, sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, viewport, scheme in (("page", DESKTOP, "light"), ("page_phone", PHONE, "dark")):
            page = open_page(browser, served.url, viewport, scheme)
            ask(page, QUESTION)
            take(page, name)
        browser.close()


def open_page(browser: Browser, url: str, viewport: Any, scheme: Any) -> Any:
    page = browser.new_page(viewport=viewport, color_scheme=scheme, device_scale_factor=2)
    page.goto(url)
    page.locator("#examples button").first.wait_for()
    return page


def ask(page: Any, question: str) -> None:
    page.fill("#question", question)
    page.keyboard.press("Enter")
    page.locator(".turn-foot").wait_for()
    page.locator("summary").click()
    page.locator("#question").blur()
    page.mouse.move(0, 0)


def take(page: Any, name: str) -> None:
    """Write a PNG of 128 colours, which is a fifth of the size and looks the same."""
    path = HERE / f"{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128).save(path, optimize=True)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
