"""Prompts of the baseline methods, which answer without a plan: from memory or from passages."""

from __future__ import annotations

import re
from collections.abc import Collection

from rsearch_cli.protocol.results import neutralise
from rsearch_cli.protocol.transcript import answer_text
from rsearch_cli.types import Question

_FORM = "Write nothing but <answer> the bare answer: a name, a date, a number, yes or no </answer>."
DIRECT_PROMPT = f"You answer questions from memory. {_FORM}"
"""System prompt of the method `direct`."""
RAG_PROMPT = f"You answer questions from the passages that are given. {_FORM}"
"""System prompt of the method `rag`."""

_TAG = re.compile(r"</?\w+>")


def build_direct_messages(
    question: Question, forbidden: Collection[str] = ()
) -> list[dict[str, str]]:
    """Build the chat of a question without passages; see `prompt.build_messages`."""
    return _chat(DIRECT_PROMPT, neutralise(question.text, forbidden))


def build_rag_messages(
    question: Question, results: str, forbidden: Collection[str] = ()
) -> list[dict[str, str]]:
    """Build the chat of a question with the passages that one search found.

    Args:
        question: Its text is neutralised.
        results: A block from `results.render_results`.
        forbidden: See `results.neutralise`.
    """
    return _chat(RAG_PROMPT, f"{results.strip()}\n{neutralise(question.text, forbidden)}")


def read_bare_answer(text: str) -> str | None:
    """Return the answer in a reply: the text of its `<answer>` block, or else its last line.

    These methods test no format, so a reply without tags is an answer as well.
    """
    lines = [line.strip() for line in _TAG.sub("\n", text).splitlines() if line.strip()]
    return answer_text(text) or (lines[-1] if lines else None)


def _chat(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]
