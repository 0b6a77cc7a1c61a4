"""`rsearch infer` as a person calls it where there is no terminal: one question, or a pipe."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backend import BACKEND
from faults import Fault, Faults
from openai_chat import API_KEY, ChatServer
from openai_policy import SETTINGS, write_as_agent, write_files
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.commands.infer import infer

SMALL = [
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", f"policy.backend={BACKEND}",
]  # fmt: skip

RESULT_KEYS = {
    "question", "asked_as", "note", "thinking", "plans", "answer", "paragraph", "citations",
    "stop", "searches", "failed_searches", "failed_reads", "tokens", "seconds", "usd",
}  # fmt: skip


def call(*arguments: object, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["infer", *map(str, arguments)], input=typed)


@pytest.fixture(scope="module")
def question() -> str:
    """One that the nano model answers with a plan and an answer."""
    return "Where is Dresja Press based?"


@pytest.fixture(scope="module")
def told(question: str) -> dict[str, Any]:
    result = call(question, "--json")
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def test_the_example_of_the_help_works() -> None:
    (line,) = re.findall(r"Example: rsearch infer (.*)", inspect.getdoc(infer) or "")
    # As printed, so with the back end that `auto` takes, which a process keeps to itself.
    result = subprocess.run(
        [sys.executable, "-m", "rsearch_cli", "infer", *shlex.split(line)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "\nplan\n  A: " in result.stdout
    assert re.search(r"\nanswer  \S.* \[1\]\n  \[1\] Vosbe Press ", result.stdout)
    assert re.search(r"\n1 search, \d+ tokens, \d+\.\d s\n$", result.stdout)
    assert "\x1b" not in result.stdout
    *steps, back_end = result.stderr.splitlines()
    assert steps == ["opening the search sources", "loading builtin:nano"]
    assert re.fullmatch(r"back end: (unsloth|transformers) \S+ on \w+ \(.+\)", back_end)


def test_json_holds_all_of_it(told: dict[str, Any], question: str) -> None:
    assert set(told) == RESULT_KEYS
    assert (told["question"], told["stop"], told["failed_searches"]) == (question, "answer", 0)
    assert told["answer"] == "Hersul"
    (plan,) = told["plans"]
    assert plan["valid"] and set(plan["nodes"][0]) == {"label", "query", "source"}
    assert [r["node"] for r in plan["results"]] == [n["label"] for n in plan["nodes"]]
    assert told["searches"] == len(plan["results"]) and told["tokens"] > 20
    first = told["citations"][0]
    assert (first["number"], first["holds_answer"], first["url"]) == (1, True, None)
    assert first["id"] in [p["id"] for r in plan["results"] for p in r["passages"]]


def test_a_seed_draws_the_same_answer_again(question: str) -> None:
    def draw(seed: int) -> Any:
        result = call(question, "--json", *SMALL, "--temperature", "1.5", "--seed", seed)
        told = json.loads(result.stdout)
        return {key: told[key] for key in RESULT_KEYS - {"seconds"}}

    first = draw(1)
    # A passage that was searched for before is known the second time.
    again = draw(1)
    for told in (first, again):
        for plan in told["plans"]:
            for found in plan["results"]:
                del found["cached"]
    assert first == again
    assert first["thinking"] != draw(2)["thinking"] or first["tokens"] != draw(2)["tokens"]


def test_a_pipe_of_questions_is_a_session(question: str, tmp_path: Path) -> None:
    saved = tmp_path / "s.json"
    result = call(*SMALL, typed=f"{question}\n/trace\n/save {saved}\n/nothing\n/quit\nnever\n")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        "builtin:nano, searching General, News, Academy. Type a question"
    )
    assert "For example, ask: " in result.stdout.splitlines()[1]
    assert "\nmodel  │ <think>" in result.stdout and "\nsystem │ <result>" in result.stdout
    assert "unknown command /nothing; /help lists all commands\n" in result.stdout
    assert [row["question"] for row in json.loads(saved.read_text())] == [question]


def test_a_run_brings_its_recipe_and_its_adapter(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = ["--recipe", "quickstart", *SMALL, "--set", "train.batch_size=8"]
    train += ["--set", "evaluate.limit=2", "--set", "rollout.max_new_tokens=61"]
    train += ["--num-generations", "4", "--max-steps", "1", "--lr", "0.3"]
    trained = CliRunner().invoke(app, ["train", *train, "--output-dir", str(run)])
    assert trained.exit_code == 0, trained.output
    # At such a rate one step is enough to unlearn everything.
    result = call("Who wrote The Hedan Lantern?", "--model", run, "--json")
    assert result.exit_code == 0, result.output
    plain = call("Who wrote The Hedan Lantern?", *SMALL, "--json")
    told = json.loads(result.stdout)
    assert told["tokens"] <= 61
    assert told["thinking"] != json.loads(plain.stdout)["thinking"]


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(write_as_agent, retry_after="0") as server:
        yield server


@pytest.fixture
def ask_server(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Asks the scripted agent behind the server."""
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    _, corpus = write_files(tmp_path, 20)
    options = ["--recipe", "hotpot-offline", "--endpoint", server.base_url]
    for setting in (*SETTINGS, f"search.sources.General.corpus={corpus}"):
        options += ["--set", setting]
    yield lambda *arguments: call(*options, *arguments)
    server.grade, server.faults = write_as_agent, Faults()


def test_a_server_is_asked_in_place_of_weights(ask_server) -> None:
    result = ask_server("What is the number of city 3?", "--endpoint-model", "agent", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["answer"], told["searches"], told["usd"]) == ("Nr 51", 1, 0.0)
    assert told["thinking"] == ["I look up city 3."]
    assert told["citations"][0]["title"] == "City 3"


def test_watched_or_not_the_answer_is_the_same(ask_server) -> None:
    shown = ask_server("What is the number of city 4?")
    assert "thinking  I look up city 4.\nplan\n  A: number of city 4 (General)\n" in shown.stdout
    assert "answer  Nr 68 [1]\n  [1] City 4 (4)\n1 search, " in shown.stdout


def test_more_searches_are_allowed_by_turns(server, ask_server) -> None:
    def search_twice(body: dict[str, Any]) -> str:
        results = sum("<result>" in m["content"] for m in body["messages"] if m["role"] == "user")
        if results == 2:
            return "<answer> both </answer>"
        return f"<search>\nNodes:\nA: number of city {results} (General)\nEdges:\n</search>"

    server.grade = search_twice
    told = json.loads(ask_server("Which?", "--max-turns", "2", "--json").stdout)
    assert (len(told["plans"]), told["answer"]) == (2, "both")
    assert [c["title"] for c in told["citations"]] == ["City 0", "City 1"]


def test_a_plan_that_cannot_be_read_still_has_an_answer(server, ask_server) -> None:
    def gossip(body: dict[str, Any]) -> str:
        told = any("plan not valid" in m["content"] for m in body["messages"])
        return "<answer> unknown </answer>" if told else "<search>\nA: x (Gossip)\n</search>"

    server.grade = gossip
    told = json.loads(ask_server("Which?", "--json").stdout)
    (plan,) = told["plans"]
    assert (plan["valid"], plan["nodes"], plan["results"]) == (False, [], [])
    assert "Gossip" in plan["problems"][0] and told["answer"] == "unknown"


def test_a_server_that_fails_is_one_line_and_a_code(server, ask_server) -> None:
    server.faults = Faults([Fault.SERVER_ERROR])
    failed = ask_server("Which?", "--set", "policy.endpoint.service.retries=0")
    assert failed.exit_code == 43
    assert re.search(
        r"\nrsearch: the policy at http://127\S+ answered 500 \(.*\)\n$", failed.stderr
    )
    server.faults = Faults([Fault.UNAUTHORIZED])
    refused = ask_server("Which?")
    assert refused.exit_code == 41
    assert "the key in OPENAI_API_KEY is refused" in refused.stderr
    server.faults = Faults()
    broke = ask_server(
        "Which?", "--set", "budget.max_usd=0.0001",
        "--set", "policy.endpoint.usd_per_million_output_tokens=1000",
    )  # fmt: skip
    assert broke.exit_code == 80
    dead = ask_server(
        "Which?", "--endpoint", "http://127.0.0.1:9/v1",
        "--set", "policy.endpoint.service.retries=0",
    )  # fmt: skip
    assert dead.exit_code == 43
    assert "rsearch: no connection to the policy at http://127.0.0.1:9/v1" in dead.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--json"], 2, "--json needs a question"),
        (["  "], 2, "the question is empty"),
        (["Who?", "--temperature", "-1"], 2, "--temperature"),
        (["Who?", "--endpoint-model", "m"], 2, "names a model on a server; give --endpoint URL"),
        (
            ["Who?", "--endpoint", "localhost:8000"],
            13,
            "http URL such as http://localhost:8000",
        ),
        (["Who?", "--recipe", "quikstart"], 11, "quickstart"),
        (["Who?", "--set", "search.topk=3"], 12, "search.top_k"),
        (["Who?", "--max-turns", "9"], 13, "--max-turns: rollout.max_turns must be at most 8"),
        (["Who?", "--model", "{tmp}"], 60, "is not a run"),
        (["Who?", "--model", "./no-such-model"], 60, "the folder ./no-such-model does not exist"),
        (["Who? " * 3000, *SMALL], 60, "its prompt has"),
    ],
)
def test_bad_input_is_one_clear_line_with_a_code_of_its_own(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = call(*(a.replace("{tmp}", str(tmp_path)) for a in arguments))
    assert result.exit_code == code, result.output
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())
    assert "Traceback" not in result.output and result.stdout == ""


def test_a_dead_server_is_tried_once_more_and_no_longer(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    quick = ["--set", "policy.endpoint.service.max_backoff_seconds=0"]
    result = call("Who?", *SMALL, *quick, "--endpoint", "http://127.0.0.1:9/v1")
    assert result.exit_code == 43
    assert result.stderr.endswith("(All connection attempts failed) (tried 2 times)\n")


def test_a_model_that_the_recipe_tells_nothing_is_warned_of(server, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    server.grade = lambda body: "<answer> I was told nothing. </answer>"
    result = call("Who?", *SMALL, "--endpoint", server.base_url, "--endpoint-model", "other")
    server.grade = write_as_agent
    assert result.exit_code == 0, result.output
    assert "recipe quickstart does not tell the model how to search" in result.stderr
    assert "does not tell the model" not in call("Who?", *SMALL).stderr


def store_answer(folder: Path) -> Path:
    path = folder / "answer.json"
    plan = {
        "valid": True,
        "problems": [],
        "nodes": [{"label": "A", "query": "Ada born", "source": "General"}],
        "edges": [],
        "results": [{"node": "A", "expansion": [], "error": None, "cached": False, "passages": []}],
    }
    answer = {
        "question": "Where was Ada born?",
        "thinking": ["I look."],
        "plans": [plan],
        "answer": "London",
        "citations": [],
        "stop": "answer",
        "tokens": 30,
        "seconds": 1.5,
        "usd": 0.0,
    }
    path.write_text(json.dumps(answer), encoding="utf-8")
    return path


def test_a_stored_answer_is_shown_again_without_a_model(tmp_path: Path) -> None:
    """The answer is one that an earlier version wrote, without the fields of conversations."""
    code = (
        "import sys; from rsearch_cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "finally: assert not {'torch', 'transformers', 'mcp', 'openai'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", code, "infer", "--watch", str(store_answer(tmp_path))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "> Where was Ada born?\n"
        "thinking  I look.\n"
        "plan\n"
        "  A: Ada born (General)\n"
        "results\n"
        "  A: nothing found\n"
        "answer  London\n"
        "1 search, 30 tokens, 1.5 s\n"
    )


def test_watching_needs_a_file_and_nothing_else(tmp_path: Path) -> None:
    path = store_answer(tmp_path)
    assert call("Oslo", "--watch", path).exit_code == 21
    assert call("--watch", tmp_path / "none.json").exit_code == 21
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    result = call("--watch", bad)
    problem = f"{bad} is not JSON; the name of a file of lines ends in .jsonl"
    assert (result.exit_code, result.stderr) == (22, f"rsearch: {problem}\n")
    for option in (["--json"], ["--model", "m"], ["--set", "a=b"], ["--endpoint", "http://a/v1"]):
        result = call("--watch", path, *option)
        assert result.exit_code == 2 and "--watch replays what is stored" in result.stderr


def test_nothing_but_our_own_words_is_on_a_terminal(tmp_path: Path) -> None:
    """Where libraries would draw progress bars, with either back end."""
    pytest.importorskip("pty", reason="a pseudo-terminal: there is none on this system")
    from pty_terminal import CONTROL_D, Terminal

    command = [sys.executable, "-m", "rsearch_cli", "infer", *SMALL]
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    with Terminal(command, environment) as terminal:
        start = terminal.wait_for("builtin:nano, searching General")
        terminal.wait_for("\n>")
        terminal.type(CONTROL_D)
        assert terminal.wait_until_left() == 0
    *steps, back_end = start.splitlines()
    assert steps == ["opening the search sources", "loading builtin:nano"]
    assert re.fullmatch(rf"back end: {BACKEND} \S+ on \w+ \(.+\)", back_end)
