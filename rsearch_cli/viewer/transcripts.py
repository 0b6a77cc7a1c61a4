"""The transcript and the searches of a stored row, as the page shows them.

Trajectories store the ids of the passages, predictions the transcript only. What the model was
shown is in the inserted blocks, from which the passages are taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.protocol.plan import read_plan
from rsearch_cli.protocol.transcript import SEARCH_CLOSE, last_plan_text
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.viewer.fields import maybe_text, text, texts, whole
from rsearch_cli.viewer.schema import Segment

_TAG_LINE = re.compile(r"\s*</?(?:result|r)>\s*")
_FAILED = re.compile(r"search failed \((.*)\)")
_NOTHING = "nothing found"


def trajectory_segments(row: Mapping[str, Any]) -> list[Segment]:
    """Return the transcript of a trajectory, with the opening that its prompt contains."""
    segments = [_segment(s["author"], s["text"], s.get("tokens")) for s in row["segments"]]
    if opening := row.get("opening"):
        segments.insert(0, _segment("model", opening, 0))
    return segments


def trajectory_rounds(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the searches of a trajectory, with the passages as the model was shown them."""
    blocks = [s["text"] for s in row["segments"] if s["author"] == "system" and s["text"].strip()]
    rounds: Sequence[Mapping[str, Any]] = row.get("rounds") or ()
    return [
        _stored_round(round_, block or "")
        for round_, block in zip_longest(rounds, blocks[: len(rounds)])
    ]


def prediction_segments(result: EvalResult) -> list[Segment]:
    """Split the transcript of a prediction where the system wrote."""
    segments, position, whole_text = [], 0, text(result.transcript)
    for start, end in (*result.inserted, (len(whole_text), len(whole_text))):
        start = max(start, position)
        pieces = (("model", whole_text[position:start]), ("system", whole_text[start:end]))
        segments += [_segment(author, piece, None) for author, piece in pieces if piece]
        position = max(start, end)
    return segments


def prediction_rounds(
    segments: Sequence[Segment], failed: int, rules: ProtocolConfig
) -> list[dict[str, Any]]:
    """Read the searches of a prediction from its transcript.

    Args:
        segments: The transcript.
        failed: How many searches failed; without any, no line means a failure.
        rules: By which plans are read.
    """
    rounds = []
    for segment, following in zip_longest(segments, segments[1:]):
        if segment["author"] != "model" or not segment["text"].rstrip().endswith(SEARCH_CLOSE):
            continue
        reading = read_plan(last_plan_text(segment["text"]) or "", rules)
        nodes = reading.plan.nodes if reading.plan else ()
        block = following["text"] if following else ""
        lines = _lines_by_label(block, [node.label for node in nodes])
        rounds.append(
            {
                "valid": reading.plan is not None,
                "problems": list(reading.problems),
                "nodes": [{"label": n.label, "query": n.query, "source": n.source} for n in nodes],
                "edges": [list(edge) for edge in (reading.plan.edges if reading.plan else ())],
                "results": [_shown_result(n.label, lines[n.label], failed > 0) for n in nodes],
            }
        )
    return rounds


def _stored_round(round_: Mapping[str, Any], block: str) -> dict[str, Any]:
    results: list[dict[str, Any]] = round_["results"]
    lines = _lines_by_label(block, [text(result["label"]) for result in results])
    return {
        "valid": not round_["problems"],
        "problems": texts(round_["problems"]),
        "nodes": [{key: text(r[key]) for key in ("label", "query", "source")} for r in results],
        "edges": [[text(parent), text(child)] for parent, child in round_["edges"]],
        "results": [
            {
                "node": r["label"],
                "expansion": texts(r["expansion"]),
                "error": maybe_text(r["error"]),
                "cached": bool(r["cached"]),
                "unread": texts(r.get("unread", [])),
                "passages": [
                    _passage(id, shown)
                    for id, shown in zip_longest(
                        texts(r["passages"]), lines[r["label"]][: len(r["passages"])]
                    )
                ],
            }
            for r in results
        ],
    }


def _shown_result(label: str, lines: list[str], may_fail: bool) -> dict[str, Any]:
    failure = _FAILED.fullmatch(lines[0]) if may_fail and len(lines) == 1 else None
    found = [] if failure or lines == [_NOTHING] else lines
    return {
        "node": label,
        "expansion": [],
        "error": failure[1] if failure else None,
        "cached": None,
        "unread": [],
        "passages": [_passage(None, shown) for shown in found],
    }


def _lines_by_label(block: str, labels: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines of an inserted block by node; they are in the order of the labels."""
    lines = [line for line in block.splitlines() if line.strip() and not _TAG_LINE.fullmatch(line)]
    found: dict[str, list[str]] = {label: [] for label in labels}
    position = 0
    for label in labels:
        prefix = f"{label}: "
        while position < len(lines) and lines[position].startswith(prefix):
            found[label].append(lines[position].removeprefix(prefix))
            position += 1
    return found


def _segment(author: Any, written: Any, tokens: Any) -> Segment:
    if author not in ("model", "system"):
        raise ValueError(f"a segment's author is model or system, not {author!r:.40}")
    return {"author": author, "text": text(written), "tokens": whole(tokens)}


def _passage(id: str | None, shown: str | None) -> dict[str, Any]:
    return {"id": id, "title": None, "text": shown, "score": None}
