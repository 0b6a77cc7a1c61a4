"""Whatever a service sends is a valid value or a failed call: over 500 odd answers of each kind.

The clients are the real ones; what the servers send is the same in each run, byte for byte.
"""

from __future__ import annotations

import json
import math
import random
import re
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exa import API_KEY as EXA_KEY
from exa import ExaServer
from local_http import Answer, LocalServer, Raw, Received
from mutations import BOMB_BYTES, mutate
from openai_chat import ChatServer, Said
from typer.testing import CliRunner
from vllm_lora import PAGE, VllmServer

from rsearch_cli.app import app
from rsearch_cli.errors import EngineUnavailable, PublishError
from rsearch_cli.policy.endpoint import EndpointPolicy
from rsearch_cli.policy.generation import Context
from rsearch_cli.policy.loading import load_policy
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.publishing.upload import check_access
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.policy import RolloutConfig
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.judge import open_judge
from rsearch_cli.search.cache_entries import decode_passages
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.cache import AnswerCache, read_key
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import NodeResult, PlanNode, Question, SearchPlan

ANSWERS = 560
# Every tenth answer is a good one: the client must still take those.
CONTROL = 10
TOP_K = 2

FAST = (
    *(f"search.sources.{name}.type=exa" for name in ("General", "News", "Academy")),
    f"search.top_k={TOP_K}",
    "reward.answer=judge",
    "reward.judge.skip_exact_match=false",
    *(
        f"{service}.{setting}"
        for service in ("search.service", "reward.judge.service", "policy.endpoint.service")
        for setting in (
            *("retries=0", "requests_per_second=10000", "timeout_seconds=20"),
            *("breaker_failures=10000", "concurrency=8"),
        )
    ),
)


class Odd:
    """Sends odd answers where its server would send good ones, but for every tenth."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.random = random.Random(11)
        self.kinds: Counter[str] = Counter()
        self.odd = True

    def respond(self, request: Received) -> Answer:
        status, answer = super().respond(request)  # type: ignore[misc]
        if status != 200 or not self.odd or self.is_spared(json.dumps(request.body)):
            return status, answer
        kind, status, raw = mutate(answer, self.random)
        self.kinds[kind] += 1
        return status, raw

    def is_spared(self, body: str) -> bool:
        """Whether a request gets a good answer."""
        return "control" in body


class OddExa(Odd, ExaServer):
    """Exa."""


class OddChat(Odd, ChatServer):
    """A judge's or a policy's server; how it is asked, it is found out in peace."""

    def is_spared(self, body: str) -> bool:
        return not re.search(r"\bodd \d", body)


class OddStream(OddChat):
    """A policy's server whose stream holds odd events."""

    def split(self, request: Received, value: Any) -> list[str] | None:
        return None

    def respond(self, request: Received) -> Answer:
        status, answer = ChatServer.respond(self, request)
        if status != 200:
            return status, answer
        events = ChatServer.split(self, request, answer)
        if events is None:  # not asked for a stream
            return status, answer
        if not self.is_spared(json.dumps(request.body)):
            at = self.random.randrange(len(events) - 1)
            kind, status, raw = mutate(json.loads(events[at]), self.random)
            self.kinds[kind] += 1
            if status != 200 or "Content-Encoding" in raw.headers:
                return status, raw
            events[at] = raw.body.decode("latin-1")
        lines = "".join(f"data: {event}\n\n" for event in events)
        return 200, Raw(lines.encode("latin-1"), {"Content-Type": "text/event-stream"})


@pytest.fixture(autouse=True)
def bounded_memory(nano_policy: LocalPolicy) -> Iterator[None]:
    """No bomb is unpacked: the whole test, with its server, stays far below what one holds.

    The libraries of a policy, which take as much, are loaded before.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    assert (after - before) * unit < BOMB_BYTES / 2


def names() -> list[str]:
    return [f"{'control' if n % CONTROL == 0 else 'odd'} {n}" for n in range(ANSWERS)]


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.encode("utf-8") or True)


def check_results(server: OddExa, results: list[NodeResult]) -> Counter[str]:
    """Check that every search is a valid answer or has failed; how many of each there were."""
    ends: Counter[str] = Counter()
    for result in results:
        good = result.node.query.startswith("control")
        ends["control" if good else "failed" if result.error else "taken"] += 1
        assert not good or (result.error is None and len(result.passages) == TOP_K)
        assert len(result.passages) <= TOP_K
        assert EXA_KEY not in (result.error or "")
        for passage in result.passages:
            assert is_text(passage.id) and is_text(passage.title) and is_text(passage.text)
            assert passage.id.startswith(("http://", "https://"))
            assert passage.title.strip() or passage.text.strip()
            assert len(passage.title) <= 300 and len(passage.text) <= 1000
            assert type(passage.score) is float and math.isfinite(passage.score)
    return ends


def run_plans(recipe: Recipe, cache: Path) -> list[NodeResult]:
    sources = open_sources(recipe.search, list)
    plans = [SearchPlan((PlanNode("A", name, "General"),)) for name in names()]
    with (
        open_services(recipe, None, cache) as services,
        PlanExecutor(sources, recipe.search, services) as executor,
    ):
        return [results[0] for results in executor.execute(plans)]


def check_export(cache: Path, file: Path) -> int:
    """Check that a cache holds nothing that another one would not take; how many answers it has."""
    folder = ["--cache-dir", str(cache.parent)]
    exported = CliRunner().invoke(app, ["cache", "export", str(file), *folder])
    assert (exported.exit_code, exported.stderr) == (0, "")
    with AnswerCache(cache) as answers:
        stored = sum(stats.entries for stats in answers.stats().values())
    copy = ["--cache-dir", str(file.with_suffix(".copy"))]
    imported = CliRunner().invoke(app, ["cache", "import", str(file), *copy, "--json"])
    assert imported.exit_code == 0, imported.output
    assert json.loads(imported.stdout)["imported"] == stored
    return stored


def test_odd_answers_of_exa(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache" / "answers"
    with OddExa() as server:
        monkeypatch.setenv("EXA_API_KEY", EXA_KEY)
        monkeypatch.setenv("EXA_BASE_URL", server.url)
        recipe = load_recipe("quickstart", FAST).recipe
        results = run_plans(recipe, cache)
        ends = check_results(server, results)
        assert server.kinds.total() == ANSWERS - ANSWERS // CONTROL
        assert len(server.kinds) == 17 and min(server.kinds.values()) > 10, server.kinds
        assert ends["taken"] > 100 and ends["failed"] > 200, ends
        # What was taken is kept, and comes back as it was; what failed is asked for again.
        server.odd, sent = False, len(server.requests)
        again = run_plans(recipe, cache)
        assert len(server.requests) - sent == ends["failed"]
        for before, now in zip(results, again, strict=True):
            assert now.error is None
            assert now.cached == (before.error is None)
            assert not now.cached or now.passages == before.passages
    assert check_export(cache, tmp_path / "export.jsonl") == ANSWERS
    with AnswerCache(cache) as answers:
        for row in answers.export_rows():
            decode_passages(row["value"], read_key(str(row["key"]))["top_k"])
            assert 0.0 <= float(str(row["usd"])) <= 2.0
    said = capfd.readouterr().err
    assert "\x1b" not in said and "\u202e" not in said
    assert said.count("\n") <= 10


def test_odd_answers_of_a_judge(tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "answers"
    questions = [Question(name, f"What is {name}?", ("right",)) for name in names()]
    with OddChat() as server:
        server.grade = lambda body: '{"score": 0.25}'
        recipe = load_recipe(
            "quickstart", (*FAST, f"reward.judge.base_url={server.base_url}")
        ).recipe
        with open_services(recipe, None, cache) as services:
            judge = open_judge(recipe, services)
            assert judge is not None
            with judge:
                scores = judge.score_batch([(question, "an answer") for question in questions])
                assert judge.failed == scores.count(None)
        assert server.kinds.total() == ANSWERS - ANSWERS // CONTROL
        assert len(server.kinds) == 17
    good = [s for q, s in zip(questions, scores, strict=True) if q.id.startswith("control")]
    assert good == [0.25] * (ANSWERS // CONTROL)
    assert all(score is None or 0.0 <= score <= 1.0 for score in scores)
    assert scores.count(None) > 200
    # A changed byte can make another number of it, and nothing else can.
    assert sum(score not in (None, 0.25) for score in scores) < 5
    assert check_export(cache, tmp_path / "export.jsonl") == len(scores) - scores.count(None)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_odd_answers_of_a_policys_server(tmp_path: Path, streamed: bool) -> None:
    cache = tmp_path / "cache" / "answers"
    with (OddStream if streamed else OddChat)(formats=("text",)) as server:
        server.grade = lambda body: Said("<think> so </think>\n<answer> 42 </answer>")
        settings = (*FAST, f"policy.endpoint.url={server.base_url}", "policy.endpoint.model=m")
        recipe = load_recipe("quickstart", settings).recipe
        told: list[str] = []
        with open_services(recipe, None, cache) as services:
            policy = EndpointPolicy(recipe.policy, services)
            with policy:
                contexts = [
                    Context(policy.render([{"role": "user", "content": name}])) for name in names()
                ]
                generations = policy.generate(
                    contexts,
                    ["</search>", "</answer>"],
                    [64] * len(contexts),
                    on_text=told.append if streamed else None,
                )
        # A refusal may be answered by asking in another way, once.
        assert server.kinds.total() >= ANSWERS - ANSWERS // CONTROL
    failed = 0
    for name, generation in zip(names(), generations, strict=True):
        failed += generation.error is not None
        assert is_text(generation.text)
        assert generation.stop in ("tag", "eos", "length")
        assert (generation.usage or 0) <= 65
        if name.startswith("control"):
            assert (generation.error, generation.text) == (
                None,
                "<think> so </think>\n<answer> 42 </answer>",
            )
    assert failed > 100
    assert all(is_text(text) for text in told)
    kept = len(generations) - failed + 1  # with what was found out about the server
    assert check_export(cache, tmp_path / "export.jsonl") == kept


class OddVllm(Odd, VllmServer):
    """A vLLM server that writes the same few ids each time."""

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "text": "abc",
            "token_ids": [65, 66, 67],
            "logprobs": {"token_logprobs": [-0.5, -1.5, -2.5]},
            "stop_reason": None,
            "finish_reason": "length",
        }

    def respond(self, request: Received) -> Answer:
        if request.path != PAGE:
            return VllmServer.respond(self, request)
        return super().respond(request)


@pytest.mark.parametrize("scored", [False, True], ids=["ids", "log-probabilities"])
def test_odd_answers_of_a_vllm_server(quickstart: Recipe, scored: bool) -> None:
    written, failed = 0, 0
    with OddVllm(load_policy(quickstart.policy, seed=0)) as server:
        rollout = RolloutConfig(engine="vllm-server", vllm_url=server.url)
        policy = load_policy(quickstart.policy, 0, rollout)
        vocabulary = policy.model.get_input_embeddings().num_embeddings
        for _ in range(ANSWERS // (2 if scored else 1)):
            try:
                if scored:
                    pairs = policy.sample_log_probs([65], 4)
                    ids = tuple(i for i, _ in pairs)
                    assert all(math.isfinite(value) for _, value in pairs)
                else:
                    [generation] = policy.generate_ids([[65]], ["</search>"], [4])
                    ids = generation.token_ids
                    assert is_text(generation.text)
            except EngineUnavailable as error:
                failed += 1
                assert len(str(error)) < 1000
            else:
                written += 1
                assert len(ids) <= 4
                assert all(type(i) is int and 0 <= i < vocabulary for i in ids)
        assert server.kinds.total() == written + failed
    assert written > 50 and failed > 80


class OddHub(Odd, LocalServer):
    """The Hub, asked who is asking."""

    def respond(self, request: Received) -> Answer:
        while True:
            kind, status, raw = mutate({"name": "me", "type": "user", "orgs": []}, self.random)
            # The Hub's client unpacks what it gets; a bomb from the Hub itself is not survived.
            if kind != "a bomb":
                self.kinds[kind] += 1
                return status, raw


def test_odd_answers_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "t" * 34)
    ends: Counter[str] = Counter()
    with OddHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        for _ in range(ANSWERS):
            try:
                account = check_access("me/agent")
            except PublishError as error:
                ends["failed"] += 1
                assert "\n" not in str(error) and len(str(error)) < 3000
            else:
                ends[account] += 1
                assert re.fullmatch(r"[\w.-]+", account)
        assert server.kinds.total() >= ANSWERS  # the client repeats some by itself
    assert ends["me"] > 100 and ends["failed"] > 100
