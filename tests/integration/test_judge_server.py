"""The judge on the real openai client, against a server that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from faults import CHAOS, Fault, Faults
from local_http import Answer, Received
from openai_chat import API_KEY, ChatServer, Said, grade_by_text

from rsearch_cli.errors import AccessDenied, BudgetExceeded, JudgeError, OfflineMiss
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.composite import score_trajectories
from rsearch_cli.reward.judge import AnswerJudge
from rsearch_cli.reward.rubric import Mode
from rsearch_cli.services.runtime import JUDGE, Services
from rsearch_cli.types import Question, Segment, Trajectory

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

MakeJudge = Callable[..., AnswerJudge]

CAPITAL = Question(id="q", text="What is the capital of Australia?", answers=("Canberra",))
NO_SKIP = "reward.judge.skip_exact_match=false"


def spend(judge: AnswerJudge) -> Any:
    return judge._client.budget.snapshot().services[JUDGE]


# --- scores


@pytest.mark.parametrize("mode", get_args(Mode))
def test_answers_are_scored_in_order(
    make_judge: MakeJudge, chat_server: ChatServer, mode: Mode
) -> None:
    judge = make_judge(f"reward.judge.mode={mode}", NO_SKIP)
    answers = ["Canberra", "Sydney", None, "CANBERRA", " "]
    scores = judge.score_batch([(CAPITAL, answer) for answer in answers])
    assert scores == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert len(chat_server.requests) == 3
    assert (judge.judged, judge.failed, judge.last_failure) == (3, 0, None)


def test_several_references_go_in_one_call(make_judge: MakeJudge, chat_server: ChatServer) -> None:
    york = Question(id="q", text="Which city?", answers=("New York", "NYC", "Big Apple"))
    assert make_judge(NO_SKIP).score_batch([(york, "nyc")]) == [1.0]
    (prompt,) = chat_server.prompts
    assert '1. "New York"\n2. "NYC"\n3. "Big Apple"\n' in prompt


def test_an_exact_match_needs_no_call_unless_the_recipe_wants_one(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    assert make_judge().score_batch([(CAPITAL, "the Canberra!")]) == [1.0]
    assert chat_server.requests == []
    chat_server.grade = lambda body: '{"score": 0.5}'
    assert make_judge(NO_SKIP).score_batch([(CAPITAL, "the Canberra!")]) == [0.5]
    assert len(chat_server.requests) == 1


def test_the_same_options_in_another_order_need_no_call(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    choice = Question(id="q", text="Which? A) x B) y C) z", answers=("A and C",))
    judge = make_judge("reward.judge.mode=multi")
    chat_server.grade = lambda body: '{"items": ["A", "B"]}'
    assert judge.score_batch([(choice, "C, A"), (choice, "A or B")]) == [1.0, 0.5]
    assert len(chat_server.requests) == 1


# --- the request


def test_the_request_is_greedy_strict_and_carries_the_key(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    make_judge("reward.judge.model=my-judge", "reward.judge.max_output_tokens=33").score_batch(
        [(CAPITAL, "Sydney")]
    )
    (request,) = chat_server.requests
    body = request.body
    assert request.headers["authorization"] == f"Bearer {API_KEY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("my-judge", 0, 33)
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize(
    ("formats", "asked"),
    [
        (("json_schema", "json_object", "text"), ["json_schema"]),
        (("json_object", "text"), ["json_schema", "json_object"]),
        (("text",), ["json_schema", "json_object", None]),
    ],
)
def test_a_server_without_a_format_is_asked_the_next_way_and_that_is_kept(
    make_judge: MakeJudge,
    chat_server: ChatServer,
    formats: tuple[str, ...],
    asked: list[str | None],
) -> None:
    chat_server.formats = formats
    judge = make_judge("reward.judge.service.concurrency=1")
    answers = ["Sydney", "Perth", "Darwin"]
    assert judge.score_batch([(CAPITAL, a) for a in answers]) == [0.0, 0.0, 0.0]
    sent = [r.body.get("response_format", {}).get("type") for r in chat_server.requests]
    assert sent == [*asked, asked[-1], asked[-1]]
    assert spend(judge).usd == pytest.approx(chat_server.usd)


def test_calls_that_find_out_together_settle_on_one_format(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    chat_server.formats = ("text",)
    judge = make_judge()
    assert judge.score_batch([(CAPITAL, f"Sydney {i}") for i in range(40)]) == [0.0] * 40
    assert judge.failed == 0


def test_the_environment_names_the_server_where_the_recipe_does_not(
    make_judge: MakeJudge, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.base_url)
    judge = make_judge("reward.judge.base_url=null")
    assert judge.endpoint.url == chat_server.base_url
    assert judge.score_batch([(CAPITAL, "Sydney")]) == [0.0]


def test_a_server_of_ones_own_needs_no_key(
    make_judge: MakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with ChatServer(api_key=None) as server:
        judge = make_judge(f"reward.judge.base_url={server.base_url}")
        assert judge.score_batch([(CAPITAL, "Sydney")]) == [0.0]


def test_openais_own_server_is_not_asked_without_a_key(
    make_judge: MakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(AccessDenied, match=r"OPENAI_API_KEY is not set; get one at https://platfo"):
        make_judge("reward.judge.base_url=null")
    assert make_judge("reward.judge.base_url=null", "cache.mode=offline").endpoint.is_public


# --- the cache


def test_a_verdict_is_bought_once(make_judge: MakeJudge, chat_server: ChatServer) -> None:
    pairs = [(CAPITAL, "Sydney"), (CAPITAL, " Sydney."), (CAPITAL, "Syd\u200bney")]
    judge = make_judge()
    assert judge.score_batch(pairs) == judge.score_batch(pairs) == [0.0] * 3
    assert make_judge().score_batch(pairs) == [0.0] * 3  # with a budget of its own
    assert len(chat_server.requests) == 1
    assert (spend(judge).calls, spend(judge).hits) == (1, 5)
    assert spend(judge).saved_usd == pytest.approx(5 * chat_server.usd)


def test_judges_on_several_threads_share_a_call(
    judge_recipe: Callable[..., Recipe],
    open_services_of: Callable[[Recipe], Services],
    chat_server: ChatServer,
) -> None:
    chat_server.grade = lambda body: (threading.Event().wait(0.3), grade_by_text(body))[1]
    services = open_services_of(recipe := judge_recipe())
    judges = [AnswerJudge(recipe.reward.judge, services) for _ in range(4)]
    scores: list[float | None] = []

    def ask(judge: AnswerJudge) -> None:
        scores.extend(judge.score_batch([(CAPITAL, "Sydney"), (CAPITAL, "Perth")]))

    threads = [threading.Thread(target=ask, args=(judge,)) for judge in judges]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == [0.0] * 8
    assert chat_server.counts()["requests"] == 2


@pytest.mark.parametrize(
    "setting",
    ["reward.judge.model=other", "reward.judge.mode=discrete", "rsearch_cli.prompt", "url"],
)
def test_whatever_changes_a_verdict_is_in_its_key(
    make_judge: MakeJudge,
    chat_server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
) -> None:
    make_judge().score_batch([(CAPITAL, "Sydney")])
    if setting == "rsearch_cli.prompt":
        monkeypatch.setattr("rsearch_cli.reward.judge.PROMPT_VERSION", -1)
        other = make_judge()
    elif setting == "url":
        other = make_judge(
            f"reward.judge.base_url={chat_server.url.replace('127.0.0.1', 'localhost')}/v1"
        )
    else:
        other = make_judge(setting)
    other.score_batch([(CAPITAL, "Sydney")])
    assert len(chat_server.requests) == 2


@pytest.mark.parametrize(
    "other",
    [
        Question(id="q", text="What is the capital of Canada?", answers=("Canberra",)),
        Question(id="q", text=CAPITAL.text, answers=("Ottawa",)),
        Question(id="q", text=CAPITAL.text, answers=("Canberra", "Canberra city")),
    ],
)
def test_another_question_or_reference_is_another_verdict(
    make_judge: MakeJudge, chat_server: ChatServer, other: Question
) -> None:
    make_judge().score_batch([(CAPITAL, "Sydney"), (other, "Sydney")])
    assert len(chat_server.requests) == 2


def test_the_id_of_a_question_is_not_part_of_it(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    twin = Question(id="other", text=CAPITAL.text, answers=CAPITAL.answers)
    make_judge().score_batch([(CAPITAL, "Sydney"), (twin, "Sydney")])
    assert len(chat_server.requests) == 1


def test_offline_takes_what_is_there_and_names_what_is_not(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    make_judge().score_batch([(CAPITAL, "Sydney")])
    offline = make_judge("cache.mode=offline")
    assert offline.score_batch([(CAPITAL, "Sydney")]) == [0.0]
    with pytest.raises(OfflineMiss, match="What is the capital of Australia"):
        offline.score_batch([(CAPITAL, "Perth")])
    assert len(chat_server.requests) == 1


@pytest.mark.parametrize("value", ['{"score": 7}', "a verdict of no kind", 0.5, None, {"score": 1}])
def test_a_stored_entry_that_is_no_verdict_is_dropped_and_asked_for_again(
    make_judge: MakeJudge, chat_server: ChatServer, value: Any
) -> None:
    judge = make_judge()
    judge.score_batch([(CAPITAL, "Sydney")])
    cache = judge._client._cache
    (row,) = cache.export_rows()
    cache.import_rows([row | {"value": value}])
    assert judge.score_batch([(CAPITAL, "Sydney")]) == [0.0]
    (again,) = cache.export_rows()
    assert again["value"] == row["value"]
    assert (len(chat_server.requests), judge.failed) == (2, 0)


# --- failures


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "1.0",
        '{"score": 2}',
        '{"score": NaN}',
        '{"score": 1} {"score": 0}',
        'The verdict is {"score": 1}',
        Said('{"score": 1}', finish="length"),
    ],
)
def test_what_is_no_verdict_is_tried_again_and_then_unscored(
    make_judge: MakeJudge, chat_server: ChatServer, reply: str | Said
) -> None:
    chat_server.grade = lambda body: reply
    judge = make_judge("reward.judge.service.retries=2")
    assert judge.score_batch([(CAPITAL, "Sydney")]) == [None]
    assert len(chat_server.requests) == 3
    assert (judge.judged, judge.failed) == (1, 1)
    assert judge.last_failure.startswith("the judge's reply is not a verdict: ")
    chat_server.grade = grade_by_text  # nothing of it was stored
    assert judge.score_batch([(CAPITAL, "Sydney")]) == [0.0]


def test_replies_without_a_verdict_are_not_paid_for_again_and_again(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    chat_server.grade = lambda body: "no idea"
    judge = make_judge("reward.judge.service.retries=20")
    assert judge.score_batch([(CAPITAL, "Sydney")]) == [None]
    assert len(chat_server.requests) == 3


def test_a_request_that_is_refused_in_every_format_says_nothing_about_formats(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    chat_server.faults = Faults([Fault.BAD_REQUEST], first=3)
    judge = make_judge()
    assert judge.score_batch([(CAPITAL, "Sydney")]) == [None]
    assert judge.score_batch([(CAPITAL, "Sydney")]) == [0.0]
    sent = [r.body.get("response_format", {}).get("type") for r in chat_server.requests]
    assert sent == ["json_schema", "json_object", None, "json_schema"]


def test_one_failure_leaves_the_others_alone(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    chat_server.grade = lambda body: (
        "no idea" if "Perth" in json.dumps(body) else grade_by_text(body)
    )
    answers = ["Sydney", "Perth", "canberra", "Darwin"]
    scores = make_judge(NO_SKIP).score_batch([(CAPITAL, answer) for answer in answers])
    assert scores == [0.0, None, 1.0, 0.0]


@pytest.mark.parametrize("fault", CHAOS)
def test_what_may_pass_is_tried_again(
    make_judge: MakeJudge, chat_server: ChatServer, fault: Fault
) -> None:
    chat_server.faults = Faults([fault], first=2)
    # Attempts to spare: a busy machine may miss the short time-out by itself.
    grace = ("timeout_seconds=1", "retries=10") if fault is Fault.STALL else ("retries=2",)
    judge = make_judge(*(f"reward.judge.service.{setting}" for setting in grace))
    assert judge.score_batch([(CAPITAL, "canberra city")]) == [0.0]
    assert [r.fault for r in chat_server.requests[:3]] == [fault, fault, None]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.SERVER_ERROR, "answered 500 (fault 500) (tried 3 times)"),
        (Fault.RATE_LIMIT, "answered 429 (fault 429) (tried 3 times)"),
        (Fault.HTML, "(tried 3 times)"),
        (Fault.BAD_JSON, "sent no JSON"),
        (Fault.CUT, "no connection to the judge at"),
        (Fault.FORBIDDEN, "answered 403 (fault 403)"),
        (Fault.BAD_REQUEST, "answered 400 (fault 400)"),
    ],
)
def test_what_does_not_pass_leaves_the_answer_unscored(
    make_judge: MakeJudge, chat_server: ChatServer, fault: Fault, words: str
) -> None:
    chat_server.faults = Faults([fault])
    judge = make_judge()
    assert judge.score_batch([(CAPITAL, "Sydney")]) == [None]
    assert judge.failed == 1
    assert words in judge.last_failure
    assert "\n" not in judge.last_failure


def test_refusals_cost_nothing_and_cut_connections_are_counted_at_their_worst(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    chat_server.faults = Faults([Fault.RATE_LIMIT, Fault.SERVER_ERROR, Fault.FORBIDDEN])
    judge = make_judge()
    judge.score_batch([(CAPITAL, "Sydney")])
    assert spend(judge).usd == 0.0
    chat_server.faults = Faults([Fault.CUT])
    judge.score_batch([(CAPITAL, "Perth")])
    assert spend(judge).usd > chat_server.usd > 0.0


def test_a_server_that_is_not_there_costs_nothing(make_judge: MakeJudge) -> None:
    with ChatServer() as server:
        address = server.base_url
    judge = make_judge(f"reward.judge.base_url={address}")
    assert judge.score_batch([(CAPITAL, "Sydney")]) == [None]
    assert f"no connection to the judge at {address}" in judge.last_failure
    assert spend(judge).usd == 0.0


class Refusing(ChatServer):
    """A server that answers everything with one status, code and text."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(retry_after="0")
        self.answer = status, {"error": {"message": message, "code": code}}

    def respond(self, request: Received) -> Answer:
        return self.answer


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "invalid_api_key", "answered 401 (sorry): the key in OPENAI_API_KEY is refused"),
        (402, None, "answered 402 (sorry): the account of OPENAI_API_KEY is out of credit"),
        (429, "insufficient_quota", "the account of OPENAI_API_KEY is out of credit"),
    ],
)
def test_a_refused_key_or_account_stops_the_run_at_once(
    make_judge: MakeJudge, status: int, code: str | None, words: str
) -> None:
    with Refusing(status, "sorry", code) as server:
        judge = make_judge(
            f"reward.judge.base_url={server.base_url}", "reward.judge.service.concurrency=2"
        )
        with pytest.raises(AccessDenied) as refusal:
            judge.score_batch([(CAPITAL, f"Sydney {i}") for i in range(50)])
        assert words in str(refusal.value)
        assert len(server.requests) <= 2
        assert spend(judge).usd == 0.0


def test_a_key_that_is_missing_is_said_so(
    make_judge: MakeJudge, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(AccessDenied, match="the key in OPENAI_API_KEY is not set"):
        make_judge().score_batch([(CAPITAL, "Sydney")])


def test_an_unknown_model_stops_the_run_and_is_named(make_judge: MakeJudge) -> None:
    with Refusing(404, "The model `gpt-9` does not exist") as server:
        judge = make_judge(f"reward.judge.base_url={server.base_url}", "reward.judge.model=gpt-9")
        with pytest.raises(JudgeError, match=r"check reward.judge.model \('gpt-9'\) and the addr"):
            judge.score_batch([(CAPITAL, "Sydney")])
        assert len(server.requests) == 1


def test_a_404_after_good_answers_concerns_one_call_only(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    judge = make_judge()
    judge.score_batch([(CAPITAL, "Sydney")])
    chat_server.faults = Faults([Fault.NOT_FOUND], first=1)
    assert judge.score_batch([(CAPITAL, "Perth")]) == [None]
    assert judge.score_batch([(CAPITAL, "Perth")]) == [0.0]


def test_no_message_holds_the_key(make_judge: MakeJudge, capfd: pytest.CaptureFixture[str]) -> None:
    for status, kind in ((400, None), (401, AccessDenied), (500, None)):
        with Refusing(status, f"what is {API_KEY}? " * 3) as server:
            judge = make_judge(f"reward.judge.base_url={server.base_url}")
            if kind is None:
                judge.score_batch([(CAPITAL, "Sydney")])
                said = judge.last_failure
            else:
                with pytest.raises(kind) as refusal:
                    judge.score_batch([(CAPITAL, "Sydney")])
                said = str(refusal.value)
            assert "what is ***? what is ***?" in said
            assert API_KEY not in said
    assert API_KEY not in "".join(capfd.readouterr())


def test_credentials_in_the_address_work_and_stay_out_of_keys_and_messages(
    make_judge: MakeJudge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ChatServer(api_key=None, retry_after="0") as server:
        address = server.base_url.replace("://", "://someone:hunter2@")
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        judge = make_judge("reward.judge.base_url=null")
        assert judge.score_batch([(CAPITAL, "Sydney")]) == [0.0]
        sent = server.requests[0].headers["authorization"].removeprefix("Basic ")
        server.respond = lambda request: (400, {"error": {"message": f"{sent} or {address}"}})
        assert judge.score_batch([(CAPITAL, "Perth")]) == [None]
    assert (
        f"answered 400 (*** or {server.base_url.replace('://', '://***@')})" in judge.last_failure
    )
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"What is the capital of Australia" in stored
    assert not any(secret.encode() in stored for secret in ("hunter2", sent, API_KEY))


# --- money


def test_spend_is_what_the_server_counts(make_judge: MakeJudge, chat_server: ChatServer) -> None:
    judge = make_judge()
    judge.score_batch([(CAPITAL, f"Sydney {i}") for i in range(20)])
    assert chat_server.usd > 0.0
    assert spend(judge).usd == pytest.approx(chat_server.usd)
    assert (spend(judge).calls, spend(judge).failed) == (20, 0)


def test_a_server_that_does_not_count_is_paid_the_worst(
    make_judge: MakeJudge, chat_server: ChatServer
) -> None:
    chat_server.grade = lambda body: Said('{"score": 0}', usage=False)
    judge = make_judge()
    judge.score_batch([(CAPITAL, "Sydney")])
    assert spend(judge).usd > chat_server.usd


def test_the_budget_is_never_passed_with_many_calls_in_flight(
    chat_server: ChatServer, make_judge: MakeJudge
) -> None:
    judge = make_judge("budget.max_usd=0.01", "reward.judge.service.concurrency=32")
    with pytest.raises(
        BudgetExceeded, match=r"spent or in flight; to continue, raise budget\.max_usd"
    ):
        judge.score_batch([(CAPITAL, f"Sydney {i}") for i in range(400)])
    assert 0.005 < chat_server.usd <= 0.01
    assert spend(judge).usd == pytest.approx(chat_server.usd)
    bought = len(chat_server.requests)
    with pytest.raises(BudgetExceeded):
        judge.score_batch([(CAPITAL, f"Sydney {i}") for i in range(400)])
    assert chat_server.usd <= 0.01
    assert bought <= len(chat_server.requests) < 400


class Overcharging(ChatServer):
    """A server that counts, and bills, twenty times the tokens that there are."""

    def respond(self, request: Received) -> Answer:
        before = self.usd
        status, answer = super().respond(request)
        if status == 200:
            self.usd = before + 20 * (self.usd - before)
            answer["usage"] = {name: 20 * count for name, count in answer["usage"].items()}
        return status, answer


def test_the_budget_holds_when_more_tokens_are_billed_than_can_have_been_sent(
    make_judge: MakeJudge, capsys: pytest.CaptureFixture[str]
) -> None:
    with Overcharging(retry_after="0", latency=0.05) as server:
        judge = make_judge(f"reward.judge.base_url={server.base_url}", "budget.max_usd=0.05")
        with pytest.raises(BudgetExceeded):
            judge.score_batch([(CAPITAL, f"Sydney {i}") for i in range(400)])
        assert 0.025 < server.usd <= 0.05
        assert spend(judge).usd == pytest.approx(server.usd)
    assert "judge charged $0.00" in capsys.readouterr().err


@pytest.mark.parametrize("count", [-5, 10**400, 1.5, "12", None, [1], float("nan")])
def test_a_token_count_that_is_none_is_paid_the_worst(
    make_judge: MakeJudge, monkeypatch: pytest.MonkeyPatch, count: Any
) -> None:
    class Odd(ChatServer):
        def respond(self, request: Received) -> Answer:
            status, answer = super().respond(request)
            answer["usage"]["completion_tokens"] = count
            return status, answer

    with Odd() as server:
        judge = make_judge(f"reward.judge.base_url={server.base_url}")
        judge.score_batch([(CAPITAL, "Sydney")])
        assert server.usd < spend(judge).usd < 0.01


# --- the reward


def make_trajectory(answer: str | None) -> Trajectory:
    return Trajectory(
        question=CAPITAL,
        prompt_ids=(1,),
        opening="",
        segments=(Segment(f"<answer> {answer} </answer>", (2,), "model"),),
        rounds=(),
        answer=answer,
        stop="answer",
    )


def test_an_unscored_answer_leaves_its_row_unscored_and_the_others_whole(
    make_judge: MakeJudge, chat_server: ChatServer, judge_recipe: Callable[..., Recipe]
) -> None:
    chat_server.grade = lambda body: (
        "no idea" if "Perth" in json.dumps(body) else grade_by_text(body)
    )
    rows = [make_trajectory(answer) for answer in ("Canberra", "Perth", "Sydney", None)]
    parts = score_trajectories(rows, judge_recipe(), 100, make_judge())
    assert [p.answer for p in parts] == [1.0, None, 0.0, 0.0]
    assert [p.total is None for p in parts] == [False, True, False, False]


def test_a_recipe_with_a_judge_needs_one(judge_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(ValueError, match="no judge was opened"):
        score_trajectories([make_trajectory("x")], judge_recipe(), 0)


def test_chaos_ends_with_every_answer_right_or_unscored(
    make_judge: MakeJudge,
    open_services_of: Callable[[Recipe], Services],
    judge_recipe: Callable[..., Recipe],
) -> None:
    pairs = [
        (Question(id="q", text=f"Capital {i}?", answers=(f"Canberra {i}",)), f"{name} {i}")
        for i in range(50)
        for name in ("canberra", "Sydney")
    ]
    with ChatServer(faults=Faults(CHAOS, share=0.3), retry_after="0", stall_seconds=0.5) as server:
        judge = make_judge(NO_SKIP, f"reward.judge.base_url={server.base_url}")
        scores = judge.score_batch(pairs)
        assert server.faults.drawn.keys() == set(CHAOS)
    assert all(score in (None, right) for score, right in zip(scores, [1.0, 0.0] * 50, strict=True))
    assert scores.count(None) == judge.failed < 20
    stored = [row["value"] for row in open_services_of(judge_recipe()).cache.export_rows()]
    assert len(stored) == 100 - judge.failed
    assert set(stored) == {'{"score": 0.0}', '{"score": 1.0}'}
