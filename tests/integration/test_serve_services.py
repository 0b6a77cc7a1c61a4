"""`rsearch serve` with services outside: a budget, a search source that fails, a model server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from exa import API_KEY as EXA_KEY
from exa import USD_PER_SEARCH, ExaServer
from faults import Fault, Faults
from openai_chat import API_KEY, ChatServer
from openai_policy import SETTINGS, write_as_agent, write_files
from served_agent import SMALL_WORLD, ServedAgent, serve_agent

MODEL = "builtin:nano"


@pytest.fixture
def exa() -> Iterator[ExaServer]:
    with ExaServer(retry_after="0") as server:
        yield server


def chat(served: ServedAgent, question: str, **fields: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}], **fields}
    url = f"{served.url}/v1/chat/completions"
    return httpx.post(url, json=body, timeout=60, trust_env=False)


def test_a_budget_that_is_used_up_is_402_and_the_cache_still_answers(
    exa: ExaServer, tmp_path: Path
) -> None:
    settings = (
        "--set=search.sources.General.type=exa",
        f"--set=budget.max_usd={1.5 * USD_PER_SEARCH}",
        f"--cache-dir={tmp_path}",
    )
    keys = {"EXA_API_KEY": EXA_KEY, "EXA_BASE_URL": exa.url}
    first, second = "Who founded Nasvan Press?", "Who founded Vosbe Press?"
    with serve_agent(*settings, world=SMALL_WORLD, environment=keys) as served:
        paid = chat(served, first)
        assert paid.status_code == 200
        assert paid.json()["rsearch"]["usd"] == pytest.approx(USD_PER_SEARCH)
        refused = chat(served, second)
        assert refused.status_code == 402
        assert refused.json()["error"]["code"] == "budget_exceeded"
        streamed = chat(served, second, stream=True).text
        assert '"code": "budget_exceeded"' in streamed and "[DONE]" not in streamed
        again = chat(served, first)
        assert again.json()["choices"] == paid.json()["choices"]
        assert again.json()["rsearch"]["usd"] == 0
        assert served.metric('rsearch_spend_usd{service="exa"}') == USD_PER_SEARCH
        assert served.metric('rsearch_cache_hits_total{service="exa"}') >= 1
        assert served.metric("rsearch_budget_usd") == 1.5 * USD_PER_SEARCH
        assert EXA_KEY not in served.stderr
    assert len(exa.requests) == 1


@pytest.fixture
def agent_on_server(tmp_path: Path) -> Iterator[tuple[ServedAgent, ChatServer]]:
    """An agent whose policy is a model server, about five cities."""
    _, corpus = write_files(tmp_path, 5)
    words = [f"--set={s}" for s in (*SETTINGS, f"search.sources.General.corpus={corpus}")]
    with ChatServer(grade=write_as_agent) as server:
        endpoint = (f"--endpoint={server.base_url}", "--endpoint-model=agent")
        with serve_agent(
            "--recipe=hotpot-offline",
            *endpoint,
            model=None,
            world=words,
            environment={"OPENAI_API_KEY": API_KEY},
        ) as served:
            yield served, server


def test_an_agent_on_a_model_server(agent_on_server: tuple[ServedAgent, ChatServer]) -> None:
    served, server = agent_on_server
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0)
    (model,) = served.get("/v1/models")["data"]
    assert model["id"] == model["rsearch"]["name"] == "agent"
    assert server.base_url not in str(model)

    def ask(number: int) -> str | None:
        messages: list[Any] = [{"role": "user", "content": f"What is the number of city {number}?"}]
        chunks = client.chat.completions.create(model="agent", messages=messages, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, [1, 2, 3, 4] * 4))
    assert answers == [f"Nr {17 * number}" for number in [1, 2, 3, 4]] * 4
    server.faults = Faults([Fault.SERVER_ERROR])
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model="agent", messages=[{"role": "user", "content": "What is the number of city 3?"}]
        )
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_failed")
    assert server.base_url not in str(caught.value)
    assert "warning: a request failed" in served.stderr


def test_a_follow_up_is_asked_as_a_question_of_its_own() -> None:
    rewritten = "Where was Klisus Nasgal born?"
    asked: list[Any] = [
        {"role": "user", "content": "Who founded Nasvan Press?"},
        {"role": "assistant", "content": "Klisus Nasgal"},
        {"role": "user", "content": "Where was he born?"},
    ]
    with ChatServer(grade=lambda body: rewritten) as writer:
        settings = (
            "--set=dialogue.writer=endpoint",
            f"--set=dialogue.endpoint.url={writer.base_url}",
        )
        keys = {"OPENAI_API_KEY": API_KEY}
        with serve_agent(*settings, environment=keys) as served:
            client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0)
            create = client.chat.completions.create
            alone: Any = create(model=MODEL, messages=[{"role": "user", "content": rewritten}])
            reply: Any = create(model=MODEL, messages=asked)
            assert (reply.rsearch["question"], reply.rsearch["asked_as"]) == (
                "Where was he born?",
                rewritten,
            )
            assert reply.choices[0].message.content == alone.choices[0].message.content
            first = next(
                chunk.rsearch
                for chunk in create(model=MODEL, messages=asked, stream=True)
                if hasattr(chunk, "rsearch")
            )
            assert (first["type"], first["asked_as"]) == ("asked", rewritten)
            as_is: Any = create(
                model=MODEL, messages=asked, extra_body={"rsearch": {"follow_up": False}}
            )
            assert as_is.rsearch["asked_as"] is None
            assert len(writer.requests) == 1, "the second time it comes from the cache"


def test_without_a_writer_the_answer_says_that_the_conversation_was_not_read(
    served_agent: ServedAgent,
) -> None:
    earlier = {"role": "user", "content": "Who founded Nasvan Press?"}
    messages = [earlier, {"role": "user", "content": "Where was he born?"}]
    body = {"model": MODEL, "messages": messages, "rsearch": {"style": "paragraph"}}
    url = f"{served_agent.url}/v1/chat/completions"
    own = httpx.post(url, json=body, timeout=60, trust_env=False).json()["rsearch"]
    assert own["asked_as"] is None and own["note"]
    assert own["paragraph"]["note"] and not own["paragraph"]["sentences"]
