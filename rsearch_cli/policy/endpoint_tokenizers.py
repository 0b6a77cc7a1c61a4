"""Tokenizers of servers that render chats to token ids and continue ids.

Chat requests pass through the server's template and thought parser, and templates of reasoning
models remove thoughts from the turn to be continued. Ids pass unchanged, so the model sees what it
sees on local weights. Checked on vLLM 0.32 and llama.cpp of October 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from rsearch_cli.services.chat_client import ChatClient
from rsearch_cli.services.outcomes import PermanentFailure

VLLM_SAMPLING: Mapping[str, Any] = MappingProxyType(
    {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
)
"""Options that make vLLM and SGLang sample from the model's own distribution.

They take missing options from the generation settings that a model ships.
"""

VLLM_IDS: Mapping[str, Any] = MappingProxyType(
    {
        **VLLM_SAMPLING,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "return_token_ids": True,
    }
)
"""Options of a vLLM completion that returns every token."""

LLAMA_CPP_SAMPLING: Mapping[str, Any] = MappingProxyType(
    {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}
)
"""The same for llama.cpp, which takes missing options from its command line."""


class ServerTokenizer(Protocol):
    """A server's tokenizer.

    Attributes:
        options: Options of every completion that continues ids.
    """

    options: Mapping[str, Any]

    async def render(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Render a chat for the model's turn, as ids."""
        ...

    async def encode(self, text: str) -> list[int]:
        """Encode text inside a turn."""
        ...

    async def decode(self, ids: Sequence[int]) -> str:
        """Decode ids, special tokens included."""
        ...


async def _ask(line: ChatClient, path: str, body: Mapping[str, Any], field: str) -> Any:
    """Post to a path outside the OpenAI API; return a field of the answer.

    Raises:
        PermanentFailure: The path does not exist, or the answer lacks the field.
    """
    found = await line.look_up(path, body, beside=True)
    if not isinstance(found, Mapping) or field not in found:
        raise PermanentFailure(f"{line.who} at {line.url}{path} sent no {field}", free=True)
    return found[field]


class VllmTokenizer:
    """vLLM: `/tokenize` renders chats, and completions return their ids."""

    options = VLLM_IDS

    def __init__(self, line: ChatClient) -> None:
        """Use the server of a client."""
        self._line = line

    async def render(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Render a chat for the model's turn, as ids."""
        return await self._tokenize(messages=messages, add_generation_prompt=True)

    async def encode(self, text: str) -> list[int]:
        """Encode text inside a turn."""
        return await self._tokenize(prompt=text, add_special_tokens=False)

    async def decode(self, ids: Sequence[int]) -> str:
        """Decode ids, special tokens included."""
        body = {"model": self._line.model, "tokens": list(ids)}
        return str(await _ask(self._line, "/detokenize", body, "prompt"))

    async def _tokenize(self, **what: Any) -> list[int]:
        body = {"model": self._line.model, **what}
        return list(await _ask(self._line, "/tokenize", body, "tokens"))


class LlamaCppTokenizer:
    """llama.cpp: `/apply-template` renders chats to text, `/tokenize` encodes it."""

    options = LLAMA_CPP_SAMPLING

    def __init__(self, line: ChatClient) -> None:
        """Use the server of a client."""
        self._line = line

    async def render(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Render a chat for the model's turn, as ids."""
        body = {"messages": list(messages)}
        return await self.encode(await _ask(self._line, "/apply-template", body, "prompt"))

    async def encode(self, text: str) -> list[int]:
        """Encode text inside a turn."""
        body = {"content": text, "add_special": False, "parse_special": True}
        return list(await _ask(self._line, "/tokenize", body, "tokens"))

    async def decode(self, ids: Sequence[int]) -> str:
        """Decode ids, special tokens included."""
        body = {"tokens": list(ids)}
        return str(await _ask(self._line, "/detokenize", body, "content"))
