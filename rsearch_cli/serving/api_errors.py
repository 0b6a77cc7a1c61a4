"""Errors of the HTTP server, in the form in which OpenAI's API reports them."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import CancelledError
from typing import Any

from rsearch_cli.errors import (
    AccessDenied,
    BudgetExceeded,
    OfflineMiss,
    OutOfMemory,
    QuestionTooLong,
    RsearchError,
    ServiceFailure,
    is_shortage,
)
from rsearch_cli.services.keys import hide_secrets

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        message: For the person who sent the request.
        code: For programs.
        param: The field of the request that is wrong, or None.
        retry_after: Seconds after which to try again, or None.
        allow: The methods that are allowed, or None.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.allow = allow

    def as_json(self) -> dict[str, Any]:
        """Return the body of the response."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "server_error"),
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """Return the headers that belong to the status."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after)))
        if self.allow is not None:
            headers["Allow"] = self.allow
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}


def bad_field(param: str, problem: str) -> ApiError:
    """Return the error for a field of the request that cannot be used."""
    return ApiError(400, f"{param}: {problem}", "invalid_value", param=param)


def shutting_down() -> ApiError:
    """Return the error for a request that arrives, or is cut off, while the server stops."""
    return ApiError(503, "the server is shutting down", "shutting_down", retry_after=5)


def as_api_error(error: BaseException) -> ApiError:
    """Return the response to a request that failed with an exception.

    What is not an error of the outside world is logged and reported without details.
    """
    from starlette.exceptions import HTTPException

    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):  # of Starlette's static files
        if error.status_code == 405:
            allowed = "GET, HEAD"
            message = f"only {allowed} is allowed here"
            return ApiError(405, message, "method_not_allowed", allow=allowed)
        return ApiError(404, "there is no such file", "not_found")
    if isinstance(error, CancelledError | asyncio.CancelledError):
        return shutting_down()
    if isinstance(error, QuestionTooLong):
        return ApiError(400, str(error), "context_length_exceeded", param="messages")
    if isinstance(error, BudgetExceeded):
        # Not 429: clients repeat a 429 by themselves, and it would fail again.
        return ApiError(402, "the server's budget is used up", "budget_exceeded")
    # The texts below may name addresses of the operator's services, so they go to the log only.
    what = hide_secrets(str(error) or type(error).__name__)
    if isinstance(error, OutOfMemory) or is_shortage(error):
        logger.warning(f"a request failed: memory ran out: {what}")
        return ApiError(503, "the server ran out of memory", "out_of_memory", retry_after=10)
    for kind, message in _OUTSIDE.items():
        if isinstance(error, kind):
            # The text of an `OfflineMiss` quotes the search.
            logger.warning(f"a request failed: {message if kind is OfflineMiss else what}")
            return ApiError(502, message, "upstream_failed")
    if isinstance(error, RsearchError):
        logger.warning(f"a request failed: {what}")
    else:
        logger.error(f"unexpected error in a request: {type(error).__name__}: {what}")
        logger.debug("the error in full", exc_info=error)
    return ApiError(500, "internal error; the server's log says more", "internal_error")


_OUTSIDE: dict[type[Exception], str] = {
    ServiceFailure: "a service that the agent needs did not answer",
    AccessDenied: "a service that the agent needs refused the server's key",
    OfflineMiss: "the server works offline, and an answer that it needs is not in its cache",
}
