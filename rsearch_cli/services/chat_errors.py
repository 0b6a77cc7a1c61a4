"""Translates HTTP errors of an OpenAI-compatible server into failures of a call or of the run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rsearch_cli.errors import AccessDenied
from rsearch_cli.services.chat_dialect import ROLES, Refusal
from rsearch_cli.services.http import read_retry_after
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure

if TYPE_CHECKING:
    from rsearch_cli.services.chat_client import ChatClient

KEY_VARIABLE = "OPENAI_API_KEY"
KEY_PAGE = "https://platform.openai.com/api-keys"
BILLING_PAGE = "https://platform.openai.com/settings/organization/billing"

_REFUSES_REQUEST = (400, 422, 501)
_WORTH_RETRYING = (408, 409, 425, 429)
# The part of a message that is searched; further on, servers repeat the chat.
_OPENING_CHARS = 400
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|context_length_exceeded|exceed_context|"
    r"(?:prompt|input|request) (?:is )?too (?:long|large)|maximum (?:model|sequence|input) length",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"\bmodel\b.{0,120}(?:not found|does not exist|not exist|unknown|not a valid|no such)|"
    r"(?:unknown|invalid|no such) model\b|not a valid model|model_not_found",
    re.IGNORECASE | re.DOTALL,
)


class NothingThere(PermanentFailure):
    """The server does not know the model or the address; every other call would fail too."""

    def __init__(self, message: str) -> None:
        super().__init__(message, free=True)


class PromptTooLong(PermanentFailure):
    """The prompt does not fit the server's context."""

    def __init__(self, message: str) -> None:
        super().__init__(message, free=True)


class RequestRefused(PermanentFailure):
    """The server refuses the form of this request.

    Attributes:
        refusal: Its message.
    """

    def __init__(self, message: str, refusal: Refusal) -> None:
        super().__init__(message, free=True)
        self.refusal = refusal


def translate(error: Any, client: ChatClient) -> Exception:
    """Return the failure that an HTTP error status stands for.

    Args:
        error: The `APIStatusError` of the openai library.
        client: The client of the server that sent it.
    """
    status, whole = error.status_code, _read_message(error)
    opening = whole[:_OPENING_CHARS]
    said = f"{client.who} at {client.url} answered {status} ({client.quote(whole)})"
    if status == 401:
        page = f"; get one at {KEY_PAGE}" if client.is_public else ""
        state = "is refused" if client.has_key else "is not set"
        return AccessDenied(f"{said}: the key in {KEY_VARIABLE} {state}{page}")
    if status == 402 or error.code == "insufficient_quota":
        page = f"; top it up at {BILLING_PAGE}" if client.is_public else ""
        return AccessDenied(f"{said}: the account of {KEY_VARIABLE} is out of credit{page}")
    words = f"{opening} {error.code or ''} {error.type or ''}"
    refuses = status in _REFUSES_REQUEST
    if not client.answered and (status == 404 or (refuses and _NO_MODEL.search(words))):
        setting = f"{client.model_setting} ({client.model!r})"
        ending = "" if client.url.endswith("/v1") else ", which ends in /v1 for most servers"
        return NothingThere(f"{said}: check {setting} and the address{ending}")
    if _TOO_LONG.search(words) and (refuses or status in (413, 500)):
        return PromptTooLong(
            f"{said}: the request is too long for the server's context; start it with a longer "
            f"one, or lower {client.shorten}"
        )
    # Some servers answer 500 if a chat template refuses the system role.
    if refuses or (status >= 500 and ROLES.search(opening)):
        return RequestRefused(said, Refusal(opening, str(error.param or "")))
    if status in _WORTH_RETRYING or status >= 500:
        # Refusals are free; 502 and 504 come from a proxy, and the server may have done the work.
        free = status not in (502, 504)
        return TransientFailure(said, read_retry_after(error.response.headers), free=free)
    return PermanentFailure(said, free=True)


def _read_message(error: Any) -> str:
    """Return the server's own message, without what the library adds to it."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    try:
        return str(message or error.response.text or "no reason given")
    except RecursionError:  # JSON that is nested too deeply
        return "no reason given"
