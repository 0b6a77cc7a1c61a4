"""How `rsearch view` copes with a run of 50,000 trajectories, in time, memory and in a browser.

The run is made up: rollouts of the shape that `rsearch train` stores, with plans of one to four
nodes, two passages each, in words drawn as in natural language, about 3 KB a row. Measured are the
command (wall time, peak memory of its process, size of the file) and, in Chromium, the time from
the request of the file to the first view and to its end, and from an input in a filter to the frame
with the new rows. Needs Playwright and a Chromium; about two minutes on two cores. The last line on
stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GROUP = 8
GROUPS_A_STEP = 8
TYPES = ("bridge", "comparison", "compositional", "inference")
SOURCES = ("General", "News", "Academy")
OPENED = "() => document.querySelector('#main h1, #main h2') && !document.querySelector('.loading')"


class Words:
    """Made-up words with the frequencies of natural language (Zipf's law).

    Args:
        rng: Draws them.
        size: Number of distinct words.
    """

    def __init__(self, rng: random.Random, size: int = 20_000) -> None:
        syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en")]
        self._rng = rng
        self._words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(size)]
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, size + 1)))

    def text(self, count: int) -> str:
        """Return so many words."""
        return " ".join(self._rng.choices(self._words, cum_weights=self._weights, k=count))


def make_rows(count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield rollouts, group by group."""
    words = Words(rng)
    questions = [(f"q{i}", f"{words.text(14).capitalize()}?", words.text(2)) for i in range(2000)]
    for at in range(0, count, GROUP):
        step = at // (GROUP * GROUPS_A_STEP) + 1
        id, question, answer = rng.choice(questions)
        passages = [(f"doc{rng.randrange(10**6)}", words.text(75)) for _ in range(8)]
        for _ in range(min(GROUP, count - at)):
            yield make_row(step, id, question, answer, passages, words, rng)


def make_row(
    step: int,
    id: str,
    question: str,
    answer: str,
    passages: list[tuple[str, str]],
    words: Words,
    rng: random.Random,
) -> dict[str, Any]:
    """Return a rollout; one plan in ten is not valid, and one search in fifty fails."""
    valid = rng.random() > 0.1
    labels = "ABCD"[: rng.randint(1, 4)]
    nodes = [(label, words.text(6), rng.choice(SOURCES)) for label in labels]
    edges = [[a, b] for a, b in itertools.pairwise(labels) if rng.random() < 0.5]
    plan = "\n".join(
        [
            "Nodes:",
            *(f"{label}: {query} ({source})" for label, query, source in nodes),
            "Edges:",
            *(f"{a} -> {b}" for a, b in edges),
        ]
    )
    results, lines = [], []
    for label, query, source in nodes if valid else ():
        error = "timeout after 30 s" if rng.random() < 0.02 else None
        found = [] if error else rng.sample(passages, 2)
        lines += [f"{label}: {text}" for _, text in found]
        lines += [f"{label}: search failed ({error})"] if error else []
        node = {"label": label, "query": query, "source": source, "cached": rng.random() < 0.5}
        ids = [passage for passage, _ in found]
        results.append({**node, "expansion": [], "passages": ids, "error": error})
    problems = [] if valid else ["line 2: 'Q' is not a declared node"]
    right = rng.random() < 0.3 + step / 2000
    said = answer if right else words.text(2)
    score = {"answer": float(right), "plan": float(valid), "format": rng.choice((1.0, 1.0, 0.875))}
    total = 0.5 * score["answer"] * valid + 0.25 * score["plan"] + 0.25 * score["format"]
    block = "\n".join(lines or [f"plan not valid: {problem}" for problem in problems])
    segments = [
        ("model", f"<think> {words.text(60)} </think>\n<search>\n{plan}\n</search>"),
        ("system", f"\n<result>\n{block}\n</result>\n"),
        ("model", f"<think> {words.text(40)} </think>\n<answer> {said} </answer>"),
        ("system", ""),
    ]
    return {
        "step": step,
        "question_id": id,
        "question": question,
        "type": TYPES[int(id[1:]) % len(TYPES)],
        "answers": [answer],
        "answer": said,
        "reward": {**score, "total": total, "extra": {}},
        "stop": "answer" if rng.random() < 0.97 else "length",
        "prompt_tokens": 400,
        "segments": [
            {"author": author, "tokens": len(text) // 4 + 1, "text": text}
            for author, text in segments
        ],
        "opening": "",
        "rounds": [{"problems": problems, "edges": edges if valid else [], "results": results}],
    }


def make_run(folder: Path, count: int) -> None:
    """Write a run folder."""
    rng = random.Random(0)
    folder.mkdir()
    recipe = "train: {num_generations: 8, scale_rewards: group, max_steps: 1000}\n"
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    sums: dict[int, list[float]] = {}
    with (folder / "trajectories.jsonl").open("w", encoding="utf-8") as file:
        for row in make_rows(count, rng):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            sums.setdefault(row["step"], []).append(row["reward"]["total"])
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step, rewards in sums.items():
            row = {"step": step, "reward": statistics.fmean(rewards), "entropy": rng.random()}
            file.write(json.dumps(row) + "\n")


def build(folder: Path) -> dict[str, Any]:
    """Run the command and return its figures."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rsearch_cli", "view", str(folder)], check=True)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "trajectories_mb": round((folder / "trajectories.jsonl").stat().st_size / 1e6, 1),
        "build_seconds": round(seconds, 1),
        "build_cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_memory_mb": round(used.ru_maxrss * 1024 / 1e6, 1),  # from KiB, as on Linux
        "file_mb": round((folder / "view.html").stat().st_size / 1e6, 1),
    }


def browse(path: Path, repeats: int) -> dict[str, Any]:
    """Open the file several times and filter its rows; return the times in seconds."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    opened, loaded, filtered = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            started = time.perf_counter()
            page.goto(path.as_uri(), wait_until="commit", timeout=60_000)
            page.wait_for_function(OPENED, timeout=60_000)
            opened.append(time.perf_counter() - started)
            page.wait_for_load_state("load", timeout=60_000)
            loaded.append(time.perf_counter() - started)
            filtered.append(time_filters(page))
            page.close()
        browser.close()
    by_name = {name: [times[name] for times in filtered] for name in filtered[0]}
    return {
        "opened_seconds": [round(value, 2) for value in opened],
        "loaded_seconds": [round(value, 2) for value in loaded],
        "filtered_ms": {name: [round(t) for t in times] for name, times in by_name.items()},
    }


FILTERS = {
    "text": ("input[name=q]", "doma"),
    "type": ("select[name=type]", "bridge"),
    "reward": ("input[name=reward-from]", "0.5"),
    "step": ("input[name=step-to]", "200"),
    "failed": ("input[name=failed]", "on"),
}
"""Name in the figures to a field of the filter and what is put into it."""

CHANGE = """async ([selector, value]) => {
    const counts = () => document.querySelector('.counts').textContent;
    const input = document.querySelector(selector), before = counts(), started = performance.now();
    if (input.type === 'checkbox') input.checked = true;
    else input.value = value;
    input.dispatchEvent(new Event(input.type === 'checkbox' ? 'change' : 'input', {bubbles: true}));
    if (input.tagName === 'SELECT') input.dispatchEvent(new Event('change', {bubbles: true}));
    while (counts() === before) {
        if (performance.now() - started > 10_000) throw new Error(`${selector} changed nothing`);
        await new Promise((done) => requestAnimationFrame(done));
    }
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - started;
}"""
"""Changes a field; resolves after the frame that shows its rows, with the milliseconds."""


def time_filters(page: Any) -> dict[str, float]:
    """Return the milliseconds from the change of each filter to the frame that shows its rows."""
    times = {}
    for name, (selector, value) in FILTERS.items():
        page.evaluate("location.hash = '#/0/rows'")
        page.wait_for_selector(".rows-view .counts:not(:empty)")
        page.evaluate("document.querySelector('.filters button').click()")
        page.wait_for_timeout(300)
        times[name] = page.evaluate(CHANGE, [selector, value])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3, help="times the file is opened")
    parser.add_argument("--keep", type=Path, help="folder for the run; kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch) / "run"
        if not folder.exists():
            make_run(folder, given.rows)
        figures = {"rows": given.rows, "cores": os.cpu_count(), **build(folder)}
        print(figures, file=sys.stderr)
        print(json.dumps({**figures, **browse(folder / "view.html", given.repeats)}))


if __name__ == "__main__":
    main()
