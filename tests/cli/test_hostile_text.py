"""Hostile text at every place that text comes from, and the raw bytes that every command writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.services.cache import AnswerCache, make_key

ATTACK = (
    "\x1b]0;owned\x07\x1b]8;;http://evil.example\x1b\\x\x9b31m[/] [bold]\u202eabc\u2066\u200b"
    "\u00ad\U000e0041\u2028y\r\u200eb"
)
# Nothing of this may come out. Where it stands in a file name, the system allows it too.
FORBIDDEN = "\x1b\x07\x9b\r\u202e\u2066\u200b\u00ad\U000e0041\u2028\u200e"
SMALL = [
    "policy.backend=transformers",
    "train.batch_size=4",
    "train.num_generations=2",
    "train.save_steps=1",
    "rollout.max_new_tokens=24",
    "evaluate.limit=2",
    "evaluate.show_trajectories=2",
    "evaluate.every_steps=1",
    "evaluate.slice=2",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose very name attacks, with questions, a corpus and a recipe that do so too."""
    folder = (
        tmp_path_factory.mktemp("hostile") / f"f{ATTACK.replace('/', '')}\nrsearch: all is well"
    )
    folder.mkdir()
    rows = [
        {
            "id": f"{n}{ATTACK}",
            "question": f"Who {n} {ATTACK}?",
            "answer": [f"a{n} {ATTACK}"],
            "type": f"type {ATTACK}\nrsearch: all is well",
            "level": f"level {ATTACK}",
            "split": split,
        }
        for n, split in enumerate(["train"] * 5 + ["validation"] * 3 + ["test"] * 3)
    ]
    rows += [{**rows[0], "id": f"again {ATTACK}"}, {**rows[0], "id": "leak", "split": "test"}]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    passages = [{"id": f"p{n} {ATTACK}", "title": f"Who {n} {ATTACK}", "text": f"Who {n} {ATTACK}"}
                for n in range(9)]  # fmt: skip
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in passages))
    sources = {name: {"corpus": str(folder / "c.jsonl")} for name in ("General", "News", "Academy")}
    recipe = {
        "extends": "quickstart",
        "purpose": f"p {ATTACK}",
        "questions": {"source": "custom", "path": str(folder / "q.jsonl"), "difficulty": None},
        "search": {"sources": sources},
    }
    (folder / "r.yaml").write_text(json.dumps(recipe))
    return folder


def check(text: str) -> None:
    found = sorted({character for character in text if character in FORBIDDEN})
    assert not found, f"{found} in {text[:2000]!r}"
    assert not any(0xD800 <= ord(character) < 0xE000 for character in text)
    lines = text.split("\n")
    assert not [line for line in lines if line.startswith("rsearch: all is well")]


def call(*arguments: str, code: int = 0, input: str | None = None) -> str:
    """Run a command in this process; what it wrote (of JSON, stdout), once it was checked."""
    result = CliRunner(env={"COLUMNS": "400"}).invoke(app, list(arguments), input=input)
    assert result.exit_code == code, result.output
    assert "unexpected" not in result.output
    out, err = (raw.decode("utf-8") for raw in (result.stdout_bytes, result.stderr_bytes))
    check(out)
    check(err)
    return out if "--json" in arguments else out + err


def recipe_options(place: Path) -> list[str]:
    return ["--recipe", str(place / "r.yaml"), *(p for s in SMALL for p in ("--set", s))]


def test_data_and_index(place: Path) -> None:
    out = place / "out.jsonl"
    custom = ["--source", "custom", "--path", str(place / "q.jsonl"), "--output", str(out)]
    for form in ([], ["--json"]):
        said = call("data", *custom, "--split", "train", *form)
        assert "type" in said
        call("index", str(place / "c.jsonl"), *form)
    assert json.loads(out.read_text().split("\n")[0])["id"].endswith(ATTACK), "data stays data"
    (place / "bad.jsonl").write_text(
        json.dumps({"question": f"q {ATTACK}", "answer": ATTACK, "id": {}})
    )
    call(
        "data",
        "--source",
        "custom",
        "--path",
        str(place / "bad.jsonl"),
        "--output",
        str(out),
        code=22,
    )
    call(
        "data",
        "--source",
        f"flashrag:{ATTACK}",
        "--output",
        str(out),
        "--path",
        str(place),
        code=21,
    )


def test_preview(place: Path) -> None:
    said = call("preview", *recipe_options(place))
    assert "TYPE" in said and " rollout " in said
    told = json.loads(call("preview", *recipe_options(place), "--json"))
    assert told["samples"][0]["type"].startswith(f"type {ATTACK}")


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    folder = place / f"run {ATTACK}"
    said = call("train", *recipe_options(place), "--max-steps", "1", "--output-dir", str(folder))
    assert "before training" in said and "run folder: " in said
    return folder


def test_train_and_what_it_leaves_in_the_folder(trained: Path) -> None:
    for path in trained.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml") and "checkpoint" not in str(path):
            text = path.read_text("utf-8")
            assert not set(text) & set(FORBIDDEN), path.name
    rows = [json.loads(line) for line in (trained / "trajectories.jsonl").read_text().splitlines()]
    assert ATTACK in rows[0]["question"]


def test_eval_and_compare(place: Path, trained: Path) -> None:
    folder = place / f"eval {ATTACK}"
    options = ["--output-dir", str(folder), "--method", "rsearch,direct"]
    call("eval", *recipe_options(place), "--model", str(trained), *options)
    call("eval", *recipe_options(place), "--model", str(trained), *options, "--json")
    check((folder / "report.md").read_text("utf-8"))
    call("eval", "compare", f"{folder}:rsearch", f"{folder}:direct")
    call("eval", "compare", str(folder), str(place), code=70)


def test_infer(place: Path) -> None:
    call("infer", *recipe_options(place), f"Who 1 {ATTACK}?")
    told = json.loads(call("infer", *recipe_options(place), f"Who 1 {ATTACK}?", "--json"))
    assert told["question"] == f"Who 1 {ATTACK}?"
    call("infer", "--model", str(place), "who?", code=60)


def test_push(place: Path, trained: Path) -> None:
    run = shutil.copytree(trained, place / "pushed")
    said = call(
        "push", str(run), "--hub-model-id", "me/agent", "--dry-run", "--base-model", "me/base"
    )
    assert "Question types with the lowest exact match" in said
    call("push", str(place), "--hub-model-id", "me/agent", code=97)


def test_cache(place: Path) -> None:
    folder = place / "cache"
    with AnswerCache(folder / "answers") as cache:
        cache.put(make_key(f"s {ATTACK}\nrsearch: all is well"), {"x": ATTACK})
    for form in ([], ["--json"]):
        call("cache", "stats", "--cache-dir", str(folder), *form)
        call("cache", "export", str(place / "e.jsonl"), "--cache-dir", str(folder), *form)
        call("cache", "import", str(place / "e.jsonl"), "--cache-dir", str(folder), *form)
    (place / "e.jsonl").write_text(json.dumps({"key": ATTACK}))
    call("cache", "import", str(place / "e.jsonl"), "--cache-dir", str(folder), code=22)


def test_recipes_and_errors(place: Path) -> None:
    call("recipes", "show", str(place / "r.yaml"))
    call("recipes", "show", str(place / "r.yaml"), "--json")
    call("recipes", "show", ATTACK, code=11)
    call("recipes", "show", str(place / "none.yaml"), code=11)
    call("recipes", "show", "quickstart", "--set", f"{ATTACK}=1", code=12)
    call("recipes", "show", "quickstart", "--set", f"train.max_steps={json.dumps(ATTACK)}", code=13)
    (place / "broken.yaml").write_text(f'a: "{ATTACK}\n', encoding="utf-8")
    call("recipes", "show", str(place / "broken.yaml"), code=10)
    (place / "keys.yaml").write_text(json.dumps({"purpose": 1, f"k {ATTACK}": {ATTACK: ATTACK}}))
    call("recipes", "show", str(place / "keys.yaml"), code=10)
    call("estimate", "--recipe", str(place / "none.yaml"), code=11)
    call("--debug", "recipes", "show", ATTACK, code=11)


@pytest.mark.parametrize(
    "arguments",
    [
        [ATTACK],
        [f"--{ATTACK}"],
        ["recipes", ATTACK],
        ["eval", "--method", ATTACK],
        ["eval", "--limit", ATTACK],
        ["data", "--source", "world", "--output", ATTACK],
        ["push", "x", "--what", ATTACK],
    ],
)
def test_usage_errors(arguments: list[str]) -> None:
    call(*arguments, code=2)


def test_a_split_that_does_not_exist() -> None:
    call("data", "--source", "world", "--output", "x.json", "--split", ATTACK, code=20)


@pytest.mark.parametrize(
    ("command", "last"),
    [(["preview"], "ended by"), (["train", "--max-steps", "1", "--output-dir"], "run folder: ")],
    ids=["preview", "train"],
)
def test_at_a_terminal_only_our_own_styles_come_out(
    place: Path, command: list[str], last: str
) -> None:
    pty = pytest.importorskip("pty_terminal")
    folder = [str(place / f"pty {ATTACK}")] if command[0] == "train" else []
    program = [sys.executable, "-m", "rsearch_cli", *command, *folder, *recipe_options(place)]
    with pty.Terminal(program, dict(os.environ), loaded=True) as terminal:
        assert terminal.wait_until_left(240) == 0
        terminal.wait_for(last)
    styles = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
    assert styles.search(terminal.raw), "there are styles"
    check(styles.sub("", terminal.raw.replace("\r\n", "\n")).replace("\r", ""))
    assert "owned" in terminal.text


def test_a_session(place: Path) -> None:
    entries = (f"Who 1 {ATTACK}?", "/sources", "/plan", "/trace", f"/save {ATTACK}", "/help", "/x")
    lines = "".join(entry.replace("\r", "") + "\n" for entry in entries)
    said = call("infer", *recipe_options(place), input=lines)
    assert "Type a question, /help or /quit." in said and "unknown command" in said


def test_the_error_of_a_bug_is_printable_too() -> None:
    script = f"""
import sys
from rsearch_cli import app
from rsearch_cli.recipe import loading
def fail():
    raise ZeroDivisionError({ATTACK!r})
loading.list_recipes = fail
sys.argv = ["rsearch", "recipes", *sys.argv[1:]]
app.main()
"""
    for debug in ([], ["--debug"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *debug],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1
        check(done.stderr.decode("utf-8"))
