"""Client of an OpenAI-compatible server: sends one request and reads its completion.

Errors become `TransientFailure`, `PermanentFailure` (or a subclass in `chat_errors`) or
`AccessDenied`. No message contains a secret.
"""

from __future__ import annotations

import json
import logging
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from rsearch_cli.errors import AccessDenied
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.services.chat_dialect import Dialect, Message
from rsearch_cli.services.chat_errors import KEY_PAGE, KEY_VARIABLE, RequestRefused, translate
from rsearch_cli.services.completion import LENGTH, Completion, NoCompletion, ReplyReader
from rsearch_cli.services.http import check_proxies, open_client
from rsearch_cli.services.keys import check_key, hide_secrets, read_key
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.validation import mend

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"

MESSAGE_CHARS = 200
"""Most characters of a server's message that are quoted in one of ours."""

OnPart = Callable[[str, str], None]
"""Called with the thought and the text of a reply so far."""

# What the client and the parsing of its answers raise for malformed answers.
_NONSENSE = (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError)

_CHAT, _COMPLETIONS = "/chat/completions", "/completions"
_NAMED_MODELS = 10
_LOOKUP_SECONDS = 10.0
# A shorter secret is hidden only as a whole word: users set keys such as `x` for servers that need
# none, and messages would be unreadable without that letter.
_SHORT_SECRET = 8
# OpenAI's error when the thought of a reasoning model used up all tokens.
_CUT_OFF = re.compile(r"output limit was reached", re.IGNORECASE)


class ChatClient:
    """An OpenAI-compatible server and one model on it.

    Attributes:
        who: Name of the server in messages, such as `the judge`.
        model: Name of the model on the server.
        model_setting: The setting that holds this name, for messages.
        shorten: The settings to lower if a request is too long, for messages.
        url: The server's base URL, without credentials.
        answered: Whether there has been a completion, so that model and address are right.
        dialect: How requests are changed because the server refused them before.
    """

    def __init__(
        self,
        who: str,
        model: str,
        model_setting: str,
        base_url: str,
        timeout_seconds: float,
        shorten: str,
    ) -> None:
        """Read address and key; nothing is sent.

        Args:
            who: Name of the server in messages.
            model: Name of the model on the server.
            model_setting: The setting that holds this name, for messages.
            base_url: The server's address; may contain a user name and a password.
            timeout_seconds: Longest duration of one call.
            shorten: The settings to lower if a request is too long, for messages.
        """
        self.who = who
        self.model = model
        self.model_setting = model_setting
        self._timeout = timeout_seconds
        self.shorten = shorten
        self._full_url = base_url.rstrip("/")
        self._key = read_key(KEY_VARIABLE)
        self.url = hide_login(self._full_url)
        self._secrets = _find_secrets(self._full_url, self._key)
        self._client: Any = None
        self.answered = False
        self.dialect = Dialect()
        self._reported = 0

    @property
    def is_public(self) -> bool:
        """Whether this is OpenAI's own server, which always needs a key."""
        return urlsplit(self.url).hostname == urlsplit(OPENAI_URL).hostname

    @property
    def has_key(self) -> bool:
        """Whether requests carry a key."""
        return bool(self._key)

    def check_key(self, otherwise: str) -> None:
        """Check that there is a key if one is needed.

        Args:
            otherwise: What to do without a key, for the message.

        Raises:
            AccessDenied: OpenAI's own server without a key, or a text that cannot be a key.
            SourceError: The proxy settings of the environment cannot be used.
        """
        check_proxies()
        if self._key:
            check_key(KEY_VARIABLE, self._key)
        elif self.is_public:
            raise AccessDenied(
                f"{self.who} {self.model} at {self.url} needs a key and {KEY_VARIABLE} is not"
                f" set; get one at {KEY_PAGE}, or {otherwise}"
            )

    async def complete(
        self, messages: Sequence[Message], on_part: OnPart | None = None, **options: Any
    ) -> Completion:
        """Request one completion of a chat.

        If the server refuses a parameter, field or role by name, this request and all later ones
        are changed accordingly, with a warning.

        Args:
            messages: The chat.
            on_part: Called with the reply so far, while it is streamed; None does not stream.
            **options: Further fields of the request's body.

        Raises:
            TransientFailure: The server is busy, late or broken, or its answer is not a completion.
            PermanentFailure: It refuses this request.
            RequestRefused: It refuses the form of the request.
            PromptTooLong: The prompt does not fit its context.
            NothingThere: It does not know the model or the address.
            AccessDenied: It refuses the key or the account.
        """
        return await self._ask(_CHAT, messages, on_part, options)

    async def continue_ids(
        self, ids: Sequence[int], on_part: OnPart | None = None, **options: Any
    ) -> Completion:
        """Request the continuation of token ids; otherwise like `complete`."""
        return await self._ask(_COMPLETIONS, (), on_part, {"prompt": list(ids), **options})

    async def look_up(
        self, path: str, body: Mapping[str, Any] | None = None, *, beside: bool = False
    ) -> Any:
        """Request something else than a completion; return its JSON.

        Args:
            path: Path below the base URL.
            body: Body of a POST request; None sends a GET request.
            beside: The path replaces the `/v1` of the base URL.

        Raises:
            TransientFailure: The server is busy, late or broken.
            PermanentFailure: It refuses, or the path does not exist.
            AccessDenied: It refuses the key.
        """
        base = self._full_url.removesuffix("/v1") if beside else self._full_url
        return await self._send("GET" if body is None else "POST", base + path, body)

    async def describe_models(self) -> str:
        """Return the models of the server as the end of a message; "" if it does not list them."""
        try:
            listed = await self.look_up("/models")
            names = [str(entry["id"]) for entry in listed["data"]]
        except (PermanentFailure, TransientFailure, AccessDenied, LookupError, TypeError):
            return ""
        more = f" and {len(names) - _NAMED_MODELS} more" if len(names) > _NAMED_MODELS else ""
        return f"; it has {', '.join(names[:_NAMED_MODELS])}{more}" if names else ""

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _ask(
        self,
        path: str,
        messages: Sequence[Message],
        on_part: OnPart | None,
        options: dict[str, Any],
    ) -> Completion:
        if on_part is not None:
            options = {**options, "stream": True, "stream_options": {"include_usage": True}}
        while True:
            sent = self.dialect.put(messages, options)
            body = {"model": self.model, **sent.options}
            body |= {"messages": list(sent.messages)} if path == _CHAT else {}
            try:
                completion = await self._fetch(path, body, on_part, options.get("stop") or ())
                if not body.get("stream") or not self.dialect.learn_silence(completion):
                    break
            except RequestRefused as refused:
                if _CUT_OFF.search(refused.refusal.words):
                    return Completion("", LENGTH, None, None)
                if not self.dialect.learn(refused.refusal, sent):
                    raise
        self.answered = True
        self._report_changes()
        return completion

    def _report_changes(self) -> None:
        """Report the changes to the dialect since the last report."""
        changes, self._reported = self.dialect.changes[self._reported :], len(self.dialect.changes)
        if changes:
            logger.warning(
                f"{self.who} {self.model} at {self.url} does not accept requests as OpenAI's "
                f"server does; from now on they are sent: {'; '.join(changes)}"
            )

    async def _fetch(
        self, path: str, body: dict[str, Any], on_part: OnPart | None, stops: Sequence[str]
    ) -> Completion:
        reader = ReplyReader()
        reply = await self._send("POST", self._full_url + path, body)
        try:
            if body.get("stream"):
                await self._follow(reply, reader, on_part, stops)
            elif isinstance(reply, Mapping):
                reader.add(reply)
            return reader.finish()
        except NoCompletion as problem:
            words = f" ({self.quote(problem)})" if str(problem) else ""
        except _NONSENSE:
            words = ""
        raise TransientFailure(f"{self.who} at {self.url} sent no chat completion{words}")

    async def _send(self, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        """Send a request; return JSON, or a stream if the body requests one."""
        import openai

        client = self._open()
        try:
            if method == "GET":
                options = {"timeout": min(_LOOKUP_SECONDS, self._timeout)}
                return await client.get(url, cast_to=object, options=options)
            streamed = bool(body and body.get("stream"))
            kind = openai.AsyncStream[object] if streamed else None
            return await client.post(
                url, cast_to=object, body=body, stream=streamed, stream_cls=kind
            )
        except openai.APITimeoutError:
            failure: Exception = TransientFailure(f"{self.who} at {self.url} took too long")
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            # By name: the client works on either of two HTTP libraries.
            unsent = type(cause).__name__ == "ConnectError"
            words = self.quote(cause)
            failure = TransientFailure(
                f"no connection to {self.who} at {self.url} ({words})", free=unsent
            )
        except openai.APIStatusError as error:
            failure = translate(error, self)
        # The body is not JSON, is incomplete, or nested too deeply.
        except (openai.OpenAIError, *_NONSENSE) as error:
            words = self.quote(error)
            failure = TransientFailure(f"{self.who} at {self.url} sent no JSON ({words})")
        # Not raised above: the chained error would keep the whole answer in memory.
        raise failure

    async def _follow(
        self, stream: Any, reader: ReplyReader, on_part: OnPart | None, stops: Sequence[str]
    ) -> None:
        """Read a stream to its end, or until its text contains a stop string."""
        async with stream:
            kind = str(stream.response.headers.get("content-type", ""))
            if kind.startswith("application/json"):  # it does not stream, but sends all at once
                whole = json.loads(await self._receive(stream.response.aread()))
                if isinstance(whole, Mapping):
                    reader.add(whole)
                return
            while (part := await self._receive(anext(stream, None))) is not None:
                if isinstance(part, Mapping) and reader.add(part) and on_part:
                    on_part(reader.thought, reader.text)
                if any(reader.text.rstrip().partition(stop)[2] for stop in stops):
                    return

    async def _receive(self, part: Awaitable[Any]) -> Any:
        try:
            return await part
        except Exception as error:  # the client lets those of its HTTP library through
            words = self.quote(error)
            raise TransientFailure(f"{self.who} at {self.url} broke off ({words})") from None

    def _open(self) -> Any:
        if self._client is None:
            import openai

            if self._key:
                check_key(KEY_VARIABLE, self._key)
            # Retries by the library would bypass the budget.
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=self._full_url,
                max_retries=0,
                timeout=self._timeout,
                http_client=open_client(timeout=self._timeout, follow_redirects=True),
            )
        return self._client

    def quote(self, error: object) -> str:
        """Return an error's text on one short line, without the key, which servers may echo."""
        words = " ".join(mend(str(error)).split())
        words = hide_secrets(words, [s for s in self._secrets if len(s) >= _SHORT_SECRET])
        for secret in self._secrets:
            if len(secret) < _SHORT_SECRET:
                words = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", words)
        return words if len(words) <= MESSAGE_CHARS else words[:MESSAGE_CHARS] + "…"


def _find_secrets(url: str, key: str) -> list[str]:
    """Return what must not be quoted: the key, and the login in an address, also encoded."""
    login = urlsplit(url).netloc.rpartition("@")[0]
    password = login.partition(":")[2]
    sent = b64encode(unquote(login).encode()).decode() if login else ""
    return [secret for secret in (key, sent, login, unquote(password), password) if secret]
