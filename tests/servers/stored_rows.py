"""Rows and folders of runs and evaluations, as rsearch stores them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rsearch_cli.runs.files import (
    ANSWERS,
    EVALUATION,
    RECIPE,
    SUMMARY,
    TRAJECTORIES,
    predictions_name,
)
from rsearch_cli.runs.jsonl import append_rows

RECIPE_TEXT = """\
output_dir: /home/ada/runs/one
policy: {model: /home/ada/models/seven-b, endpoint: {url: http://localhost:8000/v1}}
questions: {source: custom, path: ~/questions.jsonl}
reward: {answer: f1}
train: {num_generations: 2, scale_rewards: group}
"""
PLAN = "Nodes:\nA: Ada born (General)\nB: mayor (News)\nEdges:\nA -> B"
BLOCK = "\n<result>\nA: Ada: born in Rome.\nA: Rome is old.\nB: nothing found\n</result>\n"


def rollout(step: int = 1, question: str = "q1", total: float | None = 1.0, **changes: Any) -> dict:
    """A row of `trajectories.jsonl`."""
    first = f"<think> I look it up. </think>\n<search>\n{PLAN}\n</search>"
    node = {"expansion": [], "cached": True, "error": None}
    results = [
        {"label": "A", "query": "Ada born", "source": "General", "passages": ["p1", "p2"], **node},
        {"label": "B", "query": "mayor", "source": "News", "passages": [], **node},
    ]
    return {
        "step": step,
        "question_id": question,
        "question": f"Where was {question} born?",
        "type": "bridge",
        "answers": ["Rome"],
        "answer": "Rome",
        "reward": {"answer": total, "plan": 1.0, "format": 1.0, "total": total, "extra": {}},
        "stop": "answer",
        "prompt_tokens": 12,
        "segments": [
            {"author": "model", "tokens": 30, "text": first},
            {"author": "system", "tokens": 20, "text": BLOCK},
            {"author": "model", "tokens": 5, "text": "<answer> Rome </answer>"},
            {"author": "system", "tokens": 1, "text": ""},
        ],
        "opening": "",
        "rounds": [{"problems": [], "edges": [["A", "B"]], "results": results}],
        **changes,
    }


def prediction(id: str = "q1", em: float = 1.0, **changes: Any) -> dict:
    """A row of predictions."""
    head = f"<think> I look. </think>\n<search>\n{PLAN}\n</search>"
    transcript = f"{head}{BLOCK}<answer> Rome </answer>"
    return {
        "id": id,
        "text": f"Where was {id} born?",
        "references": ["Rome"],
        "answer": "Rome" if em else "Paris",
        "em": em,
        "f1": em,
        "plan_valid": 1.0,
        "format_valid": 1.0,
        "searches": 2,
        "completion_tokens": 35,
        "transcript": transcript,
        "inserted": [[len(head), len(head) + len(BLOCK)]],
        "type": "bridge",
        **changes,
    }


def store_run(folder: Path, rows: list[dict] | None = None, **phases: list[dict]) -> Path:
    """Write a run folder of rollouts and of predictions by phase (`after_greedy`)."""
    (folder / "predictions").mkdir(parents=True)
    (folder / RECIPE).write_text(RECIPE_TEXT, encoding="utf-8")
    if rows is not None:
        append_rows(folder / TRAJECTORIES, rows)
    for phase, answers in phases.items():
        append_rows(folder / predictions_name(*phase.split("_")), answers)
    if phases:
        (folder / SUMMARY).write_text(json.dumps({"model": "/home/ada/models/seven-b"}))
    return folder


def store_evaluation(folder: Path, rows: list[dict]) -> Path:
    """Write an evaluation folder."""
    folder.mkdir()
    (folder / EVALUATION).write_text('{"methods": ["rsearch", "direct"]}')
    append_rows(folder / ANSWERS, rows)
    return folder
