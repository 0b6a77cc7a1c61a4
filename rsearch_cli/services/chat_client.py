"""A line to an OpenAI-compatible server: one request, and the reply to it.

What may pass is a `TransientFailure`, what will not is a `PermanentFailure` or one of its kinds in
`refusals`; a refused key or an empty account is `AccessDenied`. No message holds a secret.
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
"""Longest part of a server's own words in a message of ours, in characters."""

OnPart = Callable[[str, str], None]
"""Told thought and text of a reply so far."""

# What the client, or a look at its answers, ends in where an answer is not what it should be.
_NONSENSE = (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError)

_CHAT, _COMPLETIONS = "/chat/completions", "/completions"
_NAMED_MODELS = 10
_LOOKUP_SECONDS = 10.0
# A shorter secret is hidden where it stands as a word: people give keys such as `x` to servers that
# want none, and messages would not be readable without that letter.
_SHORT_SECRET = 8
# OpenAI's refusal of a reasoning model whose thought took all the tokens there were.
_CUT_OFF = re.compile(r"output limit was reached", re.IGNORECASE)


class ChatClient:
    """An OpenAI-compatible server and one model on it.

    Its client belongs to the event loop of the first call.

    Attributes:
        who: What messages call the other end, such as `the judge`.
        model: Name of the model, as its server knows it.
        model_setting: Where the user gives that name, for messages.
        shorten: What to lower where a request is too long for the server, for messages.
        url: The server's base URL, without credentials.
        answered: Whether a completion has ever come, so that model and address are right.
        dialect: What is sent another way since the server refused it.
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
            who: What messages call the other end.
            model: Name of the model, as its server knows it.
            model_setting: Where the user gives that name, for messages.
            base_url: The server's address; may hold a user name and a password.
            timeout_seconds: Longest that one call may take.
            shorten: What to lower where a request is too long for the server, for messages.
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
        self._told = 0

    @property
    def is_public(self) -> bool:
        """Whether this is OpenAI's own server, which answers to nobody without a key."""
        return urlsplit(self.url).hostname == urlsplit(OPENAI_URL).hostname

    @property
    def has_key(self) -> bool:
        """Whether it is asked with a key."""
        return bool(self._key)

    def check_key(self, otherwise: str) -> None:
        """Check that there is a key where one is needed.

        Args:
            otherwise: What to do without one, for the message.

        Raises:
            AccessDenied: OpenAI's own server is asked, and there is no key; or it cannot be a key.
            SourceError: The proxies that the environment names cannot be used.
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
        """Ask for one reply to a chat.

        A parameter, field or role that the server refuses by name is sent another way, now and in
        every later request, and a line on stderr says so.

        Args:
            messages: The chat.
            on_part: Told the reply so far, part by part; None takes the reply as a whole.
            **options: Further fields of the request's body.

        Raises:
            TransientFailure: The server is busy, late, broken, or what it sent is no completion.
            PermanentFailure: It refuses this request.
            RequestRefused: It does so for how the request is put.
            PromptTooLong: The prompt does not fit its context.
            NothingThere: It does not know the model or the address.
            AccessDenied: It refuses the key or the account.
        """
        return await self._ask(_CHAT, messages, on_part, options)

    async def continue_ids(
        self, ids: Sequence[int], on_part: OnPart | None = None, **options: Any
    ) -> Completion:
        """Ask for the continuation of token ids; otherwise as `complete`."""
        return await self._ask(_COMPLETIONS, (), on_part, {"prompt": list(ids), **options})

    async def look_up(
        self, path: str, body: Mapping[str, Any] | None = None, *, beside: bool = False
    ) -> Any:
        """Ask the server for something else than a completion, as JSON.

        Args:
            path: Below the base URL.
            body: What is posted; None gets the path.
            beside: The path is not below the base URL's `/v1`, but beside that.

        Raises:
            TransientFailure: The server is busy, late or broken.
            PermanentFailure: It refuses, or has nothing there.
            AccessDenied: It refuses the key.
        """
        base = self._full_url.removesuffix("/v1") if beside else self._full_url
        return await self._send("GET" if body is None else "POST", base + path, body)

    async def describe_models(self) -> str:
        """Name the models that the server has, as the end of a message; "" if it does not say."""
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
        self._tell_changes()
        return completion

    def _tell_changes(self) -> None:
        """Say on stderr what has been learnt since the last time."""
        changes, self._told = self.dialect.changes[self._told :], len(self.dialect.changes)
        if changes:
            logger.warning(
                f"{self.who} {self.model} at {self.url} does not take requests as OpenAI's server "
                f"does; from now on they are sent: {'; '.join(changes)}"
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
        """Send a request; gives JSON, or a stream where the body asks for one."""
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
        # A body that is no JSON, half of it, or nested too deeply.
        except (openai.OpenAIError, *_NONSENSE) as error:
            words = self.quote(error)
            failure = TransientFailure(f"{self.who} at {self.url} sent no JSON ({words})")
        # Not raised above, where it would keep the error, and by that the whole answer, in memory.
        raise failure

    async def _follow(
        self, stream: Any, reader: ReplyReader, on_part: OnPart | None, stops: Sequence[str]
    ) -> None:
        """Read a stream to its end, or until the server has passed a stop string."""
        async with stream:
            kind = str(stream.response.headers.get("content-type", ""))
            if kind.startswith("application/json"):  # it does not stream, and sends the whole
                whole = self._decode(await self._receive(stream.response.aread()))
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

    def _decode(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError as error:
            words = self.quote(error)
            raise TransientFailure(f"{self.who} at {self.url} sent no JSON ({words})") from None

    def _open(self) -> Any:
        if self._client is None:
            import openai

            if self._key:
                check_key(KEY_VARIABLE, self._key)
            # The client retries; a client that did so too would pass the budget unseen.
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=self._full_url,
                max_retries=0,
                timeout=self._timeout,
                http_client=open_client(timeout=self._timeout, follow_redirects=True),
            )
        return self._client

    def quote(self, error: object) -> str:
        """A few words of the server's or the library's, on one line; servers may echo the key."""
        words = " ".join(mend(str(error)).split())
        words = hide_secrets(words, [s for s in self._secrets if len(s) >= _SHORT_SECRET])
        for secret in self._secrets:
            if len(secret) < _SHORT_SECRET:
                words = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", words)
        return words if len(words) <= MESSAGE_CHARS else words[:MESSAGE_CHARS] + "…"


def _find_secrets(url: str, key: str) -> list[str]:
    """What must not be repeated: the key, and what an address with a password holds and sends."""
    login = urlsplit(url).netloc.rpartition("@")[0]
    password = login.partition(":")[2]
    sent = b64encode(unquote(login).encode()).decode() if login else ""
    return [secret for secret in (key, sent, login, unquote(password), password) if secret]
