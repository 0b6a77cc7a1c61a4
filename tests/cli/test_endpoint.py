"""Servers that are not OpenAI's, as a person meets them: `eval`, `infer` and a judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai_chat import API_KEY, ChatServer, grade_by_text
from openai_policy import SETTINGS, write_as_agent, write_files
from quirks import QuirkyServer
from typer.testing import CliRunner, Result

from rsearch_cli.app import app

CITIES = 5  # the first of them is looked up wrongly, and its answer has no tags
RIGHT = (CITIES - 1) / CITIES


@pytest.fixture
def serve() -> Iterator[Callable[..., QuirkyServer]]:
    """Starts a server with quirks."""
    with ExitStack() as stack:
        yield lambda *quirks, engine="": stack.enter_context(
            QuirkyServer(*quirks, engine=engine, grade=write_as_agent)
        )


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `rsearch COMMAND --endpoint SERVER` about cities."""
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    questions, corpus = write_files(tmp_path, CITIES)
    settings = (*SETTINGS, f"search.sources.General.corpus={corpus}")

    def call(command: str, server: QuirkyServer, *arguments: object) -> Result:
        asked = (questions,) if command == "eval" else ()
        words = [
            *(command, "--recipe", "hotpot-offline", "--endpoint", server.base_url),
            *("--endpoint-model", "agent", *(word for s in settings for word in ("--set", s))),
            *(word for path in asked for word in ("--data-path", path)),
            *arguments,
        ]
        return CliRunner().invoke(app, [*map(str, words)])

    return call


@pytest.fixture
def evaluate(call: Callable[..., Result], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Evaluates a server, and gives the figures of the agent."""

    def evaluate(server: QuirkyServer, *arguments: object) -> dict[str, Any]:
        result = call("eval", server, "--output-dir", tmp_path / "e", "--overwrite", *arguments)
        assert result.exit_code == 0, result.output
        evaluate.stderr = result.stderr
        return read(tmp_path / "e")["methods"]["rsearch"]

    return evaluate


def read(folder: Path, name: str = "results.json") -> Any:
    return json.loads((folder / name).read_text())


def refused(server: QuirkyServer) -> list[int]:
    """The statuses of the chat requests that were refused."""
    return [r.status for r in server.requests if "completions" in r.path and r.status != 200]


NO_OPENING = ("--set", "rollout.open_thought=false")
SAME_TURN = ("--set", "policy.endpoint.results=same_turn")


@pytest.mark.parametrize("settings", [(), NO_OPENING, SAME_TURN, NO_OPENING + SAME_TURN])
@pytest.mark.parametrize(
    "quirks",
    [
        ("reasoning_content",),
        ("reasoning",),
        ("reasoning_details",),
        ("thinking-parts",),
        ("content-parts",),
        ("both",),
        ("stop_reason", "swallowed"),
        ("headless",),
        ("finish:",),
        ("finish:eos",),
        ("finish:end_turn",),
        ("finish:stop_sequence", "reasoning"),
        ("finish:STOP", "headless"),
        ("stop_reason",),
        ("matched_stop", "finish:"),
        ("stop-kept",),
        ("stop-ignored",),
        ("stop-ignored", "finish:length"),
    ],
    ids=",".join,
)
def test_replies_in_the_forms_of_other_servers_are_read_alike(serve, evaluate, quirks, settings):
    figures = evaluate(serve(*quirks), *settings)
    assert (figures["em"], figures["plan_valid"], figures["format_valid"]) == (RIGHT, 1.0, RIGHT)
    assert figures["searches"] == CITIES and figures["format_problem"] is None


@pytest.mark.parametrize("settings", [(), NO_OPENING])
@pytest.mark.parametrize(
    "quirks",
    [
        (),
        ("reasoning_content",),
        ("reasoning",),
        ("reasoning_details",),
        ("thinking-parts",),
        ("headless",),
        ("finish:",),
        ("stop-ignored",),
        ("whole",),
        ("no-stream",),
        ("no-stream-options",),
        ("oseries", "no-system"),
    ],
    ids=",".join,
)
def test_infer_shows_thought_plan_and_answer(serve, call, quirks, settings):
    result = call("infer", serve(*quirks), "What is the number of city 3?", *settings)
    assert result.exit_code == 0, result.output
    shown = result.stdout.splitlines()
    assert shown[0].removeprefix("thinking  ") == "I look up city 3."
    assert "  A: number of city 3 (General)" in shown and "answer  Nr 51 [1]" in shown
    assert "starts over" not in result.stdout and "invented" not in result.stdout


@pytest.mark.parametrize(
    ("quirks", "sent", "refusals"),
    [
        (
            ("oseries",),
            "with max_completion_tokens for max_tokens; without temperature, so not greedily; "
            "without stop",
            3,
        ),
        (("no-system",), "with the system prompt inside the first user message", 1),
        (("no-system-500",), "with the system prompt inside the first user message", 1),
        (("o1-mini-system",), "with the system prompt inside the first user message", 1),
        (("positive-temperature",), "with temperature 0.01 for 0", 1),
        (("no-temperature-fastapi",), "without temperature, so not greedily", 1),
        (
            ("oseries", "no-system", "reasoning", "finish:"),
            "with max_completion_tokens for max_tokens; without temperature, so not greedily; "
            "without stop; with the system prompt inside the first user message",
            4,
        ),
    ],
)
def test_what_a_server_refuses_is_sent_another_way_from_then_on(
    serve, evaluate, tmp_path, quirks, sent, refusals
):
    server = serve(*quirks)
    figures = evaluate(server)
    assert (figures["em"], figures["format_valid"]) == (RIGHT, RIGHT)
    assert evaluate.stderr.count(f"from now on they are sent: {sent}\n") == 1
    assert len(refused(server)) == refusals
    assert read(tmp_path / "e", "evaluation.json")["policy"]["requests"] == sent
    assert f"requests {sent}" in (tmp_path / "e" / "report.md").read_text().replace("\\", "")


def test_a_reply_that_is_not_drawn_greedily_is_not_called_so(serve, call, tmp_path):
    told = call("eval", serve("oseries"), "--output-dir", tmp_path / "e")
    assert "decoding: sampled (the server refuses greedy), 32 questions at once" in told.stdout


def test_mistral_continues_a_turn_that_is_marked(serve, evaluate):
    figures = evaluate(serve("mistral", "echo"), *SAME_TURN)
    assert (figures["em"], figures["format_valid"]) == (RIGHT, RIGHT)


@pytest.mark.parametrize("quirk", ["unknown-model", "unknown-model-400"])
def test_an_unknown_model_is_one_line_with_the_names_there_are(serve, call, tmp_path, quirk):
    result = call("eval", serve(quirk, engine="other"), "--output-dir", tmp_path / "e")
    assert result.exit_code == 60
    line = result.stderr.splitlines()[-1]
    assert "check --endpoint-model ('agent') and the address; it has agent" in line
    assert "evaluating" not in result.stderr


def test_an_address_without_v1_is_one_line_that_says_what_may_be_missing(
    serve, call, tmp_path, monkeypatch
):
    server = serve()
    monkeypatch.setattr(QuirkyServer, "base_url", server.url)
    result = call("eval", server, "--output-dir", tmp_path / "e")
    assert result.exit_code == 60
    assert "and the address, which ends in /v1 for most servers" in result.stderr.splitlines()[-1]


def test_a_context_that_is_too_short_is_one_line_with_what_to_lower(serve, call, tmp_path):
    result = call("eval", serve("context"), "--output-dir", tmp_path / "e")
    assert result.exit_code == 60
    line = result.stderr.splitlines()[-1]
    assert "start it with a longer one, or lower rollout.max_new_tokens" in line
    assert "evaluating" not in result.stderr


def test_a_thinking_model_that_uses_up_the_tokens_of_the_first_request_is_no_refusal(
    serve, evaluate
):
    assert evaluate(serve("limit-reached"))["em"] == RIGHT


# --- where results go


@pytest.mark.parametrize(
    ("engine", "quirks", "path", "name"),
    [
        ("vllm", (), "/v1/completions", "vLLM 0.32.0"),
        ("llamacpp", (), "/v1/completions", "llama.cpp"),
        ("vllm", ("no-system",), "/v1/completions", "vLLM 0.32.0"),
        ("vllm", ("no-ids",), "/v1/chat/completions", "vLLM 0.32.0"),
        ("vllm", ("no-ids", "stop_reason", "swallowed"), "/v1/chat/completions", "vLLM 0.32.0"),
        ("sglang", ("matched_stop", "headless"), "/v1/chat/completions", "SGLang"),
        ("llamacpp", ("no-ids", "echo"), "/v1/chat/completions", "llama.cpp"),
    ],
)
def test_results_go_into_the_models_own_turn_where_the_server_continues_it(
    serve, evaluate, tmp_path, engine, quirks, path, name
):
    server = serve(*quirks, engine=engine)
    figures = evaluate(server)
    assert (figures["em"], figures["format_valid"]) == (RIGHT, RIGHT)
    told = f"policy.endpoint.results: same_turn, because {name} continues a turn\n"
    assert evaluate.stderr.count(told) == 1
    settled = read(tmp_path / "e", "evaluation.json")["policy"]
    assert settled["results"] == "same_turn" and settled["server"] == name.split()[0]
    assert "results same_turn" in read(tmp_path / "e")["context"]["policy"]
    last = [request for request in server.requests if "completions" in request.path][-1]
    assert last.path == path
    by_ids, messages = last.body.get("prompt"), last.body.get("messages")
    text = "".join(map(chr, by_ids)) if by_ids else messages[-1]["content"]
    assert "</search>\n<result>" in text and text.rstrip().endswith("</result>")


@pytest.mark.parametrize(
    ("engine", "quirks", "why"),
    [
        ("", (), "the server is none of vLLM, SGLang, llama.cpp"),
        ("library", (), "the server is none of vLLM, SGLang, llama.cpp"),
        ("vllm", ("guarded",), "the server is none of vLLM, SGLang, llama.cpp"),
        ("vllm", ("no-ids", "no-prefill"), "the server is vLLM 0.32.0, but it does not continue"),
        ("sglang", ("new-turn",), "the server is SGLang, but it begins a new turn instead of"),
        ("llamacpp", ("no-ids", "no-prefill"), "the server is llama.cpp, but it does not continue"),
    ],
)
def test_results_go_into_a_user_message_everywhere_else(
    serve, evaluate, tmp_path, engine, quirks, why
):
    server = serve(*quirks, engine=engine)
    figures = evaluate(server)
    assert (figures["em"], figures["format_valid"]) == (RIGHT, RIGHT)
    assert evaluate.stderr.count(f"policy.endpoint.results: user_turn, because {why}") == 1
    assert read(tmp_path / "e", "evaluation.json")["policy"]["results"] == "user_turn"
    assert server.requests[-1].body["messages"][-1]["role"] == "user"


def test_worked_examples_that_a_served_template_would_cut_stand_in_the_system_prompt(
    serve, evaluate
):
    server = serve("drop-thoughts", engine="vllm")
    figures = evaluate(server)
    assert (figures["em"], figures["format_valid"]) == (RIGHT, RIGHT)
    assert "cannot hold worked examples as earlier turns" in evaluate.stderr
    sent = [r.body["prompt"] for r in server.requests if r.path == "/v1/completions"][-1]
    system, question = "".join(map(chr, sent)).split("<|user|>")
    assert "Example:" in system and "<think> First the author" in system
    assert "<result>" in question  # the turn itself is whole
    assert evaluate(serve(engine="vllm"))["em"] == RIGHT
    assert "worked examples" not in evaluate.stderr


def test_a_turn_that_cannot_be_continued_although_the_recipe_says_so_is_one_line(
    serve, call, tmp_path
):
    result = call("eval", serve("no-prefill"), "--output-dir", tmp_path / "e", *SAME_TURN)
    assert result.exit_code == 60
    line = result.stderr.splitlines()[-1]
    assert "policy.endpoint.results is same_turn, but it does not continue the model's" in line
    assert line.endswith("set it to auto or user_turn")


def test_an_evaluation_is_not_continued_with_results_in_another_place(serve, call, tmp_path):
    server = serve(engine="vllm")
    arguments = ("--output-dir", tmp_path / "e", "--batch-size", 2)
    assert call("eval", server, *arguments).exit_code == 0
    rows = (tmp_path / "e" / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "e" / "predictions.jsonl").write_bytes(b"".join(rows[:2]))
    server.quirks, server.engine = ("no-prefill",), "library"
    result = call("eval", server, *arguments)
    assert result.exit_code == 70
    assert 'policy.server = "vLLM", now it is null' in result.stderr
    assert (tmp_path / "e" / "predictions.jsonl").read_bytes() == b"".join(rows[:2])
    server.quirks, server.engine = (), "vllm"
    assert call("eval", server, *arguments).exit_code == 0
    assert (tmp_path / "e" / "predictions.jsonl").read_bytes().count(b"\n") == CITIES


def test_a_finished_evaluation_is_told_again_without_its_server(serve, call, tmp_path):
    server = serve(engine="vllm")
    first = call("eval", server, "--output-dir", tmp_path / "e")
    server.stop()
    again = call("eval", server, "--output-dir", tmp_path / "e")
    assert again.exit_code == 0 and again.stdout == first.stdout


def test_a_replay_offline_needs_no_server(serve, call, tmp_path):
    server, keep = serve(engine="vllm"), ("--set", "policy.endpoint.cache_days=1")
    assert call("eval", server, "--output-dir", tmp_path / "a", *keep).exit_code == 0
    server.stop()
    offline = (*keep, "--set", "cache.mode=offline")
    result = call("eval", server, "--output-dir", tmp_path / "b", *offline)
    assert result.exit_code == 0, result.output
    figures = [read(tmp_path / name)["methods"]["rsearch"] for name in ("a", "b")]
    assert figures[0]["em"] == figures[1]["em"] == RIGHT


# --- an evaluation without a valid format


@pytest.mark.parametrize(
    ("quirks", "settings", "advice"),
    [
        (
            ("finish:length",),
            (),
            "raise rollout.max_new_tokens (now 200), or the server's own limit",
        ),
        (("null",), (), "raise rollout.max_new_tokens (now 200), or start the server without a"),
        (("empty",), (), "raise rollout.max_new_tokens (now 200), or start the server without a"),
        (("new-turn",), SAME_TURN, "try --set policy.endpoint.results=user_turn"),
    ],
)
def test_an_evaluation_without_a_valid_format_says_so_with_the_likely_setting(
    serve, evaluate, tmp_path, quirks, settings, advice
):
    figures = evaluate(serve(*quirks), *settings)
    assert figures["format_valid"] == 0.0 and advice in figures["format_problem"]
    warning = f"warning: rsearch: none of {CITIES} answers keeps the format"
    assert warning in evaluate.stderr and advice in evaluate.stderr
    assert advice in (tmp_path / "e" / "report.md").read_text().replace("\\", "")


# --- judges


@pytest.fixture
def judge(call, serve, tmp_path, monkeypatch) -> Callable[..., Result]:
    """Evaluates with a judge that has quirks, and writes replies in the way of `write`."""

    def judge(*quirks: str, write: Callable[[str], str] = str, engine: str = "") -> Result:
        def grade(body: dict[str, Any]) -> str:
            # A judge without a system role reads its rules in the user message.
            first, last = body["messages"][0]["content"], body["messages"][-1]["content"]
            asked = {
                **body,
                "messages": [{"role": "system", "content": first}, body["messages"][-1]],
            }
            asked["messages"][1] = {"role": "user", "content": last[last.index("The tag is") :]}
            return write(grade_by_text(asked))

        judge.server = serve(*quirks, engine=engine)
        judge.server.grade = grade
        monkeypatch.setenv("OPENAI_BASE_URL", judge.server.base_url)
        limits = ("requests_per_second=10000", "max_backoff_seconds=0", "retries=2")
        settings = [w for s in limits for w in ("--set", f"reward.judge.service.{s}")]
        settings += ["--set", "reward.judge.skip_exact_match=false"]
        return call("eval", serve(), "--judge", "--output-dir", tmp_path / "j", *settings)

    return judge


@pytest.mark.parametrize(
    ("quirks", "write"),
    [
        (("oseries",), str),
        (("no-system",), str),
        (("no-formats",), str),
        (("positive-temperature", "no-system-500"), str),
        (("oseries", "no-system", "no-formats"), "```json\n{}\n```".format),
        ((), "```json\n{}\n```".format),
        ((), "```\n{}```".format),
        ((), "<think>\nThey are the same.\n</think>\n\n{}".format),
        ((), "They are the same.\n</think>\n\n```json\n{}\n```".format),
        ((), "```json\n<think>\nThey are the same.\n</think>\n\n{}\n```".format),
        (("reasoning_content",), "<think>They are the same.</think>{}".format),
        (("swallowed",), str),
        (("content-parts", "finish:"), str),
    ],
)
def test_verdicts_of_other_judges_are_read(judge, tmp_path, quirks, write):
    result = judge(*quirks, write=write)
    assert result.exit_code == 0, result.output
    figures = read(tmp_path / "j")["methods"]["rsearch"]
    assert (figures["judge"], figures["unscored"]) == (RIGHT, 0)
    assert len(refused(judge.server)) <= 5


@pytest.mark.parametrize(
    ("quirks", "words"),
    [
        (("unknown-model",), "check reward.judge.model ('gpt-4o-mini') and the address; it has"),
        (("context",), "or lower reward.judge.max_output_tokens"),
        (("finish:length",), "it was cut off at reward.judge.max_output_tokens; raise that"),
    ],
)
def test_a_judge_that_cannot_judge_stops_the_evaluation_before_it_begins(judge, quirks, words):
    result = judge(*quirks, engine="other")
    assert result.exit_code == 50
    assert words in result.stderr.splitlines()[-1]
    assert "evaluating" not in result.stderr


def test_no_model_is_loaded_for_a_training_whose_judge_cannot_judge(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    with ChatServer(lambda body: "I like it.", retry_after="0") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        words = ["--recipe", "quickstart", "--output-dir", str(tmp_path / "run")]
        settings = ("reward.answer=judge", "reward.judge.service.max_backoff_seconds=0")
        words += [word for s in settings for word in ("--set", s)]
        result = CliRunner().invoke(app, ["train", *words])
    assert result.exit_code == 50
    assert "the judge's reply is not a verdict: it is not one JSON object" in result.stderr
    assert "loading" not in result.stderr
