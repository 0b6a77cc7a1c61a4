"""How a server continues a rollout: which server it is, and where search results are put.

In training results stand in the model's own turn. vLLM, SGLang and llama.cpp can continue such a
turn; every other server is sent them as a user message. One small request shows whether the server
does what it should, before anything else is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from rsearch_cli.errors import AccessDenied, PolicyError
from rsearch_cli.policy.chat_template import find_opening
from rsearch_cli.policy.endpoint_chat import drop_echo
from rsearch_cli.policy.endpoint_tokenizers import (
    LLAMA_CPP_SAMPLING,
    VLLM_SAMPLING,
    LlamaCppTokens,
    TokenServer,
    VllmTokens,
)
from rsearch_cli.protocol.transcript import ANSWER_CLOSE, SEARCH_CLOSE, TAG
from rsearch_cli.services.chat_client import ChatClient
from rsearch_cli.services.chat_errors import RequestRefused
from rsearch_cli.services.completion import Completion
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure

Results = Literal["same_turn", "user_turn"]

VLLM, SGLANG, LLAMA_CPP = "vLLM", "SGLang", "llama.cpp"

SETTLED = ("server", "results", "requests")
"""What an evaluation keeps of a `Serving`."""

PROBE_TOKENS = 16
"""Most tokens of the reply to a probe."""

MOST_PROBES = 3
PROBE_BYTES = 400
"""Most bytes of the messages of a probe, their frames included."""

# Fields of a chat request whose last message is to be continued. SGLang takes the message out of
# the chat and adds it behind what its template opens; its parser of thoughts would read a
# continuation as a thought without an end.
_CONTINUE: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}
_CONTINUE_SGLANG: dict[str, Any] = {"continue_final_message": True, "separate_reasoning": False}
_SAMPLING: Mapping[str | None, Mapping[str, Any]] = {
    VLLM: VLLM_SAMPLING,
    SGLANG: VLLM_SAMPLING,
    LLAMA_CPP: LLAMA_CPP_SAMPLING,
    None: {},
}
_OWNERS = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMA_CPP}
_QUESTION = (
    {"role": "system", "content": "Answer with one word."},
    {"role": "user", "content": "Where was Ada Lovelace born?"},
)
_PLAN = (
    "<think> I look up one fact. </think>\n<search>\nNodes:\nA: Ada Lovelace born (General)\n"
    "Edges:\n</search>"
)
_RESULT = "\n<result>\nA: Ada Lovelace was born in London.\n</result>\n"
_TURN = f"{_PLAN}{_RESULT}<answer> Lon"
_OPTIONS: dict[str, Any] = {
    "temperature": 0,
    "max_tokens": PROBE_TOKENS,
    "stop": [SEARCH_CLOSE, ANSWER_CLOSE],
}


@dataclass(frozen=True, slots=True)
class Serving:
    """What was settled with a server.

    Attributes:
        results: Where search results go.
        why: The reason, for a person.
        server: `vLLM`, `SGLang` or `llama.cpp`; None if it is another, or was not asked.
        by_ids: Whether token ids are continued, past the server's chat template.
        opening: What the server's template opens for the model, where that is known.
        changes: What is sent another way than OpenAI's server wants it.
    """

    results: Results
    why: str
    server: str | None = None
    by_ids: bool = False
    opening: str = ""
    changes: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields as a JSON-ready dictionary, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Any) -> Serving:
        """Read what `as_json` gave; the cache may hold anything.

        Raises:
            ValueError: A field is missing, unknown or of another type.
        """
        if not isinstance(row, dict) or row.keys() != {f.name for f in fields(cls)}:
            raise ValueError("no account of how a server continues a turn")
        texts = (row["why"], row["server"] or "", row["opening"], row["changes"])
        right = row["results"] in get_args(Results) and isinstance(row["by_ids"], bool)
        if not right or not all(isinstance(text, str) for text in texts):
            raise ValueError("an account of how a server continues a turn has a wrong field")
        return cls(**row)

    def as_settings(self) -> dict[str, str | None]:
        """What predictions depend on, under the names `SETTLED`."""
        return dict(zip(SETTLED, (self.server, self.results, self.changes or None), strict=True))

    def options(self, *, continues: bool) -> dict[str, Any]:
        """Further options of a chat request, which may continue its last message."""
        fields = _CONTINUE_SGLANG if self.server == SGLANG else _CONTINUE
        return {**_SAMPLING[self.server], **(fields if continues else {})}

    def tokens(self, line: ChatClient) -> TokenServer:
        """The server's tokenizer, where ids are continued."""
        return LlamaCppTokens(line) if self.server == LLAMA_CPP else VllmTokens(line)

    def describe(self) -> str:
        """The choice and its reason in one line."""
        return f"policy.endpoint.results: {self.results}, because {self.why}"


async def settle(
    line: ChatClient,
    setting: Literal["auto", "same_turn", "user_turn"],
    on_reply: Callable[[Completion], None],
) -> Serving:
    """Ask a server what it is, and try what it can do.

    Args:
        line: To the server.
        setting: `policy.endpoint.results`; `auto` falls back to user turns.
        on_reply: Told of every reply to a probe, at most `MOST_PROBES` times.

    Raises:
        PolicyError: It cannot continue a turn, and the recipe wants that.
        PermanentFailure: It refuses a plain request.
        TransientFailure: It is busy, late or broken.
        AccessDenied: It refuses the key or the account.
    """
    serving = await _choose(_Probes(line, on_reply), setting)
    return replace(serving, changes="; ".join(line.dialect.changes))


async def _choose(probes: _Probes, setting: str) -> Serving:
    if setting == "user_turn":
        return await probes.take_user_turns("the recipe says so")
    server, name = await identify(probes.line)
    wanted = "the recipe says so" if setting == "same_turn" else f"{name} continues a turn"
    serving = Serving("same_turn", wanted, server)
    if server in (VLLM, LLAMA_CPP) and (by_ids := await probes.try_ids(serving)):
        return by_ids
    if server is None and setting == "auto":
        return await probes.take_user_turns(f"the server is none of {', '.join(_OWNERS.values())}")
    problem, refused = await probes.try_same_turn(serving)
    if problem is None:
        return serving
    if setting == "auto":
        return await probes.take_user_turns(f"the server is {name}, but {problem}", server)
    if refused:
        raise PolicyError(
            f"policy.endpoint.results is same_turn, but {problem}; set it to auto or user_turn"
        )
    return replace(serving, why=f"the recipe says so, but {problem}")


async def identify(line: ChatClient) -> tuple[str | None, str]:
    """Which of the servers that continue a turn this is, or None; and its name with its version."""
    if line.is_public:
        return None, "OpenAI"
    listed = (await _look_up(line, "/models")).get("data")
    entries = listed if isinstance(listed, list) else []
    owners = {str(entry.get("owned_by")).lower() for entry in entries if isinstance(entry, dict)}
    server = next((name for owner, name in _OWNERS.items() if owner in owners), None)
    if server is None and await _look_up(line, "/props", "default_generation_settings"):
        server = LLAMA_CPP
    if server is None and (
        await _look_up(line, "/server_info", "model_path")
        or await _look_up(line, "/get_server_info", "model_path")
    ):
        server = SGLANG
    # Others have owners of their own: Ollama `library`, LiteLLM `openai`.
    version = ""
    if server in (VLLM, None) and not owners - {*_OWNERS, "none"}:
        version = str((await _look_up(line, "/version", "version")).get("version", ""))
        server = VLLM if version else server
    return server, f"{server} {version}".strip()


async def _look_up(line: ChatClient, path: str, field: str = "") -> dict[str, Any]:
    """A JSON object of the server's with a certain field; an empty one if it has none such."""
    try:
        found = await line.look_up(path, beside=bool(field))
    except (PermanentFailure, TransientFailure, AccessDenied):
        return {}  # some servers refuse every path but those they have
    return found if isinstance(found, dict) and (not field or field in found) else {}


@dataclass(frozen=True, slots=True)
class _Probes:
    """The small requests that show what a server does."""

    line: ChatClient
    on_reply: Callable[[Completion], None]

    async def try_ids(self, serving: Serving) -> Serving | None:
        """Continue ids by one token; None if the server cannot be reached that way."""
        line, tokens = self.line, serving.tokens(self.line)
        try:
            prompt = await self._render(tokens)
            rendered = await tokens.decode(prompt)
            ids = [*prompt, *await tokens.encode(_TURN)]
            options = {"max_tokens": 1, "temperature": 0, **tokens.options}
            self.on_reply(await line.continue_ids(ids, **options))
        except (PermanentFailure, AccessDenied):
            return None
        return replace(serving, by_ids=True, opening=find_opening(list(_QUESTION), rendered))

    async def _render(self, tokens: TokenServer) -> list[int]:
        """Render the question, without a system message if the template refuses one."""
        sent = self.line.dialect.put(_QUESTION, {})
        try:
            return await tokens.render(sent.messages)
        except RequestRefused as refused:
            if not self.line.dialect.learn(refused.refusal, sent):
                raise
            return await tokens.render(self.line.dialect.put(_QUESTION, {}).messages)

    async def try_same_turn(self, serving: Serving) -> tuple[str | None, bool]:
        """Let the server continue half an answer.

        Returns:
            What is wrong with the outcome, or None, and whether the server refused the request.
        """
        messages = [*_QUESTION, {"role": "assistant", "content": _TURN}]
        try:
            reply = await self.line.complete(
                messages, **_OPTIONS, **serving.options(continues=True)
            )
        except RequestRefused as refusal:
            return f"it does not continue the model's turn: {refusal}", True
        self.on_reply(reply)
        begun = TAG.match(drop_echo(reply.text, _TURN).lstrip())
        if begun and not begun[1] and begun[2].lower() in ("think", "search"):
            return "it seems to begin a new turn where it should continue the model's", False
        return None, False

    async def take_user_turns(self, why: str, server: str | None = None) -> Serving:
        """Send a result as a user message; every server takes that."""
        serving = Serving("user_turn", why, server)
        messages = [
            *_QUESTION,
            {"role": "assistant", "content": _PLAN},
            {"role": "user", "content": _RESULT},
        ]
        options = {**_OPTIONS, **serving.options(continues=False)}
        self.on_reply(await self.line.complete(messages, **options))
        return serving
