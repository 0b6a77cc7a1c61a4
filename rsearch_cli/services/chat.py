"""The line to a chat model: one request to an OpenAI-compatible server, and what its answer means.

Place in the path: below the judge and below a policy that lives on a server; the gateway decides
when they speak, how often and for how much. On failure: what may pass is a `TransientFailure`, what
will not is a `PermanentFailure`, among them a request that the server refuses as it stands
(`RequestRefused`) and a model or an address that it does not know (`NothingThere`); a refused key
or an empty account is `AccessDenied`. No message holds a secret.
"""

from __future__ import annotations

from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from rsearch_cli.errors import AccessDenied
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.services.call import PermanentFailure, TransientFailure
from rsearch_cli.services.http import open_client, read_retry_after
from rsearch_cli.services.keys import check_key, hide_secrets, read_key
from rsearch_cli.services.values import mend, read_token_count

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
KEY_PAGE = "https://platform.openai.com/api-keys"
BILLING_PAGE = "https://platform.openai.com/settings/organization/billing"

MESSAGE_CHARS = 200
"""Longest part of a server's own words in a message of ours, in characters."""

# What the client, or a look at its models, ends in where an answer is not what it should be.
_NONSENSE = (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError)
_UTF16 = getincrementaldecoder("utf-16-le")
_REFUSES_REQUEST = (400, 422, 501)
_WORTH_RETRYING = (408, 409, 425, 429)


class NothingThere(PermanentFailure):
    """The server does not know the model or the address; no other call will fare better."""

    def __init__(self, message: str) -> None:
        super().__init__(message, free=True)


class RequestRefused(PermanentFailure):
    """The server refuses this request as it stands."""

    def __init__(self, message: str) -> None:
        super().__init__(message, free=True)


@dataclass(frozen=True, slots=True)
class Completion:
    """What the server wrote.

    Attributes:
        text: The whole message.
        finish: Why it ended: `stop`, `length`, ...; "" if the server does not say.
        input_tokens: Tokens that were sent, as the server counts them; None if it does not.
        output_tokens: Tokens that came back; None if it does not count them.
        stop_string: The stop string that it ended at, "" where the server says that it was none;
            None if it does not say, as OpenAI's.
    """

    text: str
    finish: str
    input_tokens: int | None
    output_tokens: int | None
    stop_string: str | None = None


class ChatLine:
    """An OpenAI-compatible server and one model on it.

    Its client belongs to the event loop of the first call.

    Attributes:
        who: What messages call the other end, such as `the judge`.
        url: The server's base URL, without credentials.
        answered: Whether a completion has ever come, so that model and address are right.
    """

    def __init__(
        self, who: str, model: str, model_setting: str, base_url: str, timeout_seconds: float
    ) -> None:
        """Read address and key; nothing is sent.

        Args:
            who: What messages call the other end.
            model: Name of the model, as its server knows it.
            model_setting: Where the user gives that name, for messages.
            base_url: The server's address; may hold a user name and a password.
            timeout_seconds: Longest that one call may take.
        """
        self.who = who
        self._model = model
        self._model_setting = model_setting
        self._timeout = timeout_seconds
        self._full_url = base_url.rstrip("/")
        self._key = read_key(KEY_VARIABLE)
        self.url = hide_login(self._full_url)
        self._secrets = _find_secrets(self._full_url, self._key)
        self._client: Any = None
        self.answered = False

    @property
    def is_public(self) -> bool:
        """Whether this is OpenAI's own server, which answers to nobody without a key."""
        return urlsplit(self.url).hostname == urlsplit(OPENAI_URL).hostname

    def check_key(self, otherwise: str) -> None:
        """Check that there is a key where one is needed.

        Args:
            otherwise: What to do without one, for the message.

        Raises:
            AccessDenied: OpenAI's own server is asked, and there is no key; or it cannot be a key.
        """
        if self._key:
            check_key(KEY_VARIABLE, self._key)
        elif self.is_public:
            raise AccessDenied(
                f"{self.who} {self._model} at {self.url} needs a key and {KEY_VARIABLE} is not"
                f" set; get one at {KEY_PAGE}, or {otherwise}"
            )

    async def complete(
        self,
        messages: list[dict[str, str]],
        on_text: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Completion:
        """Ask for one reply.

        Args:
            messages: The chat.
            on_text: Told the text so far, part by part; None takes the reply as a whole.
            **options: Further arguments of `chat.completions.create`.

        Raises:
            TransientFailure: The server is busy, late, broken, or what it sent is no completion.
            PermanentFailure: It refuses this request.
            RequestRefused: It does so for how the request is put.
            NothingThere: It does not know the model or the address.
            AccessDenied: It refuses the key or the account.
        """
        if on_text is None:
            completion = _read_completion(await self._send(messages, options), self)
        else:
            told = {"stream": True, "stream_options": {"include_usage": True}}
            completion = await self._follow(await self._send(messages, options | told), on_text)
        self.answered = True
        return completion

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _send(self, messages: list[dict[str, str]], options: dict[str, Any]) -> Any:
        import openai

        try:
            return await self._open().chat.completions.create(
                model=self._model, messages=messages, **options
            )
        except openai.APITimeoutError:
            failure: Exception = TransientFailure(f"{self.who} at {self.url} took too long")
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            # By name: the client works on either of two HTTP libraries.
            unsent = type(cause).__name__ == "ConnectError"
            words = self._quote(cause)
            failure = TransientFailure(
                f"no connection to {self.who} at {self.url} ({words})", free=unsent
            )
        except openai.APIStatusError as error:
            failure = self._translate(error)
        # A body that is no JSON, half of it, nested too deeply, or nothing like a completion: the
        # client builds its models from whatever comes.
        except (openai.OpenAIError, *_NONSENSE) as error:
            words = self._quote(error)
            failure = TransientFailure(f"{self.who} at {self.url} sent no JSON ({words})")
        # Not raised above, where it would keep the error, and by that the whole answer, in memory.
        raise failure

    async def _follow(self, stream: Any, on_text: Callable[[str], None]) -> Completion:
        """Put a reply together from its parts, which may cut a surrogate pair in two."""
        text, finish, stop_string, usage, choices = "", "", None, None, 0
        decoder = _UTF16(errors="replace")
        async with stream:
            while (part := await self._next_part(stream)) is not None:
                try:
                    usage = getattr(part, "usage", None) or usage
                    read = [
                        (_read_choice(choice), _read_text(getattr(choice.delta, "content", None)))
                        for choice in (getattr(part, "choices", None) or [])[:1]
                    ]
                    pieces = [(*ends, decoder.decode(_encode(new))) for ends, new in read]
                except _NONSENSE:
                    raise self._no_completion() from None
                for ends, stops, new in pieces:
                    choices += 1
                    finish, stop_string = ends or finish, stop_string if stops is None else stops
                    if new:
                        text += new
                        on_text(text)
        if not choices:
            raise self._no_completion()
        counts = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
        sent, came = map(read_token_count, counts)
        return Completion(text + decoder.decode(b"", final=True), finish, sent, came, stop_string)

    async def _next_part(self, stream: Any) -> Any:
        try:
            return await anext(stream, None)
        except Exception as error:  # the client lets those of its HTTP library through
            words = self._quote(error)
            raise TransientFailure(f"{self.who} at {self.url} broke off ({words})") from None

    def _open(self) -> Any:
        if self._client is None:
            import openai

            if self._key:
                check_key(KEY_VARIABLE, self._key)
            # The gateway retries; a client that did so too would pass the budget unseen.
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=self._full_url,
                max_retries=0,
                timeout=self._timeout,
                http_client=open_client(timeout=self._timeout, follow_redirects=True),
            )
        return self._client

    def _translate(self, error: Any) -> Exception:
        """What an HTTP status means for this call and for the run."""
        status, words = error.status_code, self._quote(_read_message(error))
        said = f"{self.who} at {self.url} answered {status} ({words})"
        if status == 401:
            page = f"; get one at {KEY_PAGE}" if self.is_public else ""
            state = "is refused" if self._key else "is not set"
            return AccessDenied(f"{said}: the key in {KEY_VARIABLE} {state}{page}")
        if status == 402 or error.code == "insufficient_quota":
            page = f"; top it up at {BILLING_PAGE}" if self.is_public else ""
            return AccessDenied(f"{said}: the account of {KEY_VARIABLE} is out of credit{page}")
        if status == 404 and not self.answered:
            setting = f"{self._model_setting} ({self._model!r})"
            return NothingThere(f"{said}: check {setting} and the address")
        if status in _REFUSES_REQUEST:
            return RequestRefused(said)
        if status in _WORTH_RETRYING or status >= 500:
            # Refusals cost nothing; 502 and 504 come from a proxy, and the server may have worked.
            free = status not in (502, 504)
            return TransientFailure(said, read_retry_after(error.response.headers), free=free)
        return PermanentFailure(said, free=True)

    def _no_completion(self) -> TransientFailure:
        return TransientFailure(f"{self.who} at {self.url} sent no chat completion")

    def _quote(self, error: object) -> str:
        """A few words of the server's or the library's, on one line; servers may echo the key."""
        words = hide_secrets(" ".join(mend(str(error)).split()), self._secrets)
        return words if len(words) <= MESSAGE_CHARS else words[:MESSAGE_CHARS] + "…"


def _read_message(error: Any) -> str:
    """The server's own words about an error, without the client's frame around them."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    try:
        return str(message or error.response.text or "no reason given")
    except RecursionError:  # it is no text, but JSON that is nested deeply
        return "no reason given"


def _find_secrets(url: str, key: str) -> list[str]:
    """What must not be repeated: the key, and what an address with a password holds and sends."""
    login = urlsplit(url).netloc.rpartition("@")[0]
    password = login.partition(":")[2]
    sent = b64encode(unquote(login).encode()).decode() if login else ""
    return [secret for secret in (key, sent, login, unquote(password), password) if secret]


def _read_completion(reply: Any, line: ChatLine) -> Completion:
    """Take what is needed out of a reply; the client builds its models without checking them."""
    try:
        choice = reply.choices[0]
        text = _read_text(choice.message.content)
        usage = getattr(reply, "usage", None)
        finish, stop_string = _read_choice(choice)
        return Completion(
            text=mend(text),
            finish=finish,
            input_tokens=read_token_count(getattr(usage, "prompt_tokens", None)),
            output_tokens=read_token_count(getattr(usage, "completion_tokens", None)),
            stop_string=stop_string,
        )
    except _NONSENSE:
        raise line._no_completion() from None


def _read_choice(choice: Any) -> tuple[str, str | None]:
    """Why a reply ended, and at which stop string; see `Completion`.

    Raises:
        TypeError: The first is no text.
    """
    stop_string = _read_stop(choice)
    finish = mend(_read_text(choice.finish_reason))
    return finish, None if stop_string is None else mend(stop_string)


def _read_text(value: Any) -> str:
    """Text, or "" for null.

    Raises:
        TypeError: It is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of text")
    return value


def _encode(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


def _read_stop(choice: Any) -> str | None:
    """The field by which vLLM and SGLang tell a stop string (text) from the model's end (null)."""
    extra = getattr(choice, "model_extra", None) or {}
    if "stop_reason" not in extra:
        return None
    return extra["stop_reason"] if isinstance(extra["stop_reason"], str) else ""
