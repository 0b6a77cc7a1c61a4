"""Answers and events in the form of OpenAI's chat completions, with the agent's own fields."""

from __future__ import annotations

import secrets
import time
from typing import Any

from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import (
    AnswerText,
    Event,
    Finished,
    Restarted,
    Thinking,
    event_as_json,
)


def usage_of(answer: AgentAnswer) -> dict[str, int]:
    """Return the tokens that the policy read (prompt and results), and those it generated."""
    trajectory = answer.trajectory
    inserted = sum(s.tokens for s in trajectory.segments if s.author == "system")
    read, written = len(trajectory.prompt_ids) + inserted, answer.tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def finish_reason(answer: AgentAnswer) -> str:
    """Return why generation ended, in OpenAI's words."""
    return "length" if answer.trajectory.stop == "length" else "stop"


class ChatWriter:
    """Writes the response to one request.

    Args:
        model: The name of the model that is served.
    """

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answer: AgentAnswer) -> dict[str, Any]:
        """Return the response without streaming."""
        message = {
            "role": "assistant",
            "content": answer.text,
            "reasoning_content": "\n\n".join(answer.thoughts),
        }
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": finish_reason(answer),
            "logprobs": None,
        }
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_of(answer),
            "rsearch": answer.as_json(),
        }

    def chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        """Return one chunk of a stream."""
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, answer: AgentAnswer) -> dict[str, Any]:
        """Return the chunk with the number of tokens, which has no choice."""
        return {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": usage_of(answer),
        }


class ChunkWriter:
    """Turns the events of an answer into chunks.

    A server that is asked again may write its answer differently. What was sent of the first one
    cannot be taken back: then `contradicted` is set, and no more of the answer is sent as text.

    Attributes:
        contradicted: The text that was sent is not how the answer begins.
    """

    def __init__(self, writer: ChatWriter) -> None:
        self.contradicted = False
        self._writer = writer
        self._sent = ""
        self._written = ""

    def write(self, event: Event) -> dict[str, Any]:
        """Return the chunk of an event."""
        delta: dict[str, Any] = {}
        reason = None
        match event:
            case Thinking(text):
                delta = {"reasoning_content": text}
            case AnswerText(text):
                delta = self._content(self._written + text)
            case Restarted():
                self._written = ""
            case Finished(answer):
                # A paragraph follows the answer.
                if answer.text.startswith(self._sent):
                    delta = self._content(answer.text)
                elif answer.answer is not None:  # None: cut off after some of it was sent
                    self.contradicted = True
                reason = finish_reason(answer)
        return {**self._writer.chunk(delta, reason), "rsearch": event_as_json(event)}

    def _content(self, written: str) -> dict[str, Any]:
        """Return the delta for all of the answer that is known by now."""
        self._written = written
        if self.contradicted or self._sent.startswith(written):
            return {}
        if not written.startswith(self._sent):
            self.contradicted = True
            return {}
        new, self._sent = written[len(self._sent) :], written
        return {"content": new}
