"""Supporting-title recall of the search layer alone: does the graph of a plan earn its keep?

Run it as `python benchmarks/title_recall.py` in a checkout where rsearch is installed; it takes
seconds. The questions are 60 real ones of HotpotQA (`../shared/data`, level hard), the corpus is
the 600 paragraphs that come with all of them, and a question counts where all titles of its
evidence are among the results.

`one query` searches for the question itself. `plan` carries out plans that were written by hand for
every third question (`title_recall_plans.json`), before their paragraphs were looked at and with no
name that the question does not give or that anyone would not know; they go through the real
executor, top-k 5 a node, with each setting of `search.expand_dependents`. Because a
plan of two nodes gets up to ten passages, `one query, as many passages` gives the question's own
query as many as its plan gets nodes times five.

`bridge` is the same for 160 questions over 6,119 Wikipedia paragraphs of 2WikiMultiHopQA
(`bridge_dev_*.jsonl`), with plans in the words of the questions. The last line on stdout is one
JSON object, which also goes to `results/title_recall.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsearch_cli.evaluation.intervals import wilson_interval
from rsearch_cli.protocol.plan import read_plan
from rsearch_cli.questions.contexts import collect_passages, require_paragraphs
from rsearch_cli.questions.fields import parse_question
from rsearch_cli.questions.rows import read_rows
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import NodeResult, Passage, PlanNode, Question, SearchPlan

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data" / "hotpotqa_distractor_hard_60.jsonl"
PLANS = HERE / "title_recall_plans.json"
RESULTS = HERE / "results" / "title_recall.json"
RECIPE = "hotpot-offline"
TOP_K = 5
MODES = ("linked", "entities", "titles", "none")

Results = Sequence[NodeResult]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="HotpotQA file of the questions.")
    data = parser.parse_args().data
    if not data.is_file():
        print(f"skipped: {data} is not here", file=sys.stderr)
        print(json.dumps({"skipped": f"{data.name} is not here"}))
        return
    report = measure(data) | {"bridge": measure_bridge(data.parent)}
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_table(report)
    print(json.dumps({key: value for key, value in report.items() if key != "questions"}))


def measure(data: Path) -> dict[str, Any]:
    rows = read_rows(data)
    questions = [parse_question(row) for row in rows]
    passages = list(collect_passages(require_paragraphs(rows)))
    plans = read_plans()
    planned = [question for question in questions if question.id in plans]
    found = {
        f"plan, expand_dependents={mode}": execute([plans[q.id] for q in planned], passages, mode)
        for mode in MODES
    }
    found["one query"] = ask(planned, passages, [1] * len(planned))
    nodes = [len(plans[q.id].nodes) for q in planned]
    found["one query, as many passages"] = ask(planned, passages, nodes)
    hits = {
        name: [is_complete(q, r) for q, r in zip(planned, results, strict=True)]
        for name, results in found.items()
    }
    asked = ask(questions, passages, [1] * len(questions))
    everything = [is_complete(q, r) for q, r in zip(questions, asked, strict=True)]
    return {
        "corpus_passages": len(passages),
        "top_k": TOP_K,
        "one_query_all": describe(everything),
        "planned": {name: describe(column) for name, column in hits.items()},
        "passages_per_question": {
            name: round(sum(map(count_passages, results)) / len(results), 2)
            for name, results in found.items()
        },
        "questions": {
            q.id: {name: column[i] for name, column in hits.items()} for i, q in enumerate(planned)
        },
    }


def measure_bridge(folder: Path) -> dict[str, Any] | None:
    """Measure the questions of two and more hops; None if they are not here."""
    bridge = read_bridge(folder)
    if bridge is None:
        return None
    passages, questions, plans = bridge
    found = {
        f"plan, expand_dependents={mode}": execute(plans, passages, mode)
        for mode in ("linked", "entities", "none")
    }
    found["one query"] = ask(questions, passages, [1] * len(questions))
    return {
        name: describe([is_complete(q, r) for q, r in zip(questions, results, strict=True)])
        for name, results in found.items()
    }


def read_bridge(folder: Path) -> tuple[list[Passage], list[Question], list[SearchPlan]] | None:
    """Read the corpus, the questions and their plans; None if they are not here."""
    corpus, asked = (folder / f"bridge_dev_{name}.jsonl" for name in ("corpus", "questions"))
    if not (corpus.is_file() and asked.is_file()):
        return None
    passages = [Passage(row["id"], row["title"], row["text"]) for row in read_lines(corpus)]
    rows = read_lines(asked)
    questions = [
        Question(str(n), row["question"], (), supporting_titles=tuple(row["gold_titles"]))
        for n, row in enumerate(rows)
    ]
    plans = [
        SearchPlan(
            tuple(PlanNode(label, query, "General") for label, query in row["nodes"]),
            tuple((parent, child) for parent, child in row["edges"]),
        )
        for row in rows
    ]
    return passages, questions, plans


def read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return list(map(json.loads, lines))


def read_plans() -> dict[str, SearchPlan]:
    """The plans by question id, read as those of a model are."""
    rules = load_recipe(RECIPE).recipe.protocol
    plans = {}
    for name, written in json.loads(PLANS.read_text(encoding="utf-8")).items():
        nodes = "\n".join(f"{node} (General)" for node in written["nodes"])
        edges = "\n".join(written["edges"])
        reading = read_plan(f"Nodes:\n{nodes}\nEdges:\n{edges}", rules)
        if reading.plan is None:
            raise SystemExit(f"{PLANS.name}, {name}: {'; '.join(reading.problems)}")
        plans[name] = reading.plan
    return plans


def ask(questions: list[Question], passages: list[Passage], nodes: Sequence[int]) -> list[Results]:
    """Search for questions in their own words, each with the passages of so many nodes."""
    found: dict[str, Results] = {}
    for count in set(nodes):
        group = [q for q, n in zip(questions, nodes, strict=True) if n == count]
        plans = [SearchPlan((PlanNode("A", q.text, "General"),)) for q in group]
        results = execute(plans, passages, "none", TOP_K * count)
        found |= {q.id: r for q, r in zip(group, results, strict=True)}
    return [found[question.id] for question in questions]


def execute(
    plans: list[SearchPlan],
    passages: list[Passage],
    mode: str,
    top_k: int = TOP_K,
    source: SourceConfig | None = None,
) -> list[Results]:
    """Execute plans as a run does, from an empty cache; BM25 unless a source is given."""
    settings = [f"search.expand_dependents={mode}", f"search.top_k={top_k}"]
    recipe = load_recipe(RECIPE, settings).recipe
    search = recipe.search
    if source is not None:
        search = search.model_copy(update={"sources": {"General": source}})
    with (
        tempfile.TemporaryDirectory() as cache,
        open_services(recipe, None, Path(cache)) as services,
        PlanExecutor(open_sources(search, lambda: passages), search, services) as executor,
    ):
        return list(executor.execute(plans))


def is_complete(question: Question, results: Results) -> bool:
    """Whether all titles of the evidence are among the results."""
    return set(question.supporting_titles) <= {p.title for r in results for p in r.passages}


def count_passages(results: Results) -> int:
    """Different passages that a question got."""
    return len({p.id for r in results for p in r.passages})


def describe(hits: list[bool]) -> dict[str, Any]:
    """Share of complete questions with its 95 % Wilson interval."""
    right, n = sum(hits), len(hits)
    interval = wilson_interval(right, n)
    bounds = [round(interval.low, 3), round(interval.high, 3)]
    return {"complete": right, "n": n, "share": round(right / n, 3), "interval": bounds}


def print_table(report: dict[str, Any]) -> None:
    print_row("one query, all questions", report["one_query_all"])
    for name, figures in report["planned"].items():
        print_row(name, figures)
    for name, figures in (report["bridge"] or {}).items():
        print_row(f"bridge: {name}", figures)


def print_row(name: str, figures: dict[str, Any]) -> None:
    low, high = figures["interval"]
    print(
        f"{name:<42} {figures['complete']:>3} of {figures['n']}  {figures['share']:.0%}  "
        f"[{low:.0%}, {high:.0%}]"
    )


if __name__ == "__main__":
    main()
