"""The judge without its server: what needs no call, what a call may cost, who is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsearch_cli.errors import AccessDenied, JudgeError
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.services import JudgeConfig
from rsearch_cli.reward.judge import actual_usd, check_verdict, is_exact, open_judge, worst_usd
from rsearch_cli.reward.judge_client import JudgeClient
from rsearch_cli.reward.rubric import Mode, NotAVerdict, build_messages, clean_answer
from rsearch_cli.services.completion import Completion
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import Question


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.mark.parametrize(
    ("mode", "references", "answer", "exact"),
    [
        ("continuous", ("Paris",), "paris", True),
        ("continuous", ("Rome", "The Paris"), "Paris!", True),
        ("discrete", ("Paris",), "Paris, France", False),
        ("continuous", ("The The",), "A", False),
        ("continuous", ("The The",), "The The", False),
        ("multi", ("A",), "A", True),
        ("multi", ("A",), "the", False),
        ("multi", ("A and C",), "C, A", True),
        ("multi", ("A and C",), "A", False),
        ("multi", ("A and C",), "A, B, C", False),
        ("multi", ("A and C", "B"), "(B)", True),
        ("multi", ("...",), "!", False),
    ],
)
def test_what_needs_no_verdict(
    mode: Mode, references: tuple[str, ...], answer: str, exact: bool
) -> None:
    assert is_exact(mode, Question(id="q", text="Which?", answers=references), answer) is exact


def test_a_verdict_that_was_cut_off_is_none() -> None:
    whole = Completion('{"score": 1}', "stop", None, None)
    check_verdict("continuous", ["Paris"], whole)
    cut = Completion('{"score": 1}', "length", None, None)
    with pytest.raises(NotAVerdict, match=r"cut off at reward\.judge\.max_output_tokens"):
        check_verdict("continuous", ["Paris"], cut)


# --- money


def test_a_call_costs_what_the_server_counted() -> None:
    judge = JudgeConfig(usd_per_million_input_tokens=2.0, usd_per_million_output_tokens=8.0)
    completion = Completion("", "stop", input_tokens=500, output_tokens=10)
    assert actual_usd(judge, [], completion) == pytest.approx(0.001 + 0.00008)


@pytest.mark.parametrize(("sent", "received"), [(None, 3), (3, None), (None, None)])
def test_what_is_not_counted_costs_the_worst(sent: int | None, received: int | None) -> None:
    messages = build_messages("continuous", "Who?", ["Ada"], "Ada")
    completion = Completion("", "stop", sent, received)
    assert (
        actual_usd(JudgeConfig(), messages, completion) == worst_usd(JudgeConfig(), messages) > 0.0
    )


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_tokenizer_makes_a_call_dearer_than_its_worst(question: str, answer: str) -> None:
    """One token a byte of what others wrote, three bytes a token for our own English."""
    judge = JudgeConfig()
    system, user = build_messages("continuous", question, ["Ada"], clean_answer(answer))
    tokens = len(user["content"].encode()) + len(system["content"].encode()) // 3
    dear = Completion("", "stop", tokens, judge.max_output_tokens)
    assert actual_usd(judge, [system, user], dear) < worst_usd(judge, [system, user])


def test_a_free_server_costs_nothing() -> None:
    judge = JudgeConfig(usd_per_million_input_tokens=0.0, usd_per_million_output_tokens=0.0)
    assert worst_usd(judge, build_messages("multi", "Who?", ["Ada"], "Ada")) == 0.0


# --- who is asked


@pytest.mark.parametrize(
    ("recipe", "environment", "url"),
    [
        (None, None, "https://api.openai.com/v1"),
        (None, "http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:9/v1", "http://127.0.0.1:8000/v1", "http://127.0.0.1:9/v1"),
        ("http://me:secret@127.0.0.1:9/v1", None, "http://127.0.0.1:9/v1"),
    ],
)
def test_the_address(
    monkeypatch: pytest.MonkeyPatch, recipe: str | None, environment: str | None, url: str
) -> None:
    if environment:
        monkeypatch.setenv("OPENAI_BASE_URL", environment)
    assert JudgeClient(JudgeConfig(base_url=recipe)).url == url


def test_an_address_in_the_environment_that_is_none_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:secret@[x")
    with pytest.raises(JudgeError) as caught:
        JudgeClient(JudgeConfig())
    assert str(caught.value) == (
        "OPENAI_BASE_URL is not an http address, got 'http://[x'; unset it to use "
        "https://api.openai.com/v1, or set reward.judge.base_url"
    )


@pytest.mark.parametrize("key", [None, "", "  "])
def test_openai_asks_for_a_key_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    recipe = load_recipe("quickstart", ("reward.answer=judge",)).recipe
    with open_services(recipe, None) as services, pytest.raises(AccessDenied) as refusal:
        open_judge(recipe, services)
    assert str(refusal.value) == (
        "the judge gpt-4o-mini at https://api.openai.com/v1 needs a key and OPENAI_API_KEY is not "
        "set; get one at https://platform.openai.com/api-keys, or set reward.judge.base_url to a "
        "server of your own"
    )


@pytest.mark.parametrize(
    "settings",
    [("cache.mode=offline",), ("reward.judge.base_url=http://127.0.0.1:9/v1",)],
    ids=["offline", "a server of one's own"],
)
def test_where_no_key_is_needed_none_is_asked_for(settings: tuple[str, ...]) -> None:
    recipe = load_recipe("quickstart", ("reward.answer=judge", *settings)).recipe
    with open_services(recipe, None) as services:
        judge = open_judge(recipe, services)
        assert judge is not None
        judge.close()


def test_a_lexical_recipe_has_no_judge() -> None:
    recipe = load_recipe("quickstart").recipe
    with open_services(recipe, None) as services:
        assert open_judge(recipe, services) is None
