"""Adapts requests to a server that refuses a parameter, a field or a role by name.

The change applies to all later requests of the process. A refusal that names nothing changes
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsearch_cli.services.completion import LENGTH, Completion

Message = dict[str, Any]

# Fields of vLLM and SGLang that OpenAI's API does not have. They are dropped only if the server
# does not know them; one that does may refuse to continue a message, which is another problem.
_CONTINUE = ("continue_final_message", "add_generation_prompt", "separate_reasoning")
_STRANGE = re.compile(
    r"extra[ _](?:input|field|forbid)|unrecogni[sz]ed|unknown|unexpected|not permitted|"
    r"additional propert|unsupported param",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"too (?:large|small|high|low|big|many)|at (?:most|least)|exceed|range|between|maximum|"
    r"(?:less|greater|fewer|more) than|must be (?:an? )?(?:positive|integer|[<>])|"
    r"范围|超过|大于|小于",
    re.IGNORECASE,
)
# Never dropped: the judge has other reply formats to try, and a reply without a limit could cost
# more than was reserved for it.
_KEPT = (*_CONTINUE, "response_format", "prompt", "max_completion_tokens")
_POSITIVE = re.compile(r"positive|greater than 0|larger than 0|> ?0(?!\.?\d)", re.IGNORECASE)
# The wording of chat templates (Gemma, older Mistral and Llama) and of hosted models.
ROLES = re.compile(
    r"system[ _-]?(?:role|message|prompt|instruction)s?\b|\brole\W{1,3}system|"
    r"developer\W{1,3}(?:role|message|instruction)|messages\[0\]\.role|roles must alternate|"
    r"only (?:'?user'?,? and '?assistant'?|'?user'?) roles?|'user' or 'assistant'|"
    r"first message must|角色",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"\bprefix\b", re.IGNORECASE)

# What servers call parameters beside their names.
_SPELT = {
    "stop": r"stop(?:[_ ]?(?:sequence|word|string)s?)?",
    "max_tokens": r"max[_ ]?tokens",
    "temperature": r"(?:temperature|sampling parameters?)",
    "top_p": r"(?:top_p|sampling parameters?)",
}

LEAST_TEMPERATURE = 0.01
"""Sent instead of 0 to servers that require a positive temperature: almost greedy."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's refusal of the form of a request.

    Attributes:
        words: The beginning of its message; further on, servers repeat the chat.
        param: The parameter that the error names in its own field, or "".
    """

    words: str
    param: str = ""

    def names(self, name: str) -> bool:
        """Return whether it is about a parameter or field."""
        spelt = _SPELT.get(name, name)
        # In ASCII: Chinese servers write no space between a name and their words.
        named = re.search(rf"(?<![\w.]){spelt}(?:ing)?(?!\w)", self.words, re.IGNORECASE | re.ASCII)
        return self.param == name or named is not None


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it was sent.

    Attributes:
        messages: The chat; empty if token ids were sent.
        options: All other fields of the body.
        learnt: Number of changes that the dialect had when it was sent.
    """

    messages: Sequence[Message]
    options: Mapping[str, Any]
    learnt: int


class Dialect:
    """Changes to all later requests to one server.

    Attributes:
        changes: Descriptions of the changes for the user, in the order they were made.
    """

    def __init__(self) -> None:
        self.changes: list[str] = []
        self._renamed: dict[str, str] = {}
        self._replaced: dict[str, Any] = {}
        self._dropped: set[str] = set()
        self._fold_system = False
        self._mark_prefix = False

    def put(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Sent:
        """Apply the changes to a request."""
        body = {self._renamed.get(name, name): value for name, value in options.items()}
        body = {name: value for name, value in body.items() if name not in self._dropped}
        body |= {name: value for name, value in self._replaced.items() if name in body}
        if self._fold_system:
            messages = fold_system(messages)
        if self._mark_prefix and messages and messages[-1]["role"] == "assistant":
            messages = [*messages[:-1], {**messages[-1], "prefix": True}]
        return Sent(messages, body, len(self.changes))

    def learn(self, refusal: Refusal, sent: Sent) -> bool:
        """Add the change that a refusal calls for; return whether to send the request again."""
        if len(self.changes) > sent.learnt:
            return True  # another request in flight has added it in the meantime
        change = self._change_for(refusal, sent)
        if change:
            self.changes.append(change)
        return change is not None

    def learn_silence(self, streamed: Completion) -> bool:
        """Stop streaming if a stream was empty although the server counted tokens."""
        silent = not (streamed.text or streamed.thought or streamed.finish == LENGTH)
        if silent and streamed.output_tokens:
            self._dropped.update(("stream", "stream_options"))
            self.changes.append("without stream, whose replies come empty")
            return True
        return False

    def _change_for(self, refusal: Refusal, sent: Sent) -> str | None:
        for name, value in sent.options.items():
            if name not in _KEPT and refusal.names(name):
                return self._change_option(name, value, refusal)
        strange = [name for name in _CONTINUE if name in sent.options]
        if any(map(refusal.names, strange)) and _STRANGE.search(refusal.words):
            self._dropped.update(strange)
            return f"without {' and '.join(strange)}"
        roles = [message["role"] for message in sent.messages]
        if "system" in roles and ROLES.search(f"{refusal.words} {refusal.param}"):
            self._fold_system = True
            return "with the system prompt inside the first user message"
        if roles[-1:] == ["assistant"] and _PREFIX.search(refusal.words) and not self._mark_prefix:
            self._mark_prefix = True
            return "with the last message marked as a prefix"
        return None

    def _change_option(self, name: str, value: Any, refusal: Refusal) -> str | None:
        if name == "max_tokens":
            if _LIMIT.search(refusal.words):
                return None
            self._renamed[name] = "max_completion_tokens"
            return "with max_completion_tokens for max_tokens"
        if name == "temperature" and value == 0 and _POSITIVE.search(refusal.words):
            self._replaced[name] = LEAST_TEMPERATURE
            return f"with temperature {LEAST_TEMPERATURE} for 0"
        self._dropped.add(name)
        if name == "temperature":
            return "without temperature, so not greedily"
        return f"without {name}"


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """Return a chat whose system message is prepended to the first user message."""
    system = [m["content"] for m in messages if m["role"] == "system"]
    rest = [m for m in messages if m["role"] != "system"]
    first = next((i for i, m in enumerate(rest) if m["role"] == "user"), None)
    if not system or first is None:
        return list(messages)
    text = "\n\n".join([*system, rest[first]["content"]])
    return [*rest[:first], {**rest[first], "content": text}, *rest[first + 1 :]]
