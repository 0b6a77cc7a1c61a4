"""What the MCP tools return: text for a model to read, and the same as JSON within limits."""

from __future__ import annotations

from typing import Any

from rsearch_cli.protocol.characters import flatten
from rsearch_cli.rollout.answer import AgentAnswer, count
from rsearch_cli.runs.json_text import dump_json, finite_only
from rsearch_cli.terminal import on_one_line, printable, shorten
from rsearch_cli.types import NodeResult, Passage

MOST_CHARS = 262_144
"""Most characters of a structured result, unless the recipe allows thousands of passages."""

_TEXT_LIMITS = (4000, 1000, 200)
_CITED = 10
_SNIPPET = 300
_TITLE = 200

_TEXT = {"type": "string"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_PASSAGE = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "title": _TEXT,
        "text": _TEXT,
        "score": {"type": ["number", "null"]},
    },
    "required": ["id", "title", "text"],
}
_RESULT = {
    "type": "object",
    "properties": {
        "node": _TEXT,
        "error": {**_MAYBE_TEXT, "description": "Why the search failed, or null."},
        "unread": {"type": "array", "items": _TEXT, "description": "Pages that were not read."},
        "passages": {"type": "array", "items": _PASSAGE},
    },
    "required": ["node", "error", "passages"],
}
_PLAN = {
    "type": "object",
    "properties": {
        "valid": {"type": "boolean"},
        "problems": {"type": "array", "items": _TEXT},
        "nodes": {"type": "array", "items": {"type": "object"}},
        "edges": {"type": "array", "items": {"type": "array", "items": _TEXT}},
        "results": {"type": "array", "items": _RESULT},
    },
    "required": ["valid", "problems", "nodes", "edges", "results"],
}
_CITATION = {
    "type": "object",
    "properties": {
        "number": {"type": "integer"},
        "id": _TEXT,
        "title": _TEXT,
        "url": _MAYBE_TEXT,
        "nodes": {"type": "array", "items": _TEXT},
        "holds_answer": {
            "type": "boolean",
            "description": "Whether the passage contains the answer's words in a row.",
        },
        "text": _TEXT,
    },
    "required": ["number", "id", "title", "holds_answer", "text"],
}
ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "question": _TEXT,
        "answer": {**_MAYBE_TEXT, "description": "null if the agent found none."},
        "paragraph": {
            "type": ["object", "null"],
            "description": "The long answer: sentences, each with the numbers of its citations.",
        },
        "plans": {
            "type": "array",
            "items": _PLAN,
            "description": "The search plans, with what each node found.",
        },
        "citations": {
            "type": "array",
            "items": _CITATION,
            "description": "The passages that the agent was given, likeliest evidence first.",
        },
        "searches": {"type": "integer"},
        "failed_searches": {"type": "integer"},
        "failed_reads": {"type": "integer"},
        "seconds": {"type": "number"},
        "usd": {"type": "number"},
    },
    "required": ["question", "answer", "plans", "citations"],
}
"""Schema of the structured result of `search_agent`: the fields of `rsearch infer --json`."""

PASSAGES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "query": _TEXT,
        "source": _TEXT,
        "passages": {"type": "array", "items": _PASSAGE},
    },
    "required": ["query", "source", "passages"],
}
"""Schema of the structured result of `search`."""


def answer_text(answer: AgentAnswer) -> str:
    """Return an answer as text: the answer, failed searches, and the passages it may rest on."""
    cited = answer.citations
    marks = "".join(f"[{c.number}]" for c in cited if c.contains_answer)
    text = answer.answer
    lines = ["The agent found no answer." if text is None else f"{_clean(text)} {marks}".rstrip()]
    numbers = set(range(1, _CITED + 1))
    if (paragraph := answer.paragraph) is not None:
        lines += ["", _clean(paragraph.text or paragraph.note or ""), ""]
        numbers.update(n for sentence in paragraph.sentences for n in sentence.numbers)
    rounds = answer.trajectory.rounds
    lines += [
        describe_result(result)
        for round_ in rounds
        for result in round_.results
        if result.error is not None
    ]
    shown = [citation for citation in cited if citation.number in numbers]
    for citation in shown:
        snippet = on_one_line(citation.shown, _SNIPPET)
        lines.append(f"[{citation.number}] {_heading(citation.passage)}: {snippet}")
    if len(cited) > len(shown):
        lines.append(f"and {len(cited) - len(shown)} more in the structured result")
    return "\n".join(lines)


def passages_text(result: NodeResult) -> str:
    """Return the passages of a search as text."""
    if not result.passages:
        return "nothing found"
    return "\n\n".join(
        f"[{number}] {_heading(passage)}\n{_clean(passage.text)}"
        for number, passage in enumerate(result.passages, 1)
    )


def passages_as_json(result: NodeResult) -> dict[str, Any]:
    """Return the passages of a search as JSON."""
    return {
        "query": result.node.query,
        "source": result.node.source,
        "passages": [
            {"id": p.id, "title": p.title, "text": p.text, "score": p.score}
            for p in result.passages
        ],
    }


def describe_result(result: NodeResult) -> str:
    """Describe the result of a plan node in one line."""
    label, query = result.node.label, f"{result.node.query} ({result.node.source})"
    if result.error is not None:
        return f"{label}: search failed for {query}: {flatten(result.error)}"
    return f"{label}: {count(len(result.passages), 'passage', 'passages')} for {query}"


def bounded(value: dict[str, Any]) -> dict[str, Any]:
    """Return JSON that every client can read: no lone surrogates, no NaN, and not too long.

    Long texts are shortened, further if the whole is still longer than `MOST_CHARS`.
    """
    finite = finite_only(value)
    for limit in _TEXT_LIMITS:
        result: dict[str, Any] = _shorten_texts(finite, limit)
        if len(dump_json(result)) <= MOST_CHARS:
            break
    return result


def _shorten_texts(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return shorten(value, limit).encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _shorten_texts(item, limit) for key, item in value.items()}
    if isinstance(value, list):
        return [_shorten_texts(item, limit) for item in value]
    return value


def _clean(text: str) -> str:
    return printable(shorten(text.strip(), _TEXT_LIMITS[0]))


def _heading(passage: Passage) -> str:
    title, key = on_one_line(passage.title, _TITLE), on_one_line(passage.id, _TITLE)
    return title if title == key else f"{title} ({key})".strip()
