"""What a chat server's answer holds: text, thought, why it ended and what it counted.

Servers share OpenAI's outline and differ in the rest, so an answer is read as plain JSON: whole, or
chunk by chunk from a stream.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsearch_cli.services.validation import is_finite, mend, read_token_count

LENGTH = "length"
"""The `finish` of a reply that was cut off at a limit of tokens."""

# Fields beside `content` in which servers send the thought: DeepSeek, SGLang, llama.cpp and older
# vLLM; vLLM, OpenRouter, Groq and Ollama; Ollama's own API.
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
# Fields that name the stop string at which a reply ended: vLLM's; SGLang's; Anthropic's.
_STOP_FIELDS = ("stop_reason", "matched_stop", "stop_sequence")
_LENGTHS = frozenset(
    {"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"}
)
_BROKEN = frozenset({"error", "abort", "aborted"})
_UTF16 = getincrementaldecoder("utf-16-le")


class NoCompletion(ValueError):
    """What the server sent is no completion; the message is its own words, or empty."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the server wrote.

    Attributes:
        text: The message without its thought.
        finish: Why it ended, in lower case: `stop`, `length`, ...; "" if the server does not say.
        input_tokens: Tokens that were sent, as the server counts them; None if it does not.
        output_tokens: Tokens that came back; None if it does not count them.
        stop_string: The stop string that it ended at, "" where the server says that it was none;
            None if it does not say, as OpenAI's.
        thought: What the server sent apart from the text as the model's thinking, or "".
        token_ids: Ids of the text, where they were asked for and the server sends them.
    """

    text: str
    finish: str
    input_tokens: int | None
    output_tokens: int | None
    stop_string: str | None = None
    thought: str = ""
    token_ids: tuple[int, ...] | None = None


class ReplyReader:
    """Puts a reply together, from one answer or from the chunks of a stream.

    Attributes:
        text: The text so far.
        thought: The thought so far.
    """

    def __init__(self) -> None:
        self.text = ""
        self.thought = ""
        self._finish = ""
        self._stop_string: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._ids: list[int] | None = None
        self._choices = 0
        self._error = ""
        # A stream may cut a surrogate pair in two; half a pair becomes U+FFFD, because no file and
        # no request can hold it.
        self._decoders = {name: _UTF16(errors="replace") for name in ("text", "thought")}

    def add(self, piece: Mapping[str, Any]) -> bool:
        """Take an answer or a chunk of one; tells whether text or thought has grown."""
        self._error = _read_error(piece) or self._error
        usage = piece.get("usage")
        self._usage = usage if isinstance(usage, Mapping) else self._usage
        before = len(self.text) + len(self.thought)
        choices = piece.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, Mapping):
                self._add_choice(choice)
        return len(self.text) + len(self.thought) > before

    def finish(self) -> Completion:
        """The whole reply.

        Raises:
            NoCompletion: There was none in what came, or the server says that it broke down.
        """
        if not self._choices or self._finish in _BROKEN:
            raise NoCompletion(self._error or self._finish)
        for name in self._decoders:
            self._append(name, "", final=True)
        return Completion(
            text=self.text,
            finish=LENGTH if self._finish in _LENGTHS else self._finish,
            input_tokens=read_token_count(self._usage.get("prompt_tokens")),
            output_tokens=read_token_count(self._usage.get("completion_tokens")),
            stop_string=self._stop_string,
            thought=self.thought,
            token_ids=None if self._ids is None else tuple(self._ids),
        )

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        message = choice.get("message") or choice.get("delta")
        if not isinstance(message, Mapping):
            # The completions API has the text in the choice itself.
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
        self._append("thought", _read_thought(message) or thought)
        self._append("text", text)

    def _append(self, name: str, new: str, *, final: bool = False) -> None:
        decoded = self._decoders[name].decode(new.encode("utf-16-le", "surrogatepass"), final)
        setattr(self, name, getattr(self, name) + decoded)


def check_reply(value: Any) -> Any:
    """Let a reply pass that is whole: the cache may hold anything.

    Raises:
        ValueError: A part is missing or of another type.
    """
    if not isinstance(value, dict):
        raise ValueError("no reply of a model")
    # Replies of earlier versions have no thought of their own.
    texts = (value.get("text"), value.get("thought", ""), value.get("finish"))
    ends = (*texts, value.get("stop_string") or "")
    tokens, ids = value.get("tokens"), value.get("ids")
    if not all(isinstance(end, str) for end in ends) or not is_finite(value.get("seconds")):
        raise ValueError("a reply of a model lacks a part")
    if tokens is not None and read_token_count(tokens) is None:
        raise ValueError(f"a reply of a model has {tokens!r:.40} tokens")
    if ids is not None and not isinstance(ids, list):
        raise ValueError("a reply of a model has token ids that are no list")
    return value


def _read_content(content: Any) -> tuple[str, str]:
    """Thought and text of a message's content, which may be a list of parts."""
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
    """The thought in the first of the fields that has one; servers may fill several alike."""
    for name in _THOUGHT_FIELDS:
        if isinstance(value := message.get(name), str) and value:
            return value
    return _flatten(message.get("reasoning_details"))


def _flatten(value: Any) -> str:
    """The text in a part of a message, however deep: a text, a list, or an object around one."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_flatten, value))
    if isinstance(value, Mapping):
        found = (value[name] for name in ("text", "thinking", "summary") if value.get(name))
        return _flatten(next(found, None))
    return ""


def _read_stop(choice: Mapping[str, Any]) -> str | None:
    """The stop string that a server names; "" where it has the field and names none."""
    named = [choice[name] for name in _STOP_FIELDS if name in choice]
    texts = [value for value in named if isinstance(value, str)]
    return texts[0] if texts else ("" if named else None)


def _read_error(piece: Mapping[str, Any]) -> str:
    """What a server says that went wrong in an answer of status 200."""
    error = piece.get("error")
    if isinstance(error, Mapping):
        error = error.get("message")
    return error if isinstance(error, str) else ""
