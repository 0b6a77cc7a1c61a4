"""Reads the body of `POST /v1/chat/completions`.

Every field that OpenAI's clients send is supported, or refused by name because the answer would not
be what it asks for, or ignored; docs/serving.md lists them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast, get_args

from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.services.validation import is_finite, mend
from rsearch_cli.serving.api_errors import ApiError, bad_field
from rsearch_cli.types import Turn

MAX_TEMPERATURE = 2.0
MAX_MESSAGES = 1000

Style = Literal["short", "paragraph"]

_IGNORED_ROLES = ("system", "developer")
_MOST_QUOTED = 60

# Fields that ask for something else than an answer in plain text, and the values that do not.
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "only one answer a request is supported"),
    "stop": (([], ""), "stop sequences are not supported"),
    "tools": (([],), "the agent uses its own search and calls no tools"),
    "functions": (([],), "the agent uses its own search and calls no functions"),
    "response_format": (({"type": "text"},), "only text is supported"),
    "logprobs": ((False,), "log probabilities are not supported"),
    "top_logprobs": ((0,), "log probabilities are not supported"),
    "logit_bias": (({},), "a logit bias is not supported"),
    "modalities": ((["text"],), "only text is supported"),
    "audio": ((), "only text is supported"),
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A question from a client.

    Attributes:
        question: The last user message.
        history: Earlier questions with their answers.
        follow_up: Whether the question may be rewritten with them; None leaves it to the recipe.
        stream: Whether the answer is sent as it is written.
        include_usage: Whether a stream ends with the number of tokens.
        temperature: 0 is greedy decoding.
        max_tokens: Most tokens to generate, or None.
        style: None leaves it to the recipe.
    """

    question: str
    history: tuple[Turn, ...] = ()
    follow_up: bool | None = None
    stream: bool = False
    include_usage: bool = False
    temperature: float = 0.0
    max_tokens: int | None = None
    style: Style | None = None


def read_chat_request(body: bytes, model: str) -> ChatRequest:
    """Read and check the body of a request.

    Args:
        body: As it arrived.
        model: The name of the model that is served.

    Raises:
        ApiError: Naming the field that is wrong.
    """
    fields = _parse(body)
    _check_model(fields.get("model"), model)
    for name, (neutral, problem) in _REFUSED.items():
        value = fields.get(name)
        # `True == 1` in Python, but not in JSON.
        if value is not None and not any(value == v and type(value) is type(v) for v in neutral):
            raise bad_field(name, problem)
    own = _read_object(fields.get("rsearch"), "rsearch", ("follow_up", "style"))
    question, history = _read_messages(fields.get("messages"))
    stream = _read_bool(fields.get("stream"), "stream") or False
    return ChatRequest(
        question,
        history,
        _read_bool(own.get("follow_up"), "rsearch.follow_up"),
        stream,
        _read_include_usage(fields.get("stream_options"), stream),
        _read_temperature(fields.get("temperature")),
        _read_max_tokens(fields),
        _read_style(own.get("style")),
    )


def _parse(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8", "invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", "invalid_json") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", "invalid_json") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "the body must be a JSON object", "invalid_json")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_model(value: Any, served: str) -> None:
    if value is None:
        raise bad_field("model", f"is missing; this server has {served}")
    if not isinstance(value, str):
        raise bad_field("model", "must be a string")
    if value != served:
        message = f"model: there is no {_quote(value)} here; this server has {served}"
        raise ApiError(404, message, "model_not_found", param="model")


def _read_messages(value: Any) -> tuple[str, tuple[Turn, ...]]:
    """Return the question and the turns before it."""
    if not isinstance(value, list) or not value:
        raise bad_field("messages", "must be a list with at least one message")
    if len(value) > MAX_MESSAGES:
        raise bad_field("messages", f"at most {MAX_MESSAGES:,} are read, got {len(value):,}")
    read = [_read_message(message, f"messages[{n}]") for n, message in enumerate(value)]
    said = [(role, text) for role, text in read if role not in _IGNORED_ROLES]
    if not said or said[-1][0] != "user":
        raise bad_field("messages", "the last message must be the user's question")
    if not said[-1][1].strip():
        raise bad_field(f"messages[{len(value) - 1}].content", "the question is empty")
    return said[-1][1], _pair_turns(said[:-1])


def _read_message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise bad_field(where, "must be an object with role and content")
    role = message.get("role")
    if role not in ("user", "assistant", *_IGNORED_ROLES):
        raise bad_field(f"{where}.role", "must be system, developer, user or assistant")
    if message.get("tool_calls") or message.get("function_call"):
        raise bad_field(f"{where}.tool_calls", "the agent calls no tools of clients")
    return role, _read_content(message.get("content"), role, f"{where}.content")


def _read_content(content: Any, role: str, where: str) -> str:
    if content is None and role == "assistant":
        return ""
    if isinstance(content, str):
        return mend(content)
    if not isinstance(content, list):
        raise bad_field(where, "must be a string or a list of text parts")
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(text, str):
            raise bad_field(f"{where}[{number}]", "only text parts are supported")
        texts.append(mend(text))
    return "\n".join(texts)


def _pair_turns(said: Sequence[tuple[str, str]]) -> tuple[Turn, ...]:
    """Pair the user's messages with the answers that follow them."""
    turns: list[Turn] = []
    for role, text in said:
        if role == "user":
            turns.append(Turn(text, None))
        elif turns and text:
            earlier = turns[-1].answer
            answer = text if earlier is None else f"{earlier}\n{text}"
            turns[-1] = Turn(turns[-1].question, answer)
    return tuple(turns)


def _read_include_usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not isinstance(value, dict):
        raise bad_field("stream_options", "must be an object")
    if not stream:
        raise bad_field("stream_options", "needs stream: true")
    return _read_bool(value.get("include_usage"), "stream_options.include_usage") or False


def _read_temperature(value: Any) -> float:
    if value is None:
        return 0.0
    if not is_finite(value) or not 0.0 <= value <= MAX_TEMPERATURE:
        raise bad_field("temperature", f"must be a number from 0 to {MAX_TEMPERATURE:g}")
    return float(value)


def _read_max_tokens(fields: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = fields.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise bad_field(name, "must be a whole number of at least 1")
        return value
    return None


def _read_style(value: Any) -> Style | None:
    if value is not None and value not in get_args(Style):
        raise bad_field("rsearch.style", "must be short or paragraph")
    return cast(Style | None, value)


def _read_bool(value: Any, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise bad_field(name, "must be true or false")
    return value


def _read_object(value: Any, name: str, known: Sequence[str]) -> dict[str, Any]:
    """Return an object of our own, in which an unknown field is a mistake."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_field(name, "must be an object")
    for key in value:
        if key not in known:
            raise bad_field(f"{name}.{_quote(key)}", f"unknown; known are {', '.join(known)}")
    return value


def _quote(text: str) -> str:
    short = text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}…"
    return dump_json(short)
