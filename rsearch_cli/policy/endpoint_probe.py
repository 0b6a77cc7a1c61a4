"""How a server continues a rollout: which server it is, and where search results go.

In training, results stand inside the model's own turn. vLLM, SGLang and llama.cpp can continue such
a turn; any other server receives results as a user message. A small request shows what the server
really does before anything else is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import ConfigDict, StrictBool, TypeAdapter

from rsearch_cli.errors import AccessDenied, PolicyError
from rsearch_cli.policy.chat_template import find_opening
from rsearch_cli.policy.endpoint_chat import strip_echo
from rsearch_cli.policy.endpoint_tokenizers import (
    LLAMA_CPP_SAMPLING,
    VLLM_SAMPLING,
    LlamaCppTokenizer,
    ServerTokenizer,
    VllmTokenizer,
)
from rsearch_cli.protocol.transcript import ANSWER_CLOSE, SEARCH_CLOSE, TAG
from rsearch_cli.services.chat_client import ChatClient
from rsearch_cli.services.chat_errors import RequestRefused
from rsearch_cli.services.completion import Completion
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.validation import validate

Results = Literal["same_turn", "user_turn"]

VLLM, SGLANG, LLAMA_CPP = "vLLM", "SGLang", "llama.cpp"

MODE_SETTINGS = ("server", "results", "requests")
"""What an evaluation records of a `ServerMode`."""

PROBE_TOKENS = 16
"""Token limit of a reply to a probe."""

MOST_PROBES = 3
PROBE_BYTES = 400
"""Upper bound for the messages of one probe, with the markers around them."""

# Fields of a chat request that continues its last message. SGLang appends that message behind
# whatever its template opens; its thought parser would take a continuation for an unclosed thought.
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
class ServerMode:
    """How a server is used.

    Attributes:
        results: Where search results go.
        why: The reason, for the log.
        server: `vLLM`, `SGLang` or `llama.cpp`; None if it is another, or was not probed.
        by_ids: Whether token ids are continued, bypassing the server's chat template.
        opening: What the server's template opens for the model, if known.
        changes: How requests differ from those to OpenAI's server.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    results: Results
    why: str
    server: str | None = None
    by_ids: StrictBool = False
    opening: str = ""
    changes: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Any) -> ServerMode:
        """Decode the result of `as_json`, which comes from the cache and may be damaged.

        Raises:
            ValueError: A field is missing, unknown or of the wrong type.
        """
        return validate(_MODE, row)

    def as_settings(self) -> dict[str, str | None]:
        """Return what predictions depend on, under the names `MODE_SETTINGS`."""
        return dict(
            zip(MODE_SETTINGS, (self.server, self.results, self.changes or None), strict=True)
        )

    def options(self, *, continues: bool) -> dict[str, Any]:
        """Return further options of a chat request, which may continue its last message."""
        fields = _CONTINUE_SGLANG if self.server == SGLANG else _CONTINUE
        return {**_SAMPLING[self.server], **(fields if continues else {})}

    def tokenizer(self, line: ChatClient) -> ServerTokenizer:
        """Return the server's tokenizer, for servers that continue ids."""
        return LlamaCppTokenizer(line) if self.server == LLAMA_CPP else VllmTokenizer(line)

    def describe(self, section: str) -> str:
        """Return the choice and its reason in one line; `section` is that of the recipe."""
        return f"{section}.results: {self.results}, because {self.why}"


_MODE = TypeAdapter(ServerMode)


async def probe_server(
    line: ChatClient,
    setting: Literal["auto", "same_turn", "user_turn"],
    on_reply: Callable[[Completion], None],
    section: str,
) -> ServerMode:
    """Identify a server and try out what it can do.

    Args:
        line: Client of the server.
        setting: The recipe's `results`; `auto` falls back to user turns.
        on_reply: Called with every reply to a probe, at most `MOST_PROBES` times.
        section: Section of the recipe, for messages.

    Raises:
        PolicyError: It cannot continue a turn, and the recipe requires that.
        PermanentFailure: It refuses a plain request.
        TransientFailure: It is busy, slow or broken.
        AccessDenied: It refuses the key or the account.
    """
    mode = await _choose(_Probes(line, on_reply), setting, section)
    return replace(mode, changes="; ".join(line.dialect.changes))


async def _choose(probes: _Probes, setting: str, section: str) -> ServerMode:
    if setting == "user_turn":
        return await probes.take_user_turns("the recipe says so")
    server, name = await identify(probes.line)
    wanted = "the recipe says so" if setting == "same_turn" else f"{name} continues a turn"
    mode = ServerMode("same_turn", wanted, server)
    if server in (VLLM, LLAMA_CPP) and (by_ids := await probes.try_ids(mode)):
        return by_ids
    if server is None and setting == "auto":
        return await probes.take_user_turns(f"the server is none of {', '.join(_OWNERS.values())}")
    problem, refused = await probes.try_same_turn(mode)
    if problem is None:
        return mode
    if setting == "auto":
        return await probes.take_user_turns(f"the server is {name}, but {problem}", server)
    if refused:
        raise PolicyError(
            f"{section}.results is same_turn, but {problem}; set it to auto or user_turn"
        )
    return replace(mode, why=f"the recipe says so, but {problem}")


async def identify(line: ChatClient) -> tuple[str | None, str]:
    """Return which turn-continuing server this is, or None, and its name with its version."""
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
    # Other servers report their own owners: Ollama `library`, LiteLLM `openai`.
    version = ""
    if server in (VLLM, None) and not owners - {*_OWNERS, "none"}:
        version = str((await _look_up(line, "/version", "version")).get("version", ""))
        server = VLLM if version else server
    return server, f"{server} {version}".strip()


async def _look_up(line: ChatClient, path: str, field: str = "") -> dict[str, Any]:
    """Get a JSON object with a certain field from the server; {} if there is none."""
    try:
        found = await line.look_up(path, beside=bool(field))
    except (PermanentFailure, TransientFailure, AccessDenied):
        return {}  # some servers answer unknown paths with 401 or 500
    return found if isinstance(found, dict) and (not field or field in found) else {}


@dataclass(frozen=True, slots=True)
class _Probes:
    """Small requests that show what a server can do."""

    line: ChatClient
    on_reply: Callable[[Completion], None]

    async def try_ids(self, mode: ServerMode) -> ServerMode | None:
        """Continue ids by one token; None if the server cannot do that."""
        line, tokenizer = self.line, mode.tokenizer(self.line)
        try:
            prompt = await self._render(tokenizer)
            rendered = await tokenizer.decode(prompt)
            ids = [*prompt, *await tokenizer.encode(_TURN)]
            options = {"max_tokens": 1, "temperature": 0, **tokenizer.options}
            self.on_reply(await line.continue_ids(ids, **options))
        except (PermanentFailure, AccessDenied):
            return None
        return replace(mode, by_ids=True, opening=find_opening(list(_QUESTION), rendered))

    async def _render(self, tokenizer: ServerTokenizer) -> list[int]:
        """Render the question, without a system message if the template refuses one."""
        sent = self.line.dialect.put(_QUESTION, {})
        try:
            return await tokenizer.render(sent.messages)
        except RequestRefused as refused:
            if not self.line.dialect.learn(refused.refusal, sent):
                raise
            return await tokenizer.render(self.line.dialect.put(_QUESTION, {}).messages)

    async def try_same_turn(self, mode: ServerMode) -> tuple[str | None, bool]:
        """Have the server continue half an answer.

        Returns:
            What went wrong, or None, and whether the server refused the request.
        """
        messages = [*_QUESTION, {"role": "assistant", "content": _TURN}]
        try:
            reply = await self.line.complete(messages, **_OPTIONS, **mode.options(continues=True))
        except RequestRefused as refusal:
            return f"it does not continue the model's turn: {refusal}", True
        self.on_reply(reply)
        started = TAG.match(strip_echo(reply.text, _TURN).lstrip())
        if started and not started[1] and started[2].lower() in ("think", "search"):
            return "it begins a new turn instead of continuing the model's", False
        return None, False

    async def take_user_turns(self, why: str, server: str | None = None) -> ServerMode:
        """Send a result as a user message, which every server accepts."""
        mode = ServerMode("user_turn", why, server)
        messages = [
            *_QUESTION,
            {"role": "assistant", "content": _PLAN},
            {"role": "user", "content": _RESULT},
        ]
        options = {**_OPTIONS, **mode.options(continues=False)}
        self.on_reply(await self.line.complete(messages, **options))
        return mode
