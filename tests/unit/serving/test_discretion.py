"""Messages of services: whoever runs the agent reads them, clients of a server do not."""

from __future__ import annotations

import pytest

from rsearch_cli.dialogue.condense import condense
from rsearch_cli.dialogue.paragraph import write_paragraph
from rsearch_cli.errors import BudgetExceeded, SourceError
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import event_as_json
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.serving.discretion import without_search_errors
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.requests import AskRequest
from rsearch_cli.types import (
    NodeResult,
    PlanNode,
    Question,
    SearchPlan,
    SearchRound,
    Trajectory,
    Turn,
)

ADDRESS = "http://10.0.0.7:8000"


class Broken:
    """A writer whose server does not answer."""

    name, is_local = "a server", True

    def clean(self, text):
        return text

    def write(self, drafts, read):
        raise BudgetExceeded(f"{ADDRESS} costs too much")


@pytest.fixture
def broken(agent, monkeypatch):
    """The agent without sources and without a writer that work."""

    async def fetch(*call):
        raise SourceError(f"{ADDRESS} is down")

    monkeypatch.setattr(agent.executor, "_fetch", fetch)
    monkeypatch.setattr(
        agent, "condense", lambda history, question: condense(Broken(), history, question, 99, "")
    )
    # Without passages, there would be nothing to write.
    monkeypatch.setattr(type(agent), "writer_is_local", True)
    return agent


def ask(engine, question, told=None):
    history = (Turn("Who?", "Nobody"),)
    request = AskRequest(question, history)
    ticket = engine.submit(request, told.append if told is not None else None)
    return dump_json(ticket.future.result(60).as_json())


def test_clients_get_general_sentences_and_the_log_the_reasons_once(broken, questions, caplog):
    told = []
    with ServingEngine(broken) as engine:
        answer = ask(engine, questions[0], told)
        assert engine.counters.failed_searches > 0
    sent = answer + "".join(dump_json(event_as_json(event)) for event in told)
    assert ADDRESS not in sent
    assert sent.count("the search failed; the server's log says why") >= 2
    assert '"note": "asked as typed: rewriting the question failed"' in sent
    assert caplog.text.count(f"{ADDRESS} is down") == 1
    assert caplog.text.count(f"{ADDRESS} costs too much") == 1


def test_at_home_the_reasons_are_shown(broken, questions):
    with ServingEngine(broken, explain_all=True) as engine:
        answer = ask(engine, questions[0])
    assert f"{ADDRESS} is down" in answer and f"{ADDRESS} costs too much" in answer


def test_a_paragraph_that_was_not_written_has_a_general_note(agent, questions, monkeypatch, caplog):
    monkeypatch.setattr(
        agent, "write_paragraph", lambda answer: write_paragraph(Broken(), answer, "")
    )
    monkeypatch.setattr(type(agent), "writer_is_local", True)
    with ServingEngine(agent) as engine:
        request = AskRequest(questions[0], style="paragraph")
        answer = engine.submit(request).future.result(60)
    assert answer.paragraph.note == "no paragraph: writing it failed"
    assert caplog.text.count(ADDRESS) == 1


def test_why_a_page_was_not_read_stays_in_the_log(caplog):
    pages = (f"http://a.example/: a.example has the address {ADDRESS}",) * 2
    node = PlanNode("A", "x", "General")
    round_ = SearchRound(SearchPlan((node,)), (), (NodeResult(node, unread=pages),))
    trajectory = Trajectory(Question("q", "Who?", ()), (), "", (), (round_,), None, "eos")
    answer = AgentAnswer(trajectory, load_recipe("quickstart").recipe, 0.0, 0.0)
    with caplog.at_level("INFO", "rsearch_cli"):
        shown = without_search_errors(answer)
    assert ADDRESS not in dump_json(shown.as_json()) and "not read" in shown.as_markdown()
    assert shown.trajectory.failed_reads == 2 and "2 pages not read" in shown.cost
    assert caplog.text.count(ADDRESS) == 1
