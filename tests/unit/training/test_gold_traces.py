"""Plans and traces from supporting titles, over real searches in a corpus of a few passages."""

from __future__ import annotations

import pytest
from search_double import SearchDouble

from rsearch_cli.errors import DataEmpty, FailureShareExceeded
from rsearch_cli.protocol.plan import read_plan
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.runtime import Services
from rsearch_cli.training import sft_dataset
from rsearch_cli.training.gold_plans import write_plan
from rsearch_cli.training.gold_traces import write_gold_traces
from rsearch_cli.training.planned_traces import NoPlan
from rsearch_cli.training.traces import TraceStats
from rsearch_cli.types import NodeResult, Passage, Question

RULES = ProtocolConfig()
PASSAGES = [
    Passage("1", "Red Dust (1999 film)", "Red Dust is a film directed by Ivo Lindqvist."),
    Passage("2", "Ivo Lindqvist", "Ivo Lindqvist was born in Malmö."),
    Passage("3", "Red Dust (novel)", "A novel about iron."),
    Passage("4", "The Long Quay", "The Long Quay is a film directed by Ada Brandt."),
    Passage("5", "Ada Brandt", "Ada Brandt (born 1950) is a director."),
    Passage("6", "Malmö", "A city in Sweden."),
]


def ask(text: str, *titles: str, answers: tuple[str, ...] = ("Malmö",)) -> Question:
    return Question(text, text, answers, supporting_titles=titles)


BRIDGE = ask(
    "Where was the director of Red Dust (1999 film) born?", "Red Dust (1999 film)", "Ivo Lindqvist"
)


def plan_of(question: Question, rules: ProtocolConfig = RULES) -> tuple[list[str], set[str]]:
    plan = write_plan(question, rules)
    return [n.query for n in plan.nodes], {f"{parent}{child}" for parent, child in plan.edges}


@pytest.fixture
def executor(quickstart, tmp_path):
    search = quickstart.search.model_copy(update={"top_k": 2, "expand_dependents": "linked"})
    sources = open_sources(search, lambda: PASSAGES, tmp_path / "index")
    services = Services(quickstart, AnswerCache(tmp_path / "answers"), Budget())
    with PlanExecutor(sources, search, services) as executor:
        yield executor


@pytest.mark.parametrize(
    ("question", "queries", "edges"),
    [
        (BRIDGE, ["Red Dust (1999 film) director", "born"], {"AB"}),
        (
            ask("Where was Eva of Lund's father born?", "Eva of Lund", "Nils of Lund"),
            ["Eva of Lund father", "born"],
            {"AB"},
        ),
        (
            ask("Are Lund and “Malmö” in the same country?", "Malmö (city)", "Lund"),
            ["Malmö country", "Lund country"],
            set(),
        ),
        (
            ask(
                "Which film has the director who was born first, Red Dust or The Long Quay?",
                *("Red Dust (1999 film)", "The Long Quay", "Ivo Lindqvist", "Ada Brandt"),
            ),
            ["Red Dust film director", "The Long Quay film director", "born", "born"],
            {"AC", "BD"},
        ),
        (
            ask("What is the capital of the country of the author of Ems?", "Ems", "Ida", "Peru"),
            ["Ems author", "country", "capital"],
            {"AB", "BC"},
        ),
        (
            ask("Who married the stars of Red Dust and Ems?", "Red Dust", "Ems", "Ida Holm"),
            ["Red Dust married", "Ems married", "stars"],
            {"AC", "BC"},
        ),
        (ask("Who directed Red Dust?", "Red Dust (novel)"), ["Red Dust directed"], set()),
        (ask("Who directed Red Dust?", "Red Dust", "X"), ["Red Dust directed", "directed"], {"AB"}),
    ],
)
def test_plans_ask_in_the_words_of_the_question(question, queries, edges):
    assert plan_of(question) == (queries, edges)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (ask("Where was Ada born?"), "of questions without supporting titles"),
        (ask("Where was Ada born?", "Red Dust"), "that name none of their supporting titles"),
        (ask("What is Red Dust?", "Red Dust"), "with no words beside the titles"),
    ],
)
def test_a_question_without_a_plan_says_why(question, reason):
    with pytest.raises(NoPlan, match=reason):
        write_plan(question, RULES)


def test_queries_are_cut_to_what_the_protocol_permits():
    rules = ProtocolConfig(max_query_words=4, sources={"Wiki": "all"})
    question = ask("Which old wooden sailing ships rescued Eva of Lund?", "Eva of Lund", "Vasa")
    assert plan_of(question, rules) == (["Eva of Lund rescued", "ships sailing wooden old"], {"AB"})
    assert {node.source for node in write_plan(question, rules).nodes} == {"Wiki"}


def test_no_title_is_given_away(executor, quickstart):
    traces, _ = write_gold_traces([BRIDGE], executor, quickstart)
    turn, block, answer = traces[0].segments
    assert "Lindqvist" not in turn.text and "Ivo Lindqvist" in block.text
    assert answer.text == "<answer> Malmö </answer>"
    assert turn.text.startswith("<think> I look up a first fact, then a second one. </think>")
    written = turn.text.split("<search>")[1].removesuffix("</search>")
    reading = read_plan(written, quickstart.protocol)
    assert reading.plan and not reading.repairs


def test_only_complete_results_are_learnt_from(executor, quickstart):
    missed = ask("Where was the director of Red Dust born?", "Red Dust (novel)", "Kalmar")
    nothing = ask("Where was Ada born?", "Elsewhere")
    traces, stats = write_gold_traces([missed, BRIDGE, nothing], executor, quickstart)
    assert [trace.question for trace in traces] == [BRIDGE]
    assert stats.taken == 1
    assert stats.rejected == {
        "without the evidence in the results": 1,
        "of questions that name none of their supporting titles": 1,
    }


def test_a_failed_search_is_no_missing_evidence(quickstart):
    class Broken(SearchDouble):
        def execute(self, plans, on_result=None):
            return [tuple(NodeResult(n, error="HTTP 500") for n in plan.nodes) for plan in plans]

    with pytest.raises(FailureShareExceeded, match=r"2 of 2 searches of the traces .* HTTP 500"):
        write_gold_traces([BRIDGE], Broken(), quickstart)
    budget = quickstart.budget.model_copy(update={"max_failed_share": 1.0})
    with pytest.raises(DataEmpty, match=r"0 of 1 traces accepted; rejected: 1 with a failed sea"):
        write_gold_traces([BRIDGE], Broken(), quickstart.model_copy(update={"budget": budget}))


def test_questions_without_titles_are_refused_in_one_line(executor, quickstart):
    with pytest.raises(DataEmpty) as caught:
        write_gold_traces([ask("Who?"), ask("What?")], executor, quickstart)
    assert str(caught.value) == (
        "sft.traces gold_titles: none of the 2 training questions has supporting titles "
        "('supporting_titles' or 'supporting_facts', see docs/data.md)"
    )


def test_without_a_reference_answer_a_trace_ends_after_the_results(executor, quickstart):
    question = ask(BRIDGE.text, *BRIDGE.supporting_titles, answers=())
    (trace,), _ = write_gold_traces([question], executor, quickstart)
    (whole,), _ = write_gold_traces([BRIDGE], executor, quickstart)
    assert trace.segments == whole.segments[:2]


def test_only_the_main_process_searches_and_all_train_on_its_traces(
    quickstart, executor, tmp_path, monkeypatch
):
    sft = quickstart.sft.model_copy(update={"traces": "gold_titles"})
    recipe = quickstart.model_copy(update={"stage": "sft", "sft": sft})
    traces, stats = write_gold_traces([BRIDGE], executor, recipe)
    monkeypatch.setattr(sft_dataset, "is_main", lambda: False)
    monkeypatch.setattr(sft_dataset, "gather", lambda own: [(traces, stats), own])
    monkeypatch.setattr(executor, "execute", lambda *_: pytest.fail("searched twice"))
    found = sft_dataset.build_sft_dataset(
        recipe, [BRIDGE], [], executor, None, RunFolder(tmp_path / "run"), resume=False, begin=list
    )
    assert (found.traces, found.stats) == (traces, TraceStats(1))
