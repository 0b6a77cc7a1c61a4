"""OpenAI-compatible servers that differ from OpenAI's, each in the ways that its names say.

`QuirkyServer("reasoning_content", "finish:eos")` has two quirks; refusals are in the words of the
servers that make them. `engine` adds what a server of that make shows beside the API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from local_http import Answer, Received
from openai_chat import ChatServer, Said, make_completion

Body = dict[str, Any]

FOREIGN = (
    *("max_completion_tokens", "continue_final_message", "add_generation_prompt", "top_k"),
    *("separate_reasoning", "min_p", "repetition_penalty", "prompt", "return_token_ids"),
    *("skip_special_tokens", "spaces_between_special_tokens", "typical_p", "repeat_penalty"),
)
_THOUGHT = re.compile(r"^\s*<think>(.*?)</think>", re.DOTALL)


def unsupported(name: str, instead: str = "") -> Answer:
    """OpenAI's refusal of a parameter."""
    hint = f" Use '{instead}' instead." if instead else ""
    message = f"Unsupported parameter: '{name}' is not supported with this model.{hint}"
    return error(400, message, param=name, code="unsupported_parameter")


def error(status: int, message: str, **fields: Any) -> Answer:
    """OpenAI's error body."""
    kind = {"type": "invalid_request_error", "param": None, "code": None}
    return status, {"error": {"message": message, **kind, **fields}}


def forbidden(*names: str) -> Answer:
    """Mistral's refusal of fields that it does not know."""
    rows = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
        for name in names
    ]
    return 422, {"detail": rows}


def ends_with_assistant(body: Body) -> bool:
    """Whether a request asks to continue an assistant message."""
    return bool(body.get("messages")) and body["messages"][-1]["role"] == "assistant"


def no_prefill(body: Body) -> Answer | None:
    """Anthropic's models of 2026."""
    if ends_with_assistant(body):
        return error(400, "This model does not support assistant message prefill.")
    return None


def mistral(body: Body) -> Answer | None:
    """Mistral's API continues a message that is marked, and takes no foreign field."""
    strange = [n for n in ("continue_final_message", "add_generation_prompt") if n in body]
    if strange:
        return forbidden(*strange)
    if ends_with_assistant(body) and not body["messages"][-1].pop("prefix", False):
        return error(
            400, "Expected last role User or Tool (or Assistant with prefix True) for serving"
        )
    return None


def oseries(body: Body) -> Answer | None:
    """OpenAI's reasoning models."""
    if "max_tokens" in body:
        return unsupported("max_tokens", "max_completion_tokens")
    if body.get("temperature", 1) != 1:
        words = "'temperature' does not support 0 with this model. Only the default (1) value is"
        return error(
            400,
            f"Unsupported value: {words} supported.",
            param="temperature",
            code="unsupported_value",
        )
    return unsupported("stop") if "stop" in body else None


def has_system(body: Body) -> bool:
    """Whether a request has a system message."""
    return any(message["role"] == "system" for message in body.get("messages", ()))


REFUSALS: dict[str, Callable[[Body], Answer | None]] = {
    "oseries": oseries,
    "mistral": mistral,
    "no-prefill": no_prefill,
    "no-system": lambda b: error(400, "System role not supported") if has_system(b) else None,
    "no-system-500": lambda b: (
        error(500, "Jinja Exception: System role not supported", code=500)
        if has_system(b)
        else None
    ),
    "o1-mini-system": lambda b: (
        error(
            400,
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            param="messages[0].role",
            code="unsupported_value",
        )
        if has_system(b)
        else None
    ),
    "positive-temperature": lambda b: (
        error(422, "Input validation error: `temperature` must be strictly positive")
        if b.get("temperature") == 0
        else None
    ),
    "no-temperature-fastapi": lambda b: forbidden("temperature") if "temperature" in b else None,
    "no-stream-options": lambda b: forbidden("stream_options") if "stream_options" in b else None,
    "no-stream": lambda b: (
        error(400, "Streaming is not supported by this deployment.") if b.get("stream") else None
    ),
    "no-formats": lambda b: unsupported("response_format") if "response_format" in b else None,
    "context": lambda b: error(
        400,
        "This model's maximum context length is 512 tokens. However, you requested 1024 tokens "
        "(500 in the messages, 524 in the completion). Please reduce the length of the messages.",
        code="context_length_exceeded",
    ),
    "unknown-model": lambda b: error(404, f'model "{b["model"]}" not found, try pulling it first'),
    "unknown-model-400": lambda b: error(400, f"{b['model']} is not a valid model ID"),
    "limit-reached": lambda b: (
        error(
            400,
            "Could not finish the message because max_tokens or model output limit was reached.",
        )
        if b.get("max_tokens", 0) <= 16
        else None
    ),
}


def split_thought(choice: Body) -> str:
    """Take the thought out of a reply, as parsers do; what stays is the content."""
    message = choice["message"]
    found = _THOUGHT.match(message["content"] or "")
    if found:
        message["content"] = message["content"][found.end() :]
    return found[1] if found else ""


def send_apart(field: str) -> Callable[[Body, Body], None]:
    """Send the thought in a field of its own."""

    def change(choice: Body, body: Body) -> None:
        if thought := split_thought(choice):
            choice["message"][field] = thought

    return change


def reasoning_details(choice: Body, body: Body) -> None:
    """OpenRouter's list, which may hold what nobody can read."""
    if thought := split_thought(choice):
        choice["message"]["reasoning_details"] = [
            {"type": "reasoning.encrypted", "data": "gAAA="},
            {"type": "reasoning.text", "text": thought, "signature": None},
        ]


def thinking_parts(choice: Body, body: Body) -> None:
    """Mistral's Magistral: content as a list, the thought among its parts."""
    thought = split_thought(choice)
    parts: list[Body] = [{"type": "text", "text": choice["message"]["content"]}]
    if thought:
        parts.insert(0, {"type": "thinking", "thinking": [{"type": "text", "text": thought}]})
    choice["message"]["content"] = parts


def content_parts(choice: Body, body: Body) -> None:
    """Content as a list of one part."""
    choice["message"]["content"] = [{"type": "text", "text": choice["message"]["content"]}]


def both(choice: Body, body: Body) -> None:
    """The thought apart, and still in the content."""
    found = _THOUGHT.match(choice["message"]["content"])
    choice["message"]["reasoning"] = found[1] if found else None


def swallowed(choice: Body, body: Body) -> None:
    """A parser that saw no end of a thought: without one, everything is taken for it."""
    text = choice["message"]["content"]
    if "</think>" in text:
        send_apart("reasoning")(choice, body)
    else:
        choice["message"] |= {"content": None, "reasoning": text}


def headless(choice: Body, body: Body) -> None:
    """The chat template has opened the thought."""
    choice["message"]["content"] = choice["message"]["content"].removeprefix("<think>")


def echo(choice: Body, body: Body) -> None:
    """llama.cpp repeats the message that it continues."""
    if ends_with_assistant(body):
        message = choice["message"]
        message["content"] = body["messages"][-1]["content"] + message["content"]


def cut_nothing(choice: Body, body: Body) -> None:
    """A server that does not know stop strings writes on, until its limit ends it."""
    text = choice["message"]["content"]
    tag = re.search(r"<(search|answer)>(?!.*</\1>)", text, re.DOTALL)
    beyond = "\n<result>\nA: made up\n</result>\n<answer> nowhere </answer>"
    choice["message"]["content"] = text + (f"</{tag[1]}>{beyond}" if tag else "")


def keep_stop(choice: Body, body: Body) -> None:
    """The stop string stays at the end of the text."""
    text = choice["message"]["content"]
    tag = re.search(r"<(search|answer)>(?!.*</\1>)", text, re.DOTALL)
    choice["message"]["content"] = text + (f"</{tag[1]}>" if tag else "")


def empty(value: Any) -> Callable[[Body, Body], None]:
    """No text at all."""
    return lambda choice, body: choice["message"].update(content=value)


def name_stop(field: str) -> Callable[[Body, Body], None]:
    """Name the stop string, as vLLM and SGLang do."""

    def change(choice: Body, body: Body) -> None:
        tag = re.search(r"<(search|answer)>(?!.*</\1>)", choice["message"]["content"], re.DOTALL)
        choice[field] = f"</{tag[1]}>" if tag else None

    return change


REPLIES: dict[str, Callable[[Body, Body], None]] = {
    "reasoning_content": send_apart("reasoning_content"),
    "reasoning": send_apart("reasoning"),
    "reasoning_details": reasoning_details,
    "thinking-parts": thinking_parts,
    "content-parts": content_parts,
    "both": both,
    "swallowed": swallowed,
    "headless": headless,
    "echo": echo,
    "stop-ignored": cut_nothing,
    "stop-kept": keep_stop,
    "stop_reason": name_stop("stop_reason"),
    "matched_stop": name_stop("matched_stop"),
    "null": empty(None),
    "empty": empty(""),
}


class QuirkyServer(ChatServer):
    """A chat server with quirks.

    Args:
        quirks: Names of `REFUSALS` and `REPLIES`; `finish:X` gives that reason for every end but
            that of the limit, `finish:` none; `whole` answers without a stream where one is asked
            for; `new-turn` begins a new turn instead of continuing one; `guarded` refuses every
            other path; `no-ids` has no tokenizer to ask; the chat template of `drop-thoughts` does
            so; with `wide-token` the last token of vLLM holds a line break behind the tag.
        engine: `vllm`, `sglang` or `llamacpp`: what models belong to, and what stands beside the
            API; `""` shows nothing.
        settings: Those of `ChatServer`.
    """

    def __init__(self, *quirks: str, engine: str = "", **settings: Any) -> None:
        super().__init__(extras=FOREIGN, **settings)
        self.quirks = quirks
        self.engine = engine

    def respond(self, request: Received) -> Answer:
        """Refuse what a quirk refuses, and change the reply by the others."""
        if request.path != "/v1/chat/completions":
            return self._respond_beside(request)
        body = json.loads(json.dumps(request.body))
        for quirk in self.quirks:
            refused = REFUSALS.get(quirk, lambda body: None)(body)
            if refused is not None:
                return refused
        plain = {**body, "messages": body["messages"][:-1]} if self._begins_anew(body) else body
        if "max_completion_tokens" in plain:
            plain["max_tokens"] = plain.pop("max_completion_tokens")
        asked = Received(request.method, request.path, {}, request.headers, plain, request.arrived)
        status, answer = super().respond(asked)
        if status == 200:
            self._change(answer["choices"][0], body)
        return status, answer

    def split(self, request: Received, value: Any) -> list[str] | None:
        """The chunks of a stream: the thought first, then the text, in the form of the message."""
        if not (request.body or {}).get("stream") or "whole" in self.quirks:
            return None
        choice = value["choices"][0]
        ends = {k: v for k, v in choice.items() if k in ("stop_reason", "matched_stop")}
        if "message" not in choice:
            first = {k: v for k, v in choice.items() if k in ("text", "token_ids")}
            return [json.dumps({"choices": [first]}), self._end(value, ends), "[DONE]"]
        message = choice["message"]
        apart = {k: v for k, v in message.items() if k not in ("role", "content", "refusal")}
        content = message["content"]
        parts = content if isinstance(content, list) else re.findall(r"\s*\S+|\s+", content or "")
        deltas = [apart] if apart else []
        deltas += [{"content": [part] if isinstance(part, dict) else part} for part in parts]
        chunks = [{"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
        return [*map(json.dumps, chunks), self._end(value, ends), "[DONE]"]

    def _end(self, value: Body, fields: Body) -> str:
        finish = value["choices"][0]["finish_reason"]
        last = {"index": 0, "delta": {}, "finish_reason": finish, **fields}
        usage = {"usage": value["usage"]} if "usage" in value else {}
        return json.dumps({"choices": [last], **usage})

    def _begins_anew(self, body: Body) -> bool:
        return "new-turn" in self.quirks and ends_with_assistant(body)

    def _change(self, choice: Body, body: Body) -> None:
        for quirk in self.quirks:
            if quirk.startswith("finish:") and choice["finish_reason"] == "stop":
                choice["finish_reason"] = quirk.removeprefix("finish:") or None
            elif quirk in REPLIES:
                REPLIES[quirk](choice, body)

    def _respond_beside(self, request: Received) -> Answer:
        path = request.path
        if "guarded" in self.quirks:
            return error(401, "Unauthorized")
        if path == "/v1/models" and self.engine:
            return 200, {"object": "list", "data": [{"id": "agent", "owned_by": self.engine}]}
        if self.engine == "vllm" and path == "/version":
            return 200, {"version": "0.32.0"}
        if self.engine in ("vllm", "llamacpp") and "no-ids" not in self.quirks:
            return self._respond_by_ids(path, request.body)
        return 404, {"detail": "Not Found"}

    def _respond_by_ids(self, path: str, body: Body) -> Answer:
        """A tokenizer of one id a character, and completions of ids, as vLLM and llama.cpp do."""
        for quirk in self.quirks:
            if (refused := REFUSALS.get(quirk, lambda body: None)(body)) is not None:
                return refused
        if path == "/apply-template":
            return 200, {"prompt": render(self._drop_thoughts(body["messages"]))}
        if path == "/tokenize":
            text = render(self._drop_thoughts(body["messages"])) if "messages" in body else ""
            text = text or body.get("prompt") or body.get("content") or ""
            return 200, {"tokens": [ord(c) for c in text]}
        if path == "/detokenize":
            text = "".join(map(chr, body["tokens"]))
            return 200, {"prompt": text, "content": text}
        if path != "/v1/completions":
            return 404, {"detail": "Not Found"}
        text = "".join(map(chr, body["prompt"]))
        chat = {**body, "messages": [{"role": "user", "content": text}]}
        said = self.grade(chat)
        answer = make_completion(chat, said if isinstance(said, Said) else Said(said))
        choice = answer["choices"][0]
        written = choice.pop("message")["content"]
        if text.rstrip().endswith("<think>"):
            written = written.removeprefix("<think>")
        choice["text"] = written
        tag = re.search(r"<(search|answer)>(?!.*</\1>)", written, re.DOTALL)
        if self.engine == "vllm":
            choice["stop_reason"] = f"</{tag[1]}>" if tag else None
            whole = written + (choice["stop_reason"] or "")
            whole += "\n" if tag and "wide-token" in self.quirks else ""
            choice["token_ids"] = [ord(c) for c in whole]
        return 200, answer

    def _drop_thoughts(self, messages: list[Body]) -> list[Body]:
        """As the templates of reasoning models do with the turns of the assistant."""
        if "drop-thoughts" not in self.quirks:
            return messages
        return [
            {**m, "content": m["content"].rpartition("</think>")[2]}
            if m["role"] == "assistant"
            else m
            for m in messages
        ]


def render(messages: list[Body]) -> str:
    """A chat template that opens the thought."""
    return "".join(f"<|{m['role']}|>{m['content']}" for m in messages) + "<|assistant|><think>\n"
