"""The line to the judge: one chat completion from an OpenAI-compatible server.

Place in the path: the only module that talks to the judge's server; the gateway decides when it
does, how often and for how much. On failure: what may pass is a `TransientFailure`, what will not
is a `PermanentFailure`, among them a model or an address that the server does not know
(`NothingThere`); a refused key or an empty account is `AccessDenied`. No message holds a secret.
"""

from __future__ import annotations

import os
from base64 import b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from rsearch_cli.errors import AccessDenied
from rsearch_cli.recipe.outside import Judge
from rsearch_cli.services.call import PermanentFailure, TransientFailure
from rsearch_cli.services.http import hide_credentials, read_retry_after

OPENAI_URL = "https://api.openai.com/v1"
URL_VARIABLE = "OPENAI_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"
KEY_PAGE = "https://platform.openai.com/api-keys"
BILLING_PAGE = "https://platform.openai.com/settings/organization/billing"

MESSAGE_CHARS = 200
"""Longest part of a server's own words in a message of ours, in characters."""

# From the strictest to what every server can do; a server that refuses one is asked the next way.
FORMATS = ("json_schema", "json_object", "text")

_REFUSES_FORMAT = (400, 422, 501)
_WORTH_RETRYING = (408, 409, 425, 429)


@dataclass(frozen=True, slots=True)
class Completion:
    """What the server wrote.

    Attributes:
        text: The whole message.
        finish: Why it ended: `stop`, `length`, ...; "" if the server does not say.
        input_tokens: Tokens that were sent, as the server counts them; None if it does not.
        output_tokens: Tokens that came back; None if it does not count them.
    """

    text: str
    finish: str
    input_tokens: int | None
    output_tokens: int | None


class ChatEndpoint:
    """An OpenAI-compatible server and one model on it.

    Its client belongs to the event loop of the first call.

    Attributes:
        url: The server's base URL, without credentials.
    """

    def __init__(self, judge: Judge) -> None:
        """Read address and key; nothing is sent.

        Args:
            judge: Model, address (else OPENAI_BASE_URL), length of a reply and time-out are read.
        """
        self._judge = judge
        url = judge.base_url or os.environ.get(URL_VARIABLE) or OPENAI_URL
        self._full_url = url.rstrip("/")
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        self.url = hide_credentials(self._full_url)
        self._secrets = _find_secrets(self._full_url, self._key)
        self._client: Any = None
        self._format = 0  # position in FORMATS
        self._answered = False  # whether a completion has ever come, so format and model are right

    @property
    def is_public(self) -> bool:
        """Whether this is OpenAI's own server, which answers to nobody without a key."""
        return urlsplit(self.url).hostname == urlsplit(OPENAI_URL).hostname

    def check_key(self) -> None:
        """Check that there is a key where one is needed.

        Raises:
            AccessDenied: OpenAI's own server is asked, and there is no key.
        """
        if self.is_public and not self._key:
            raise AccessDenied(
                f"the judge {self._judge.model} at {self.url} needs a key and {KEY_VARIABLE} is not"
                f" set; get one at {KEY_PAGE}, or set reward.judge.base_url to a server of your own"
            )

    async def complete(self, messages: list[dict[str, str]], schema: dict[str, Any]) -> Completion:
        """Ask for one reply, greedily, as JSON where the server can promise that.

        Args:
            messages: The chat.
            schema: JSON schema of the reply.

        Raises:
            TransientFailure: The server is busy, late, broken, or what it sent is no completion.
            PermanentFailure: It refuses this request.
            NothingThere: It does not know the model or the address.
            AccessDenied: It refuses the key or the account.
        """
        while True:
            position = self._format
            try:
                reply = await self._send(messages, _response_format(FORMATS[position], schema))
            except _FormatRefused as refusal:
                self._step_down(position, refusal)
            else:
                completion = _read_completion(reply, self.url)
                self._answered = True
                return completion

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _send(self, messages: list[dict[str, str]], response_format: dict[str, Any]) -> Any:
        import openai

        try:
            return await self._open().chat.completions.create(
                model=self._judge.model,
                messages=messages,
                temperature=0,
                max_tokens=self._judge.max_output_tokens,
                **response_format,
            )
        except openai.APITimeoutError:
            raise TransientFailure(f"the judge at {self.url} took too long") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            # By name: the client works on either of two HTTP libraries.
            unsent = type(cause).__name__ == "ConnectError"
            words = self._quote(cause)
            raise TransientFailure(
                f"no connection to the judge at {self.url} ({words})", free=unsent
            ) from None
        except openai.APIStatusError as error:
            raise self._translate(error) from None
        except (openai.OpenAIError, ValueError) as error:  # a body that is no JSON, or half of it
            words = self._quote(error)
            raise TransientFailure(f"the judge at {self.url} sent no JSON ({words})") from None

    def _open(self) -> Any:
        if self._client is None:
            import openai

            # The gateway retries; a client that did so too would pass the budget unseen.
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=self._full_url,
                max_retries=0,
                timeout=self._judge.service.timeout_seconds,
            )
        return self._client

    def _step_down(self, position: int, refusal: _FormatRefused) -> None:
        """Go on to the next of FORMATS after a refusal at `position`, unless that is not the cause.

        Raises:
            PermanentFailure: There is no other format, or this one is known to be accepted.
        """
        if position != self._format:
            return  # another call that is under way has stepped on already
        if self._answered or position == len(FORMATS) - 1:
            if not self._answered:
                self._format = 0  # it was not the format: the next request starts anew
            raise PermanentFailure(str(refusal), free=True)
        self._format += 1

    def _translate(self, error: Any) -> Exception:
        """What an HTTP status means for this call and for the run."""
        status, words = error.status_code, self._quote(_read_message(error))
        said = f"the judge at {self.url} answered {status} ({words})"
        if status == 401:
            page = f"; get one at {KEY_PAGE}" if self.is_public else ""
            state = "is refused" if self._key else "is not set"
            return AccessDenied(f"{said}: the key in {KEY_VARIABLE} {state}{page}")
        if status == 402 or error.code == "insufficient_quota":
            page = f"; top it up at {BILLING_PAGE}" if self.is_public else ""
            return AccessDenied(f"{said}: the account of {KEY_VARIABLE} is out of credit{page}")
        if status == 404 and not self._answered:
            model = self._judge.model
            return NothingThere(f"{said}: check reward.judge.model ({model!r}) and the address")
        if status in _REFUSES_FORMAT:
            return _FormatRefused(said)
        if status in _WORTH_RETRYING or status >= 500:
            # Refusals cost nothing; 502 and 504 come from a proxy, and the server may have worked.
            free = status not in (502, 504)
            return TransientFailure(said, read_retry_after(error.response.headers), free=free)
        return PermanentFailure(said, free=True)

    def _quote(self, error: object) -> str:
        """A few words of the server's or the library's, on one line; servers may echo the key."""
        words = " ".join(str(error).split())
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words if len(words) <= MESSAGE_CHARS else words[:MESSAGE_CHARS] + "…"


class NothingThere(PermanentFailure):
    """The server does not know the model or the address; no other call will fare better."""

    def __init__(self, message: str) -> None:
        super().__init__(message, free=True)


class _FormatRefused(Exception):
    """The server refuses the request, perhaps for the format that was asked for."""


def _response_format(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name == "text":
        return {}
    if name == "json_object":
        return {"response_format": {"type": name}}
    named = {"name": "verdict", "strict": True, "schema": schema}
    return {"response_format": {"type": name, "json_schema": named}}


def _read_message(error: Any) -> str:
    """The server's own words about an error, without the client's frame around them."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return str(message or error.response.text or "no reason given")


def _find_secrets(url: str, key: str) -> list[str]:
    """What must not be repeated: the key, and what an address with a password holds and sends."""
    login = urlsplit(url).netloc.rpartition("@")[0]
    password = login.partition(":")[2]
    sent = b64encode(unquote(login).encode()).decode() if login else ""
    return [secret for secret in (key, sent, login, unquote(password), password) if secret]


def _read_completion(reply: Any, url: str) -> Completion:
    """Take what is needed out of a reply; the client builds its models without checking them."""
    try:
        choice = reply.choices[0]
        text, finish = choice.message.content, choice.finish_reason
    except (AttributeError, TypeError, LookupError):
        raise TransientFailure(f"the judge at {url} sent no chat completion") from None
    usage = getattr(reply, "usage", None)
    return Completion(
        text=text if isinstance(text, str) else "",
        finish=finish if isinstance(finish, str) else "",
        input_tokens=_read_count(usage, "prompt_tokens"),
        output_tokens=_read_count(usage, "completion_tokens"),
    )


def _read_count(usage: Any, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and count >= 0 else None
