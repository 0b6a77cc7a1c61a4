"""The completion in a chat server's answer: text, thought, finish reason and token counts.

Servers agree with OpenAI's API in outline only, so answers are parsed as plain JSON, whole or chunk
by chunk from a stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsearch_cli.services.validation import is_finite, mend, read_token_count

LENGTH = "length"
"""The `finish` of a reply that was cut off at the token limit."""

# Fields that hold the thought, beside `content`: of DeepSeek, SGLang, llama.cpp and older vLLM; of
# vLLM, OpenRouter, Groq and Ollama; of Ollama's own API.
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
# Fields that hold the stop string that ended a reply: of vLLM, SGLang and Anthropic.
_STOP_FIELDS = ("stop_reason", "matched_stop", "stop_sequence")
_LENGTHS = frozenset(
    {"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"}
)
_BROKEN = frozenset({"error", "abort", "aborted"})
# End-of-turn tokens that some servers leave at the end of a text.
_END_MARK = re.compile(
    r"\s*(?:<\|(?:im_end|eot_id|eom_id|end|end_of_text|endoftext|return)\|>|</s>|<end_of_turn>|"
    r"<｜end▁of▁sentence｜>)\s*\Z"
)


class NoCompletion(ValueError):
    """The answer is not a completion; the message is the server's own, or empty."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion.

    Attributes:
        text: The message without its thought.
        finish: Finish reason in lower case, such as `stop` or `length`; "" if there is none.
        input_tokens: Tokens of the prompt by the server's count; None if it does not count.
        output_tokens: Tokens of the reply by the server's count; None if it does not count.
        stop_string: The stop string that ended the reply, "" if the server reports that none did;
            None if it reports nothing, like OpenAI's.
        thought: The model's thinking, if the server sends it apart from the text, or "".
        token_ids: Ids of the text, if they were requested and the server sends them.
    """

    text: str
    finish: str
    input_tokens: int | None
    output_tokens: int | None
    stop_string: str | None = None
    thought: str = ""
    token_ids: tuple[int, ...] | None = None


class ReplyReader:
    """Assembles a reply from one answer or from the chunks of a stream."""

    def __init__(self) -> None:
        self._text = ""
        self._thought = ""
        self._finish = ""
        self._stop_string: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._ids: list[int] | None = None
        self._choices = 0
        self._error = ""

    @property
    def text(self) -> str:
        """The text so far."""
        return _readable(self._text)

    @property
    def thought(self) -> str:
        """The thought so far."""
        return _readable(self._thought)

    def add(self, piece: Mapping[str, Any]) -> bool:
        """Add an answer or a chunk of one; return whether text or thought has grown."""
        self._error = _read_error(piece) or self._error
        usage = piece.get("usage")
        self._usage = usage if isinstance(usage, Mapping) else self._usage
        before = len(self._text) + len(self._thought)
        choices = piece.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            # One was asked for; servers that send more number them from 0.
            if isinstance(choice, Mapping) and choice.get("index") in (0, None):
                self._add_choice(choice)
        return len(self._text) + len(self._thought) > before

    def finish(self) -> Completion:
        """Return the whole reply.

        Raises:
            NoCompletion: There was none, or the server reports that it failed.
        """
        if not self._choices or self._finish in _BROKEN:
            raise NoCompletion(self._error or self._finish)
        text = mend(self._text)
        return Completion(
            text=_END_MARK.sub("", text) if self._ids is None else text,
            finish=LENGTH if self._finish in _LENGTHS else self._finish,
            input_tokens=read_token_count(self._usage.get("prompt_tokens")),
            output_tokens=read_token_count(self._usage.get("completion_tokens")),
            stop_string=self._stop_string,
            thought=mend(self._thought),
            token_ids=None if self._ids is None else tuple(self._ids),
        )

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        message = choice.get("message") or choice.get("delta")
        if not isinstance(message, Mapping):
            # In the completions API the text is a field of the choice.
            message = {"content": choice["text"]} if "text" in choice else None
        if message is None:
            return
        self._choices += 1
        self._error = _read_error(choice) or self._error
        if isinstance(finish := choice.get("finish_reason"), str):
            self._finish = mend(finish).lower()
        stopped_by = _read_stop(choice)
        self._stop_string = self._stop_string if stopped_by is None else mend(stopped_by)
        ids = choice.get("token_ids")
        if isinstance(ids, list) and all(read_token_count(i) is not None for i in ids):
            self._ids = [*(self._ids or ()), *ids]
        thought, text = _read_content(message.get("content"))
        self._thought += _read_thought(message) or thought
        self._text += text


def _readable(text: str) -> str:
    """Text as it can be shown: a chunk may end between the halves of a surrogate pair."""
    return mend(text[:-1] if "\ud800" <= text[-1:] <= "\udbff" else text)


def check_reply(value: Any) -> Any:
    """Return a stored reply unchanged if it is valid: the cache may hold anything.

    Raises:
        ValueError: A field is missing or of another type.
    """
    if not isinstance(value, dict):
        raise ValueError("not the reply of a model")
    # Replies of earlier versions have no separate thought.
    texts = (value.get("text"), value.get("thought", ""), value.get("finish"))
    ends = (*texts, value.get("stop_string") or "")
    tokens, ids = value.get("tokens"), value.get("ids")
    if not all(isinstance(end, str) for end in ends) or not is_finite(value.get("seconds")):
        raise ValueError("a reply of a model lacks a part")
    if tokens is not None and read_token_count(tokens) is None:
        raise ValueError(f"a reply of a model has {tokens!r:.40} tokens")
    if ids is not None and not isinstance(ids, list):
        raise ValueError("a reply of a model has token ids that are not a list")
    return value


def _read_content(content: Any) -> tuple[str, str]:
    """Return thought and text of a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return "", content
    thought, text = "", ""
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, Mapping) else ""
        if isinstance(kind, str) and ("think" in kind or "reason" in kind):
            thought += _flatten(part)
        else:
            text += _flatten(part)
    return thought, text


def _read_thought(message: Mapping[str, Any]) -> str:
    """Return the thought of the first field that has one; servers may repeat it in several."""
    for name in _THOUGHT_FIELDS:
        if isinstance(value := message.get(name), str) and value:
            return value
    return _flatten(message.get("reasoning_details"))


def _flatten(value: Any) -> str:
    """Return the text of a message part, which may be nested in lists and objects."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_flatten, value))
    if isinstance(value, Mapping):
        found = (value[name] for name in ("text", "thinking", "summary") if value.get(name))
        return _flatten(next(found, None))
    return ""


def _read_stop(choice: Mapping[str, Any]) -> str | None:
    """Return the stop string that a server reports; "" if the field is there but empty."""
    named = [choice[name] for name in _STOP_FIELDS if name in choice]
    texts = [value for value in named if isinstance(value, str)]
    return texts[0] if texts else ("" if named else None)


def _read_error(piece: Mapping[str, Any]) -> str:
    """Return the error that a server reports in an answer with status 200, or ""."""
    error = piece.get("error")
    if isinstance(error, Mapping):
        error = error.get("message")
    return error if isinstance(error, str) else ""
