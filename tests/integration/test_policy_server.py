"""A policy on a server: the real client against a local server that speaks OpenAI's chat API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from faults import Fault, Faults
from openai_chat import ChatServer, Said
from openai_policy import SETTINGS, write_as_agent
from quirks import QuirkyServer
from search_double import SearchDouble

from rsearch_cli.errors import AccessDenied, BudgetExceeded, PolicyError, RecipeValueError
from rsearch_cli.policy.endpoint import EndpointPolicy
from rsearch_cli.policy.generation import Context, Sampling
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.policy import EndpointConfig
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import POLICY, open_services
from rsearch_cli.types import NodeResult, Passage, Question

MESSAGES = [{"role": "user", "content": "What is the number of city 3?"}]
PRICES = (
    "policy.endpoint.usd_per_million_input_tokens=1000",
    "policy.endpoint.usd_per_million_output_tokens=1000",
)
VLLM = ("continue_final_message", "add_generation_prompt")


class Cities(SearchDouble):
    """A search layer that knows the number of city 3."""

    def execute(self, plans, on_result=None):
        passage = Passage("3", "City 3", "It has the number Nr 51.")
        return [tuple(NodeResult(n, passages=(passage,)) for n in p.nodes) for p in plans]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(write_as_agent, retry_after="0", extras=VLLM) as server:
        yield server


Open = Callable[..., EndpointPolicy]


@pytest.fixture
def open_policy(server: ChatServer, tmp_path: Path) -> Iterator[Open]:
    """Opens the policy with settings on top; several share the test's cache."""
    with ExitStack() as stack:

        def open_policy(*settings: str) -> EndpointPolicy:
            address = f"policy.endpoint.url={server.base_url}"
            plain = "policy.endpoint.results=user_turn"
            recipe = load_recipe("hotpot-offline", (*SETTINGS, plain, address, *settings)).recipe
            services = stack.enter_context(open_services(recipe, None, tmp_path / "answers"))
            policy = EndpointPolicy(recipe.policy, services)
            return stack.enter_context(policy)

        yield open_policy


def ask(policy: EndpointPolicy, count: int = 1, sampling: Sampling | None = None):
    context = Context(policy.render(MESSAGES))
    stops = ["</search>", "</answer>"]
    return policy.generate([context] * count, stops, [50] * count, sampling or Sampling())


def roll_out(policy: EndpointPolicy, *settings: str):
    recipe = load_recipe("hotpot-offline", (*SETTINGS, *settings)).recipe
    question = Question("c3", MESSAGES[0]["content"], ("Nr 51",))
    return Rollout(policy, Cities(), recipe).run([question], Sampling())[0]


def test_a_rollout_through_a_server_is_a_rollout(server, open_policy):
    trajectory = roll_out(open_policy())
    assert (trajectory.answer, trajectory.stop) == ("Nr 51", "answer")
    assert trajectory.transcript == (
        "<think> I look up city 3. </think>\n<search>\nNodes:\nA: number of city 3 (General)\n"
        "Edges:\n</search>\n<result>\nA: City 3: It has the number Nr 51.\n</result>\n"
        "<answer> Nr 51 </answer>"
    )
    first, second = (request.body for request in server.requests)
    assert (first["temperature"], first["stop"]) == (0, ["</search>", "</answer>"])
    assert second["stop"] == ["</answer>"]
    assert [m["role"] for m in second["messages"][-3:]] == ["user", "assistant", "user"]
    assert trajectory.error is None and trajectory.generation_seconds > 0


def test_limits_hold_in_the_tokens_that_the_server_counts(server, open_policy):
    trajectory = roll_out(open_policy())
    sent = [request.body["max_tokens"] for request in server.requests]
    written = trajectory.segments[0].tokens
    assert sent == [200, 200 - written]
    assert trajectory.generated_tokens == written + trajectory.segments[2].tokens


def test_a_server_that_can_goes_on_in_the_same_turn(server, open_policy):
    trajectory = roll_out(open_policy("policy.endpoint.results=same_turn"))
    assert trajectory.answer == "Nr 51"
    body = server.requests[-1].body
    assert body["messages"][-1]["role"] == "assistant"
    assert body["messages"][-1]["content"].startswith("<think>")
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False


def test_a_reply_that_never_comes_is_counted_and_not_scored(server, open_policy):
    server.faults = Faults([Fault.SERVER_ERROR])
    trajectory = roll_out(open_policy())
    assert trajectory.answer is None
    assert "the policy at" in trajectory.error
    assert "(tried 3 times)" in trajectory.error


def test_what_a_server_wrote_behind_a_stop_string_takes_nothing_from_the_limit(server, open_policy):
    def write_on(body):
        said = write_as_agent(body)
        tag = "</search>" if "<search>" in said.text else "</answer>"
        return Said(said.text + tag + " and on " * 400, finish="length")

    server.grade = write_on
    trajectory = roll_out(open_policy())
    assert (trajectory.answer, trajectory.stop) == ("Nr 51", "answer")
    assert trajectory.generated_tokens < 50


def test_a_server_that_counts_no_tokens_is_estimated(server, open_policy):
    server.grade = lambda body: Said("12345678", usage=False)
    assert [g.usage for g in ask(open_policy())] == [2]


def test_requests_go_out_at_once_and_no_more_than_allowed(server, open_policy):
    server._latency = 0.05
    policy = open_policy("policy.endpoint.service.concurrency=4")
    prompts = [
        Context(policy.render([{"role": "user", "content": f"What is the number of city {i}?"}]))
        for i in range(12)
    ]
    policy.generate(prompts, ["</search>"], [50] * 12)
    assert server.most_at_once == 4


@pytest.mark.parametrize(("days", "sent"), [(0, 2), (1, 1)])
def test_greedy_replies_are_kept_where_the_recipe_says_so(server, open_policy, days, sent):
    policy = open_policy(f"policy.endpoint.cache_days={days}")
    assert ask(policy) == ask(policy)
    assert len(server.requests) == sent


def test_samples_are_never_taken_for_each_other(server, open_policy):
    policy = open_policy("policy.endpoint.cache_days=1")
    ask(policy, 3, Sampling(temperature=0.7, top_p=0.9))
    assert len(server.requests) == 3
    assert server.requests[0].body["top_p"] == 0.9


def test_an_unknown_model_stops_the_run(server, open_policy):
    server.faults = Faults([Fault.NOT_FOUND])
    with pytest.raises(PolicyError, match=r"answered 404 .* check --endpoint-model"):
        ask(open_policy())


@pytest.mark.parametrize("key", ["x", "EMPTY"])
def test_a_short_key_leaves_messages_readable_and_is_hidden_as_a_word(
    server, open_policy, monkeypatch, key
):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    refusal = server.describe_error(400, f"the maximum is exceeded by {key}; eXEMPTYx")
    monkeypatch.setattr(server, "respond", lambda request: (400, refusal))
    assert "(the maximum is exceeded by ***; eXEMPTYx)" in roll_out(open_policy()).error


def test_a_refused_key_stops_the_run(open_policy, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    with pytest.raises(AccessDenied, match=r"the policy .* OPENAI_API_KEY is refused"):
        ask(open_policy())


def test_a_call_that_could_pass_the_budget_is_not_sent(server, open_policy):
    with pytest.raises(BudgetExceeded, match=r"budget.max_usd"):
        ask(open_policy(*PRICES, "budget.max_usd=0.01"))
    assert server.requests == []


def test_tokens_are_paid_at_the_recipes_price(server, open_policy):
    policy = open_policy(*PRICES)
    (written,) = ask(policy)
    sent = -(-len(MESSAGES[0]["content"]) // 4)
    paid = policy._client.budget.snapshot().services[POLICY].usd
    assert paid == pytest.approx((sent + written.usage) * 1000 / 1e6)


def test_openai_without_a_price_or_a_key_is_refused_before_anything_is_sent(
    open_policy, monkeypatch
):
    public = "policy.endpoint.url=https://api.openai.com/v1"
    with pytest.raises(RecipeValueError, match="usd_per_million_output_tokens is 0"):
        open_policy(public)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(AccessDenied, match=r"needs a key .* or name a server of your own with"):
        open_policy(public, *PRICES).check_key()


def test_a_served_model_answers_like_its_own_weights(quickstart, nano_policy, tmp_path):
    world = open_question_set(quickstart.questions, seed=0)
    questions = world.load("test", 6)

    def serve(body):
        """Greedy decoding of the nano model, which goes on with the assistant's own turn."""
        *messages, last = body["messages"]
        opened = last["content"] if last["role"] == "assistant" else ""
        prompt = nano_policy.render(messages if opened else body["messages"])
        context = [*prompt.token_ids, *nano_policy.encode(opened)]
        (written,) = nano_policy.generate_ids([context], body["stop"], [body["max_tokens"]])
        text = next((written.text.removesuffix(s) for s in body["stop"] if s in written.text), "")
        return Said(text or written.text, "length" if written.stop == "length" else "stop")

    with ExitStack() as stack:
        server = stack.enter_context(ChatServer(serve, extras=VLLM))
        policy = quickstart.policy.model_copy(
            update={"endpoint": EndpointConfig(url=server.base_url, results="same_turn")}
        )
        recipe = quickstart.model_copy(update={"policy": policy})
        services = stack.enter_context(open_services(recipe, None, tmp_path / "answers"))
        sources = open_sources(recipe.search, world.corpus, tmp_path / "index")
        executor = stack.enter_context(PlanExecutor(sources, recipe.search, services))
        remote = stack.enter_context(EndpointPolicy(policy, services))
        served = Rollout(remote, executor, recipe).run(questions, Sampling())
        own = Rollout(nano_policy, executor, recipe).run(questions, Sampling())
    assert [t.transcript for t in served] == [t.transcript for t in own]
    assert [t.rounds for t in served] != [()] * 6


def watch(policy: EndpointPolicy, *, open_thought: bool = False):
    """Ask as `ask` does, and note what is told on the way."""
    told: list[str] = []
    context = Context(policy.render(MESSAGES, open_thought=open_thought))
    stops = ["</search>", "</answer>"]
    (written,) = policy.generate([context], stops, [50], on_text=told.append)
    return written, told


def test_a_streamed_reply_is_the_reply(server, open_policy):
    policy = open_policy(*PRICES)
    (whole,) = ask(policy)
    first = policy._client.budget.snapshot().total.usd
    streamed, told = watch(policy)
    assert (streamed.text, streamed.stop, streamed.usage) == (whole.text, whole.stop, whole.usage)
    assert told[0] == "<think>" and streamed.text == told[-1] + "</search>"
    assert all(late.startswith(early) for early, late in pairwise(told))
    both = policy._client.budget.snapshot().total.usd
    assert both == pytest.approx(2 * first) and first > 0
    assert [r.body.get("stream") for r in server.requests] == [None, True]


def test_a_stream_that_breaks_off_is_asked_for_again(server, open_policy):
    server.faults = Faults([Fault.CUT], first=1)
    written, told = watch(open_policy())
    assert written.stop == "tag" and len(server.requests) == 2
    assert told.count("<think>") == 2  # the text begins anew


def test_a_stream_that_always_breaks_off_is_a_failure(server, open_policy):
    server.faults = Faults([Fault.CUT])
    written, _ = watch(open_policy("policy.endpoint.service.retries=1"))
    assert "broke off" in written.error
    assert "(tried 2 times)" in written.error


def test_what_a_server_streams_behind_a_stop_string_is_not_told(server, open_policy):
    server.grade = lambda body: "<answer> Nr 51 </answer> and more of it"
    written, told = watch(open_policy())
    assert written.text == told[-1] == "<answer> Nr 51 </answer>"


def test_half_a_surrogate_pair_is_a_mark_and_the_rollout_goes_on(server, open_policy):
    def write(body):
        said = write_as_agent(body)
        return Said(said.text.replace("I look", "I \ud83d look").replace("Nr 51", "Nr 51 \ude00"))

    server.grade = write
    trajectory = roll_out(open_policy())
    assert trajectory.answer == "Nr 51 \ufffd" and trajectory.error is None
    assert trajectory.transcript.startswith("<think> I \ufffd look up")
    assert "I \ufffd look up" in server.requests[1].body["messages"][-2]["content"]


def test_half_a_surrogate_pair_in_a_refusal_is_a_mark(server, open_policy, monkeypatch):
    refusal = server.describe_error(400, "not \ud83d")
    monkeypatch.setattr(server, "respond", lambda request: (400, refusal))
    assert "answered 400 (not \ufffd)" in roll_out(open_policy()).error


def test_a_pair_that_a_stream_cuts_in_two_is_whole_again(server, open_policy, monkeypatch):
    server.grade = lambda body: "<answer> 1 2 3 "

    def split(request, value):
        pieces = ChatServer.split(server, request, value)
        halves = {" 1": " \ud83d", " 2": "\ude00 \ude00", " 3": " \ud83d"}
        for plain, half in halves.items():
            pieces = [piece.replace(json.dumps(plain), json.dumps(half)) for piece in pieces]
        return [piece for piece in pieces if '"content": " "' not in piece]

    monkeypatch.setattr(server, "split", split)
    written, told = watch(open_policy())
    assert written.text == "<answer> \U0001f600 \ufffd \ufffd</answer>"
    assert told == [
        "<answer>",
        "<answer> ",
        "<answer> \U0001f600 \ufffd",
        "<answer> \U0001f600 \ufffd ",
    ]


def test_a_repeated_opening_is_not_told(server, open_policy):
    policy = open_policy()
    server.grade = lambda body: "<think> I know. </think>"
    written, told = watch(policy, open_thought=True)
    assert written.text == told[-1] == " I know. </think>"
    assert told[0] == " I"


def test_a_server_that_counts_no_streamed_tokens_is_estimated(server, open_policy):
    server.grade = lambda body: Said("<answer> Nr 51 ", usage=False)
    written, _ = watch(open_policy())
    assert (written.text, written.usage) == ("<answer> Nr 51 </answer>", 6)


@pytest.fixture
def vllm() -> Iterator[QuirkyServer]:
    """A server that looks like vLLM's and has a token for every character."""
    with QuirkyServer("wide-token", engine="vllm", grade=write_as_agent, retry_after="0") as server:
        yield server


def by_ids(vllm: QuirkyServer, open_policy: Open) -> EndpointPolicy:
    settings = (f"policy.endpoint.url={vllm.base_url}", "policy.endpoint.results=auto")
    return open_policy(*settings, "rollout.max_new_tokens=400")


def completions(vllm: QuirkyServer) -> list[dict]:
    return [r.body for r in vllm.requests if r.path == "/v1/completions"]


def text_of(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def test_vllm_continues_the_ids_that_it_wrote_and_those_of_the_results(vllm, open_policy):
    trajectory = roll_out(by_ids(vllm, open_policy), "rollout.max_new_tokens=400")
    assert (trajectory.answer, trajectory.opening) == ("Nr 51", "<think>\n")
    # The line break behind the tag was in the last token, as local weights would keep it.
    assert "Edges:\n</search>\n\n<result>\nA: City 3" in trajectory.transcript
    _, first, second = (text_of(body["prompt"]) for body in completions(vllm))
    assert first.endswith("What is the number of city 3?<|assistant|><think>\n")
    assert first + trajectory.transcript.removeprefix("<think>\n").split("<answer>")[0] == second


def test_limits_hold_in_vllms_own_tokens(vllm, open_policy):
    trajectory = roll_out(by_ids(vllm, open_policy), "rollout.max_new_tokens=400")
    prompt, plan, result, answer = trajectory.prompt_ids, *trajectory.segments[:3]
    _, first, second = completions(vllm)
    assert (len(prompt), len(plan.token_ids)) == (len(first["prompt"]), len(plan.text))
    assert (len(result.token_ids), len(answer.token_ids)) == (len(result.text), len(answer.text))
    assert second["max_tokens"] == 400 - len(plan.text)


def test_what_a_model_ships_does_not_change_how_it_is_sampled(vllm, open_policy):
    roll_out(by_ids(vllm, open_policy))
    for body in completions(vllm):
        assert (body["repetition_penalty"], body["top_k"], body["min_p"]) == (1.0, -1, 0.0)
        assert body["temperature"] == 0 and body["return_token_ids"] is True


def test_a_tokenizer_that_fails_is_asked_again_with_the_reply(vllm, open_policy):
    policy = by_ids(vllm, open_policy)
    policy.prepare()
    vllm.faults = Faults([Fault.SERVER_ERROR], first=1)
    trajectory = roll_out(policy)
    assert trajectory.answer == "Nr 51" and trajectory.error is None


def test_a_streamed_continuation_of_ids_is_the_continuation(vllm, open_policy):
    policy = by_ids(vllm, open_policy)
    (whole,) = ask(policy)
    streamed, told = watch(policy)
    assert (streamed.text, streamed.stop) == (whole.text, whole.stop)
    assert streamed.token_ids == whole.token_ids and whole.text.startswith(told[-1])
