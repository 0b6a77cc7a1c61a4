"""Answers read back from files: of `infer --json` and `/save`, of runs and of evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from rsearch_cli.errors import DataEmpty, DataError, DataMalformed, DataNotFound
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.protocol.plan import render_plan
from rsearch_cli.recipe.schema import ProtocolConfig, Recipe
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.runs.files import ANSWERS, RECIPE, TRAJECTORIES
from rsearch_cli.runs.json_text import MOST_CHARS, parse_json
from rsearch_cli.terminal import finite, on_one_line
from rsearch_cli.types import (
    FollowUp,
    NodeResult,
    Paragraph,
    Passage,
    PlanNode,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Sentence,
    Trajectory,
)
from rsearch_cli.viewer.source import ViewSource
from rsearch_cli.viewer.transcripts import (
    prediction_rounds,
    prediction_segments,
    trajectory_rounds,
    trajectory_segments,
)

_DAMAGES = (KeyError, TypeError, ValueError, AttributeError, LookupError, OverflowError, DataError)
_LONGEST_PASSAGE = 20_000


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer from a file.

    Attributes:
        answer: The answer; what the file does not hold is empty.
        remark: How it was scored, in one line, or "".
    """

    answer: AgentAnswer
    remark: str = ""


def read_stored(place: str, question: str | None = None) -> list[StoredAnswer]:
    """Read the answers that `--watch` names.

    Args:
        place: A JSON file of answers, whose answers are all returned; or a file of lines, or the
            folder of a run or an evaluation, of which one is returned: the one of `FILE:LINE`,
            the first with `question`, or else the first.
        question: Text that the question contains, in any case; None takes any.

    Raises:
        DataNotFound: There is no such file or line, or no such question.
        DataMalformed: The file or the line holds no answer of rsearch.
        DataEmpty: The file holds no answer at all.
    """
    path, wanted = _find(place)
    rows = _read_lines(path, wanted) if path.suffix == ".jsonl" else _read_document(path, wanted)
    found, seen = [], False
    for number, row in rows:
        seen = True
        if question is not None and not _asks(row, question):
            continue
        try:
            found.append(_read_row(row, path))
        except _DAMAGES as error:
            raise DataMalformed(
                f"{path}, {_unit(path)} {number}: no answer, trajectory or prediction of rsearch; "
                "give a file of `rsearch infer --json`, of /save, of a run or of an evaluation"
            ) from error
        if path.suffix == ".jsonl":
            break
    if found:
        return found
    if wanted is not None and not seen:
        raise DataNotFound(f"{path} has no {_unit(path)} {wanted}")
    if not seen:
        raise DataEmpty(f"{path} holds no answers")
    shown = on_one_line(question or "", 100)
    raise DataNotFound(f"{path}: no question contains {shown!r}; leave it out to see the first")


def _find(place: str) -> tuple[Path, int | None]:
    """Return the file and the number that `FILE`, `FILE:LINE` or a folder means."""
    path, number = Path(place), None
    if not path.exists():
        name, _, last = place.rpartition(":")
        if name and last.isascii() and last.isdigit():
            path, number = Path(name), int(last[:18])
    if path.is_dir():
        inside = [path / name for name in (TRAJECTORIES, ANSWERS) if (path / name).is_file()]
        if not inside:
            raise DataNotFound(f"{path} holds no {TRAJECTORIES} and no {ANSWERS}")
        path = inside[0]
    return path, number


def _read_lines(path: Path, wanted: int | None) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a file of lines, with their numbers; only one if it is wanted."""
    number = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(MOST_CHARS):
                number += 1
                if wanted in (None, number) and line.strip():
                    yield number, parse_json(line)
                if number == wanted:
                    return
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise DataMalformed(f"{path}, line {number}: not JSON") from error


def _read_document(path: Path, wanted: int | None) -> Iterator[tuple[int, Any]]:
    """Yield the answers of a JSON document: an object, or a list of them."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_CHARS + 1)
        if len(text) > MOST_CHARS:
            raise DataMalformed(f"{path} has more than {MOST_CHARS:,} characters")
        value = parse_json(text)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise DataMalformed(
            f"{path} is not JSON; the name of a file of lines ends in .jsonl"
        ) from (error)
    rows = value if isinstance(value, list) else [value]
    yield from ((n, row) for n, row in enumerate(rows, 1) if wanted in (None, n))


def _unreadable(path: Path, error: OSError) -> DataNotFound:
    return DataNotFound(f"{path} cannot be read: {error.strerror}")


def _unit(path: Path) -> str:
    return "line" if path.suffix == ".jsonl" else "answer"


def _asks(row: Any, words: str) -> bool:
    asked = row.get("text" if "transcript" in row else "question") if isinstance(row, dict) else ""
    return isinstance(asked, str) and words.casefold() in asked.casefold()


def _read_row(row: Any, path: Path) -> StoredAnswer:
    if "transcript" in row:
        return _read_prediction(row, _find_rules(path))
    return _read_trajectory(row) if "segments" in row else _read_answer(row)


def _read_trajectory(row: Mapping[str, Any]) -> StoredAnswer:
    """Read a row of a run's trajectories."""
    stored = trajectory_segments(row)
    segments = [_segment(s["author"], s["text"], s["tokens"]) for s in stored]
    rounds = [_read_round(round_) for round_ in trajectory_rounds(row)]
    trajectory = _trajectory(row["question"], segments, rounds, row["answer"], row["stop"])
    reward = row["reward"]
    scores = [(name, finite(reward, name)) for name in ("total", "answer", "plan", "format")]
    parts = [f"{name} {value:.2f}" for name, value in scores[1:] if value is not None]
    total = "none" if scores[0][1] is None else f"{scores[0][1]:.2f}"
    remark = f"step {int(row['step'])}, reward {total} ({', '.join(parts)})"
    return StoredAnswer(AgentAnswer(trajectory, _recipe(), 0.0, 0.0), remark)


def _find_rules(path: Path) -> ProtocolConfig:
    """Return the rules of the run or evaluation that a file of predictions belongs to."""
    for folder in (path.parent, path.parent.parent):
        if (folder / RECIPE).is_file():
            return ViewSource(folder, folder.name).context.rules
    return ProtocolConfig()


def _read_prediction(row: Mapping[str, Any], rules: ProtocolConfig) -> StoredAnswer:
    """Read a prediction of an evaluation."""
    result = EvalResult.from_json(row)
    stored = prediction_segments(result)
    rounds = [
        _read_round(round_) for round_ in prediction_rounds(stored, result.failed_searches, rules)
    ]
    segments = [_segment(s["author"], s["text"], 0) for s in stored] or [_segment("model", "", 0)]
    segments[0] = replace(segments[0], usage=result.completion_tokens, error=result.failure)
    trajectory = _trajectory(result.text, segments, rounds, result.answer, None)
    remark = f"no reference answer (method {result.method})"
    if result.em is not None and result.f1 is not None:
        remark = f"exact match {result.em:.0f}, F1 {result.f1:.2f} (method {result.method})"
    if result.failure is not None:
        remark = f"not counted (method {result.method})"
    seconds, usd = result.seconds or 0.0, result.usd or 0.0
    return StoredAnswer(AgentAnswer(trajectory, _recipe(), seconds, usd), remark)


def _read_answer(row: Mapping[str, Any]) -> StoredAnswer:
    """Read an answer of `infer`, whose transcript is put together from its parts."""
    rounds = [_read_round(round_) for round_ in row["plans"]]
    thoughts = iter(_text(thought) for thought in row["thinking"])
    segments = [
        _segment("model", f"{_think(thoughts)}<search>\n{_written(round_)}\n</search>", 0)
        for round_ in rounds
    ]
    answer = row["answer"]
    said = "" if answer is None else f"<answer> {_text(answer)} </answer>"
    rest = "".join(f"<think> {thought} </think>\n" for thought in thoughts)
    segments.append(_segment("model", rest + said, row["tokens"]))
    shown = [len(citation["text"]) for citation in row["citations"]]
    asked_as, note = row.get("asked_as"), row.get("note")
    follow_up = FollowUp(_text(row["question"]), asked_as, note) if asked_as or note else None
    trajectory = _trajectory(row["question"], segments, rounds, answer, row["stop"])
    return StoredAnswer(
        AgentAnswer(
            trajectory,
            _recipe(max(shown, default=40)),
            finite(row, "seconds") or 0.0,
            finite(row, "usd") or 0.0,
            follow_up,
            _read_paragraph(row.get("paragraph")),
        )
    )


def _read_round(stored: Mapping[str, Any]) -> SearchRound:
    nodes = {
        _text(n["label"]): PlanNode(n["label"], _text(n["query"]), _text(n["source"]))
        for n in stored["nodes"]
    }
    edges = tuple((_text(parent), _text(child)) for parent, child in stored["edges"])
    plan = SearchPlan(tuple(nodes.values()), edges)
    plan.waves()  # raises ValueError for a cycle
    if not nodes.keys() >= {label for edge in edges for label in edge}:
        raise ValueError("an edge belongs to no node")
    results = tuple(
        NodeResult(
            nodes[result["node"]],
            tuple(map(_text, result["expansion"])),
            tuple(map(_read_passage, result["passages"])),
            None if result["error"] is None else _text(result["error"]),
            bool(result["cached"]),
            unread=tuple(map(_text, result.get("unread", ()))),
        )
        for result in stored["results"]
    )
    problems = tuple(map(_text, stored["problems"]))
    if stored["valid"]:
        return SearchRound(plan, (), results)
    return SearchRound(None, problems or ("unknown",))


def _read_passage(stored: Mapping[str, Any]) -> Passage:
    id, title, text = (_text(stored[name] or "") for name in ("id", "title", "text"))
    return Passage(id, title, text, score=finite(stored, "score") or 0.0)


def _read_paragraph(stored: Mapping[str, Any] | None) -> Paragraph | None:
    if stored is None:
        return None
    sentences = tuple(
        Sentence(_text(s["text"]), tuple(s["numbers"]), s["problem"], tuple(s["dropped"]))
        for s in stored["sentences"]
    )
    return Paragraph(sentences, stored["note"])


def _trajectory(
    question: Any,
    segments: Sequence[Segment],
    rounds: Sequence[SearchRound],
    answer: Any,
    stop: Any,
) -> Trajectory:
    return Trajectory(
        question=Question("stored", _text(question), ()),
        prompt_ids=(),
        opening="",
        segments=tuple(segments),
        rounds=tuple(rounds),
        answer=None if answer is None else _text(answer),
        stop=cast(Literal["answer", "eos", "length"], stop or "eos"),
    )


def _segment(author: str, text: str, tokens: Any) -> Segment:
    return Segment(_text(text), (), cast(Literal["model", "system"], author), int(tokens or 0))


def _recipe(passage_chars: int = 500) -> Recipe:
    """Return a recipe for showing an answer."""
    recipe = Recipe(purpose="", hardware="")
    chars = min(max(passage_chars, 40), _LONGEST_PASSAGE)
    search = recipe.search.model_copy(update={"passage_chars": chars})
    return recipe.model_copy(update={"search": search})


def _think(thoughts: Iterator[str]) -> str:
    thought = next(thoughts, None)
    return "" if thought is None else f"<think> {thought} </think>\n"


def _written(round_: SearchRound) -> str:
    return render_plan(round_.plan) if round_.plan else ""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {type(value).__name__}")
    return value
