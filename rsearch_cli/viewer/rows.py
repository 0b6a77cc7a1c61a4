"""One stored row, a trajectory or a prediction, as entries of the columns and as a detail."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.terminal import finite, shorten
from rsearch_cli.viewer.fields import maybe_text, text, texts, whole
from rsearch_cli.viewer.privacy import without_paths
from rsearch_cli.viewer.schema import CELL_CHARS, TRAIN, Detail
from rsearch_cli.viewer.transcripts import (
    prediction_rounds,
    prediction_segments,
    trajectory_rounds,
    trajectory_segments,
)

DAMAGES = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What reading a row raises if its fields are not those of rsearch."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the recipe says about the rows.

    Attributes:
        rules: By which plans are read.
        judged: Whether a judge scored the answers of the training.
        mask_truncated: Whether rollouts that reached the token limit were excluded from the loss.
    """

    rules: ProtocolConfig
    judged: bool
    mask_truncated: bool


def as_cell(value: object) -> str | None:
    """Return a text as the table shows it; the detail has the whole."""
    known = maybe_text(value)
    return None if known is None else shorten(known, CELL_CHARS)


def trajectory_columns(row: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Return the columns of a row of `trajectories.jsonl`."""
    reward = row["reward"]
    results = [result for round_ in row.get("rounds") or () for result in round_["results"]]
    answer, total = finite(reward, "answer"), finite(reward, "total")
    plan = finite(reward, "plan")
    return {
        "phase": TRAIN,
        "step": whole(row["step"]),
        "id": text(row["question_id"]),
        "key": _question_key(row["question_id"], row["question"], texts(row["answers"])),
        "question": as_cell(row["question"]),
        "type": maybe_text(row.get("type")) or None,
        "said": as_cell(row["answer"]),
        "stop": maybe_text(row["stop"]),
        "reward": total,
        "answer": answer,
        "plan": plan,
        "format": finite(reward, "format"),
        "valid": None if plan is None else int(plan == 1.0),
        "judge": answer if context.judged else None,
        "searches": len(results),
        "failed": sum(result["error"] is not None for result in results),
        "unscored": int(total is None),
        "tokens": _tokens(row, "model"),
        "inserted": _tokens(row, "system"),
    }


def trajectory_detail(row: Mapping[str, Any], context: Context) -> Detail:
    """Return the detail of a row of `trajectories.jsonl`."""
    reward = row["reward"]
    scores = {name: finite(reward, name) for name in ("total", "answer", "plan", "format")}
    extra = {str(name): finite(reward["extra"], name) for name in reward.get("extra") or ()}
    return {
        "id": text(row["question_id"]),
        "question": text(row["question"]),
        "answers": texts(row["answers"]),
        "segments": trajectory_segments(row),
        "trained": not (context.mask_truncated and row["stop"] == "length"),
        "rounds": [_without_paths(round_) for round_ in trajectory_rounds(row)],
        "answer": maybe_text(row["answer"]),
        "stop": maybe_text(row["stop"]),
        "reward": {**scores, "extra": extra},
        "judge": {"score": scores["answer"]} if context.judged else None,
        "failure": None,
    }


def prediction_columns(result: EvalResult, phase: str) -> dict[str, Any]:
    """Return the columns of a prediction."""
    searched = result.searches > 0
    answered = result.failure is None
    return {
        "phase": text(phase),
        "id": text(result.id),
        "key": _question_key(result.id, result.text, texts(result.references)),
        "question": as_cell(text(result.text)),
        "type": maybe_text(result.type) or None,
        "said": as_cell(result.answer),
        "plan": result.plan_valid if answered else None,
        "format": result.format_valid if answered else None,
        "valid": int(result.plan_valid == 1.0) if answered else None,
        "em": result.em if answered else None,
        "f1": result.f1 if answered else None,
        "judge": result.judge,
        "title_recall": result.title_recall,
        "searches": result.searches,
        "failed": result.failed_searches if searched else 0,
        "unscored": int(result.unscored or not answered),
        "tokens": result.completion_tokens,
        "seconds": result.seconds,
        "usd": result.usd,
        "sample": result.sample,
    }


def prediction_detail(result: EvalResult, context: Context) -> Detail:
    """Return the detail of a prediction."""
    segments = prediction_segments(result)
    rounds = prediction_rounds(segments, result.failed_searches, context.rules)
    return {
        "id": result.id,
        "question": result.text,
        "answers": texts(result.references),
        "segments": segments,
        "trained": False,
        "rounds": [_without_paths(round_) for round_ in rounds],
        "answer": result.answer,
        "stop": None,
        "reward": None,
        "judge": {"score": result.judge} if result.judged else None,
        "failure": without_paths(result.failure) if result.failure else None,
    }


def _question_key(id: str, question: str, answers: Sequence[str]) -> str:
    """Return the `key` of a row."""
    content = dump_json([id, question, answers]).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _without_paths(round_: dict[str, Any]) -> dict[str, Any]:
    """Remove local paths from the errors of a round."""
    for result in round_["results"]:
        if result["error"] is not None:
            result["error"] = without_paths(text(result["error"]))
    return round_


def _tokens(row: Mapping[str, Any], author: str) -> int | None:
    """Return the tokens of one author; None if the row does not count them."""
    counts = [whole(s.get("tokens")) for s in row["segments"] if s["author"] == author]
    total = sum(count for count in counts if count is not None)
    if None in counts:
        return None
    # A server that returns text only leaves no ids to count.
    written = any(s["text"] for s in row["segments"] if s["author"] == author)
    return None if written and not total else total
