"""The viewer's page, as one file: filter, sort, trajectory, group, comparison, in the browser."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import stdev
from threading import Event, Thread
from typing import Any

import pytest
from hostile_texts import CONTROLS, HOSTILE
from stored_rows import RECIPE_TEXT, prediction, rollout, store_evaluation, store_run
from threaded import HTTPServer

from rsearch_cli.evaluation.comparison import compare
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.runs.jsonl import append_rows
from rsearch_cli.viewer.collection import Collection
from rsearch_cli.viewer.html_file import assemble_page, write_file
from rsearch_cli.workflows.train import train

PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of two steps, with evaluations before and after."""
    folder = tmp_path_factory.mktemp("viewer") / "small"
    settings = ["train.max_steps=2", "train.batch_size=16", "evaluate.limit=20"]
    # Far too fast, so that the two evaluations differ.
    train(load_recipe("quickstart", [*settings, "train.learning_rate=0.01"]).recipe, folder)
    return folder


@pytest.fixture(scope="module")
def file(run: Path) -> str:
    return as_file(run.parent / "small.html", run)


def as_file(path: Path, *folders: Path) -> str:
    """Write the page of folders; return its address."""
    collection = Collection(folders)
    collection.refresh()
    write_file(path, collection.index(), collection.parts())
    return path.as_uri()


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def open_page(new_page: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Opens an address of a file; no request but for the file itself may be made."""
    requests: list[str] = []

    def open_page(address: str, **options: Any) -> Any:
        page = new_page(**options)
        page.on("request", lambda request: requests.append(request.url.split("#")[0]))
        page.goto(address)
        wait_until_shown(page)
        return page

    yield open_page
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in requests) <= 2


def wait_until_shown(page: Any) -> None:
    page.wait_for_selector(".loading", state="detached")


def cells(page: Any, column: int) -> list[str]:
    rows = page.locator("table.rows tbody tr:not(.spacer)")
    return [row.locator("td").nth(column).inner_text() for row in rows.all()]


def shown(page: Any) -> str:
    return page.locator(".counts strong").inner_text()


def test_names_of_the_modules_are_unique():
    """They become one script."""
    page = "".join(assemble_page())
    names = re.findall(r"^(?:async )?(?:function\*?|class|const|let) (\w+)", page, re.MULTILINE)
    assert len(names) > 100
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_overview_names_the_figures_of_the_run(open_page: Callable[..., Any], run: Path, file: str):
    page = open_page(file)
    summary = json.loads((run / "summary.json").read_text())
    assert page.locator("h1").inner_text() == "small"
    tiles = page.locator(".tiles").inner_text()
    assert f"{summary['before']['em'] * 100:.1f} % → {summary['after']['em'] * 100:.1f} %" in tiles
    assert page.locator(".chart").count() >= 8
    chart = page.get_by_role("slider", name="Reward and its parts")
    first = read_rows(run / "metrics.jsonl")[0]
    chart.focus()
    page.keyboard.press("Home")
    assert f"reward {first['reward']:.3g}" in chart.get_attribute("aria-valuetext")
    page.get_by_label("Smooth").check()
    assert page.locator("path.raw").count() > 0
    chart.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url("**/rows?step=1*")
    assert shown(page) == "16 of 112 trajectories"
    page.go_back()
    assert page.locator("h1").inner_text() == "small"


def test_rewards_above_one_are_drawn_to_their_scale(open_page: Callable[..., Any], tmp_path: Path):
    extra = {"economy": 0.5, "length": 0.5, "no_answer": 0.5, "retrieval": 0.5}
    folder = store_run(tmp_path / "parts", [rollout(1, total=2.0), rollout(1, total=1.0)])
    recipe = RECIPE_TEXT.replace("answer: f1", f"answer: f1, extra: {json.dumps(extra)}")
    (folder / "recipe.yaml").write_text(recipe)
    parts = {f"reward/{name}": 0.5 for name in ("answer", "plan", "format", *extra)}
    steps = [{"step": step, "reward": step, **parts} for step in (1, 2)]
    append_rows(folder / "metrics.jsonl", steps)
    page = open_page(as_file(tmp_path / "parts.html", folder))
    chart = page.locator(".chart-box").filter(has_text="Reward and its parts")
    curves = chart.locator("path.curve").all()
    looks = {curve.evaluate("path => getComputedStyle(path).stroke") for curve in curves}
    assert len(curves) == len(looks) == chart.locator(".legend li").count() == 8
    assert "2" in chart.locator("text.tick").all_text_contents()
    page.goto(page.url.split("#")[0] + "#/0/rows?phase=train")
    page.locator(".bar .fill").first.wait_for(state="attached")
    widths = page.locator(".bar .fill").evaluate_all("all => all.map((e) => e.style.width)")
    assert sorted(widths) == ["100%", "50%"]
    page.locator("table.rows tbody a").nth(1).click()
    total = page.locator(".bars dd.total .fill")
    assert total.evaluate("fill => fill.style.width") == "50%"


def test_filters_count_what_python_counts(open_page: Callable[..., Any], run: Path, file: str):
    rows = read_rows(run / "trajectories.jsonl")
    page = open_page(f"{file}#/0/rows?phase=train")
    assert shown(page) == "32 of 112 trajectories"
    word = rows[0]["question"].split()[-1].rstrip("?").lower()
    page.get_by_label("Question or answer contains").fill(word)
    texts = [f"{r['question']}\n{r['answer'] or ''}".lower() for r in rows]
    assert shown(page).startswith(f"{sum(word in text for text in texts)} of")
    page.locator("table.rows tbody a").first.click()
    page.wait_for_selector(".transcript")
    page.go_back()
    page.get_by_role("button", name="Clear").click()
    assert shown(page) == "112 trajectories"
    page.get_by_label("Reward from").fill("0.9")
    page.keyboard.press("Enter")
    expected = sum((r["reward"]["total"] or 0) >= 0.9 for r in rows)
    assert shown(page).startswith(f"{expected} of")
    assert "reward=0.9%7E" in page.url or "reward=0.9~" in page.url
    page.reload()
    wait_until_shown(page)
    assert shown(page).startswith(f"{expected} of")
    page.get_by_label("Phase").select_option("after-greedy")
    assert shown(page) == "0 of 112 trajectories"
    page.go_back()
    assert shown(page).startswith(f"{expected} of")


def test_sorts_by_a_column_and_leaves_out_nothing(open_page: Callable[..., Any], file: str):
    page = open_page(f"{file}#/0/rows?phase=train")
    page.get_by_role("button", name="Reward", exact=True).click()
    rising = [float(text) for text in cells(page, 3)]
    assert rising == sorted(rising)
    page.get_by_role("button", name="Reward", exact=True).click()
    assert cells(page, 3)[0] >= cells(page, 3)[-1]
    header = page.locator("th", has_text="Reward")
    assert header.get_attribute("aria-sort") == "descending"
    assert "sort=-reward" in page.url


def test_one_trajectory_and_its_neighbours(open_page: Callable[..., Any], run: Path, file: str):
    rows = read_rows(run / "trajectories.jsonl")
    page = open_page(f"{file}#/0/rows?phase=train")
    page.locator("table.rows tbody a").first.click()
    page.wait_for_selector(".transcript")
    written = page.locator(".segment.by-model .foreign").all_inner_texts()
    stored = [s["text"].strip() for s in rows[0]["segments"] if s["author"] == "model"]
    assert [text.strip() for text in written] == stored
    inserted = page.locator(".segment.by-system")
    assert "Inserted, not trained" in inserted.first.inner_text()
    assert rows[0]["answers"][0] in page.locator(".gold").inner_text()
    assert f"{rows[0]['reward']['total']:.3f}" in page.locator(".bars").inner_text()
    assert page.locator(".plan-graph .node").count() == len(rows[0]["rounds"][0]["results"])
    page.keyboard.press("ArrowRight")
    page.get_by_text("2 of 32").wait_for()
    page.go_back()
    page.go_back()
    assert shown(page) == "32 of 112 trajectories"


def test_group_shows_every_completion_with_its_advantage(
    open_page: Callable[..., Any], run: Path, file: str
):
    rows = [r for r in read_rows(run / "trajectories.jsonl") if r["step"] == 1][:8]
    page = open_page(f"{file}#/0/rows?phase=train")
    page.locator("table.rows tbody a").first.click()
    page.get_by_role("link", name="Its group").click()
    page.wait_for_selector(".completions")
    assert page.get_by_role("link", name=re.compile("Completion ")).count() == 8
    rewards = [r["reward"]["total"] for r in rows]
    mean = sum(rewards) / 8
    best = page.locator(".completion").first
    assert f"{max(rewards):.3f}" in best.inner_text()
    assert f"reward {mean:.3g} ± {stdev(rewards):.3g}" in page.locator(".facts-line").inner_text()
    if max(rewards) > min(rewards):
        assert re.search(r"\+\d", best.locator(".signed-bar-row").inner_text())


def test_one_completion_has_no_deviation(open_page: Callable[..., Any], tmp_path: Path):
    folder = store_run(tmp_path / "run", [rollout(1, total=1.0)])
    page = open_page(f"{as_file(tmp_path / 'one.html', folder)}#/0/group/0")
    facts = page.locator(".facts-line").inner_text()
    assert "reward 1" in facts
    assert "±" not in facts


def test_comparison_flips_what_python_flips(
    open_page: Callable[..., Any], check_axe: Any, run: Path, file: str
):
    names = ("before-greedy", "after-greedy")
    sides = [
        [EvalResult.from_json(row) for row in read_rows(run / f"predictions/{name}.jsonl")]
        for name in names
    ]
    expected = compare(*sides)
    flipped = len(expected["gained"]) + len(expected["lost"])
    assert flipped
    page = open_page(f"{file}#/compare?a=0:before-greedy&b=0:after-greedy")
    changes = cells(page, 0)
    assert changes.count("▲ gained") == len(expected["gained"])
    assert changes.count("▼ lost") == len(expected["lost"])
    assert all(change[0] in "▲▼" for change in changes[:flipped])
    questions = {e["question"] for e in expected["gained"] + expected["lost"]}
    assert set(cells(page, 1)[:flipped]) == questions
    metric = expected["metrics"]["em"]
    row = page.locator("table.scores tr", has_text="Exact match").inner_text()
    for value in (metric["first"], metric["second"]):
        assert f"{value:.3f}" in row
    assert f"{metric['difference']:+.3f}".replace("-", "−") in row
    assert f"{metric['interval'][0]:+.3f}".replace("-", "−") in row
    page.locator("table.rows tbody a").first.click()
    page.wait_for_selector(".pair-side")
    assert page.locator(".pair-side").count() == 2
    check_axe(page)
    page.go_back()
    page.get_by_role("button", name="Swap A and B").click()
    assert cells(page, 0).count("▲ gained") == len(expected["lost"])


def test_two_runs_are_compared(open_page: Callable[..., Any], tmp_path: Path):
    scores = {"one": [1.0, 0.0, 0.0, 1.0, 1.0], "two": [0.0, 1.0, 1.0, 1.0]}
    folders = []
    for name, ems in scores.items():
        answers = [prediction(f"q{i}", em) for i, em in enumerate(ems)]
        folders.append(store_run(tmp_path / name, [rollout(1)], after_greedy=answers))
        append_rows(folders[-1] / "metrics.jsonl", [{"step": 1, "reward": 0.5}])
    page = open_page(as_file(tmp_path / "two.html", *folders))
    labels = [
        box.evaluate("e => e.selectedOptions[0].label") for box in page.locator("main select").all()
    ]
    assert labels == ["one · after-greedy", "two · after-greedy"]
    assert cells(page, 0) == ["▼ lost", "▲ gained", "▲ gained", "same"]
    assert "1 only in A" in page.locator(".compare-head").inner_text()
    assert page.get_by_role("slider", name="Reward in training").is_visible()
    page.get_by_role("button", name="Gained 2").click()
    assert cells(page, 0) == ["▲ gained", "▲ gained"]
    page.locator("table.rows tbody tr:not(.spacer)").first.locator("td").nth(2).click()
    page.get_by_text("1 of 2").wait_for()
    page.get_by_role("link", name="All questions").click()
    assert cells(page, 0) == ["▲ gained", "▲ gained"]
    page.locator("main select").first.select_option("0:train")
    page.get_by_text("1 of 1 questions").wait_for()


def test_pairs_and_figures_are_those_of_python(open_page: Callable[..., Any], tmp_path: Path):
    start = "x" * 1000
    first = [prediction(id) for id in ("a", "b", "c", "d", "d")]
    first.append(prediction("e", text=f"{start} one"))
    second = [prediction("a", references=["Milan"]), prediction("b", 0.0), prediction("c")]
    second += [prediction("d", 0.0), prediction("e", text=f"{start} two")]
    # An answer that never came is not part of the figures.
    second[2] |= {"failure": "refused", "em": 0.0}
    folder = store_run(tmp_path / "run", before_greedy=first, after_greedy=second)
    collection = Collection([folder])
    collection.refresh()
    (expected,) = collection.index()["comparisons"]
    page = open_page(as_file(tmp_path / "run.html", folder) + "#/compare")
    assert len(cells(page, 0)) == expected["n"] == 2
    left_out = page.locator(".left-out").inner_text()
    assert f"{expected['only_first']} only in A" in left_out
    assert f"{expected['only_second']} only in B" in left_out
    for name, label in (("em", "Exact match"), ("plan_valid", "Valid plans")):
        metric = expected["metrics"][name]
        for order in (("first", "second"), ("second", "first")):
            row = page.locator("table.scores tr", has_text=label).locator("td").all_inner_texts()
            assert row[:2] == [f"{metric[side]:.3f}" for side in order]
            assert row[-1] == str(metric["n"])
            page.get_by_role("button", name="Swap A and B").click()


def test_samples_of_a_question_are_one_pair(open_page: Callable[..., Any], tmp_path: Path):
    scores = {"a": (1.0, 1.0, 0.0), "b": (0.0, 0.0, 1.0)}
    rows = [prediction(q, ems[s], sample=s) for s in range(3) for q, ems in scores.items()]
    folders = [
        store_evaluation(tmp_path / "greedy", [prediction("a", 0.0), prediction("b", 0.0)]),
        store_evaluation(tmp_path / "sampled", rows),
    ]
    page = open_page(as_file(tmp_path / "two.html", *folders) + "#/compare")
    assert cells(page, 0) == ["▲ gained", "other score"]
    row = page.locator("table.scores tr", has_text="Exact match").locator("td").all_inner_texts()
    assert row[:2] == ["0.000", "0.500"] and row[-1] == "2"


def test_another_score_is_not_the_same(open_page: Callable[..., Any], tmp_path: Path):
    folders = [
        store_run(tmp_path / name, [rollout(1, "q1", total), rollout(1, "q2", 1.0)])
        for name, total in (("one", 0.5), ("two", 1.0))
    ]
    page = open_page(as_file(tmp_path / "two.html", *folders) + "#/compare?a=0:train&b=1:train")
    assert cells(page, 0) == ["other score", "same"]


def test_line_feeds_at_the_ends_are_left_out_in_no_time(
    open_page: Callable[..., Any], tmp_path: Path
):
    text = f"\n\nbegins{chr(10) * 300_000}ends\n"
    row = rollout(1, segments=[{"author": "model", "tokens": 3, "text": text}])
    folder = store_run(tmp_path / "lines", [row])
    page = open_page(f"{as_file(tmp_path / 'lines.html', folder)}#/0/row/0")
    assert page.locator(".segment .foreign").evaluate("e => e.textContent").startswith("begins\n")


@contextmanager
def served_in_two_halves(text: bytes, half: int, rest: Event) -> Iterator[str]:
    """Serve a page whose second half is sent when `rest` is set; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text[:half])
            self.wfile.flush()
            rest.wait(30)
            self.wfile.write(text[half:])

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_part_that_is_still_arriving_is_awaited(new_page: Callable[..., Any], tmp_path: Path):
    as_file(tmp_path / "run.html", store_run(tmp_path / "run", [rollout(1)]))
    text = (tmp_path / "run.html").read_bytes()
    half = text.index(b'id="rsearch-part-0-0">') + 200
    rest = Event()
    page = new_page()
    with served_in_two_halves(text, half, rest) as address:
        page.goto(f"{address}#/0/row/0", wait_until="commit")
        page.locator("#rsearch-part-0-0").wait_for(state="attached")
        page.wait_for_timeout(500)
        assert page.locator(".loading").count() == 1
        rest.set()
        page.locator(".transcript").wait_for()


def test_keyboard_alone(open_page: Callable[..., Any], file: str):
    page = open_page(f"{file}#/0/rows?phase=train")
    page.locator(".table-box").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    at = "document.activeElement.closest('tr').dataset.place"
    assert page.evaluate(at) == "31"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(at) == "1"
    page.keyboard.press("Enter")
    page.wait_for_selector(".transcript")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.go_back()
    assert page.evaluate(at) == "1"


@pytest.mark.parametrize("address", ["#/9/rows", "#/0/row/9999", "#/0/row/x", "#/nothing", "#main"])
def test_addresses_of_nothing_lead_back(open_page: Callable[..., Any], file: str, address: str):
    page = open_page(file + address)
    assert page.locator("main").inner_text()
    page.get_by_role("link", name="To the content").focus()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Trajectories", exact=True).click()
    assert shown(page) == "32 of 112 trajectories"


PAGES = ["#/0/overview", "#/0/rows", "#/0/row/20", "#/0/group/1", "#/compare"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(open_page: Callable[..., Any], check_axe: Any, file: str, scheme: str):
    page = open_page(file, color_scheme=scheme)
    for address in PAGES:
        page.goto(f"{file}{address}")
        wait_until_shown(page)
        check_axe(page)


def test_narrow(open_page: Callable[..., Any], check_axe: Any, fits_width: Any, file: str):
    page = open_page(file, viewport=PHONE)
    for address in PAGES:
        page.goto(f"{file}{address}")
        wait_until_shown(page)
        fits_width(page)
        check_axe(page)
    page.goto(f"{file}#/0/rows")
    page.get_by_text("Filters").click()
    page.get_by_label("Plan").select_option("valid")
    fits_width(page)


STRUCTURE = """() => {
    const odd = "iframe, object, embed, img, video, audio, template, math, base, animate, style, " +
        "script:not([type]), link, meta, [onload], [onerror], [style*=url]";
    const links = [...document.querySelectorAll("main a")].map((a) => a.getAttribute("href"));
    return { odd: document.querySelectorAll(odd).length, text: document.body.innerText,
        links: links.filter((link) => !link.startsWith("#/")), hit: window.hit ?? null };
}"""


def hostile_rollout(number: int, text: str) -> dict[str, Any]:
    """A rollout with the text in every place that holds text from outside."""
    results = [
        {"label": text[:50], "query": text, "source": text[:50], "passages": [text[:50]]}
        | {"expansion": [text], "cached": False, "error": text}
    ]
    segments = [{"author": a, "tokens": 3, "text": text} for a in ("model", "system")]
    rounds = [{"problems": [], "edges": [], "results": results}]
    rounds.append({"problems": [text] * 3, "edges": [], "results": []})
    texts = {"question": text, "answer": text, "answers": [text], "type": text}
    reward = rollout()["reward"] | {"extra": {text[:80]: 0.5}}
    row = rollout(1, f"q{number}", segments=segments, reward=reward)
    return row | texts | {"rounds": rounds}


def test_hostile_texts_stay_inert(open_page: Callable[..., Any], tmp_path: Path, fits_width: Any):
    assert len(set(HOSTILE)) >= 50
    rows = [hostile_rollout(number, text) for number, text in enumerate(HOSTILE)]
    answers = [prediction(f"p{i}", text=text, answer=text) for i, text in enumerate(HOSTILE)]
    folder = store_run(tmp_path / "hostile", rows, before_greedy=answers, after_greedy=answers)
    append_rows(folder / "metrics.jsonl", [{"step": 1, **{text: 0.5 for text in HOSTILE[:9]}}])
    page = open_page(as_file(tmp_path / "hostile.html", folder))
    page.get_by_role("slider").first.wait_for()
    known = page.evaluate(STRUCTURE)["odd"]

    def check_inert() -> None:
        now = page.evaluate(STRUCTURE)
        assert (now["odd"], now["links"], now["hit"]) == (known, [], None)
        assert [c for c in CONTROLS if c in now["text"]] == []
        fits_width(page)

    check_inert()
    for address in ("rows", "group/3"):
        page.evaluate(f"location.hash = '#/0/{address}'")
        page.locator(".table-box, .completions").wait_for()
        check_inert()
    page.evaluate("location.hash = '#/0/rows?phase=train'")
    page.locator("table.rows tbody a").first.click()
    for number in range(len(HOSTILE)):
        page.get_by_text(f"{number + 1} of {len(HOSTILE)}", exact=True).wait_for()
        page.locator(".transcript").wait_for()
        check_inert()
        page.keyboard.press("ArrowRight")
    page.evaluate("location.hash = '#/compare?a=0:before-greedy&b=0:after-greedy'")
    page.locator("table.rows tbody a").nth(3).click()
    page.locator(".pair-side").first.wait_for()
    check_inert()


def test_a_megabyte_is_bounded_and_can_be_shown(
    open_page: Callable[..., Any], tmp_path: Path, fits_width: Any
):
    huge = "<b>x</b> " * (1 << 17)
    folder = store_run(tmp_path / "huge", [hostile_rollout(1, huge)])
    page = open_page(f"{as_file(tmp_path / 'huge.html', folder)}#/0/row/0")
    more = page.get_by_role("button", name="Show all").first
    more.wait_for()
    assert page.evaluate("document.body.innerText.length") < 200_000
    more.click()
    length = "document.querySelector('main').textContent.length"
    deadline = time.monotonic() + 30
    while page.evaluate(length) < len(huge):
        assert time.monotonic() < deadline
    fits_width(page)


def test_run_folder_of_an_earlier_version(open_page: Callable[..., Any], tmp_path: Path):
    row = rollout()
    for name in ("type", "opening", "prompt_tokens"):
        del row[name]
    for segment in row["segments"]:
        del segment["tokens"]
    answer = prediction()
    for name in ("inserted", "type"):
        del answer[name]
    folder = store_run(tmp_path / "old", [row, row], before_greedy=[answer])
    file = as_file(tmp_path / "old.html", folder)
    page = open_page(file)
    assert "Training run" in page.locator(".facts-line").inner_text()
    for number in range(3):
        page.goto(f"{file}#/0/row/{number}")
        page.wait_for_selector(".transcript")
        assert "Rome" in page.locator(".outcome").inner_text()
    page.goto(f"{file}#/0/row/3")
    assert "no such page" in page.locator("main").inner_text()
