"""The judge's end of the line: a reply as JSON, in the strictest form that its server can promise.

Place in the path: between the judge and `services.chat`, which does the talking. On failure: as
there; a server that refuses a form of reply is asked the next way.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from rsearch_cli.errors import JudgeError
from rsearch_cli.recipe.addresses import hide_login, is_http
from rsearch_cli.recipe.services import JudgeConfig
from rsearch_cli.services.chat_client import OPENAI_URL, ChatClient
from rsearch_cli.services.chat_errors import RequestRefused
from rsearch_cli.services.completion import Completion
from rsearch_cli.services.outcomes import PermanentFailure

URL_VARIABLE = "OPENAI_BASE_URL"

# From the strictest to what every server can do; a server that refuses one is asked the next way.
FORMATS = ("json_schema", "json_object", "text")


class JudgeClient:
    """The judge's server, and which form of reply it takes.

    Its client belongs to the event loop of the first call.
    """

    def __init__(self, judge: JudgeConfig) -> None:
        """Read address and key; nothing is sent.

        Args:
            judge: Model, address (else OPENAI_BASE_URL), length of a reply and time-out are read.

        Raises:
            JudgeError: OPENAI_BASE_URL is needed, and is no address.
        """
        self._judge = judge
        url = judge.base_url or os.environ.get(URL_VARIABLE) or OPENAI_URL
        if not is_http(url):
            raise JudgeError(
                f"{URL_VARIABLE} is no http address, got {hide_login(url)!r}; unset it to use "
                f"{OPENAI_URL}, or set reward.judge.base_url"
            )
        timeout = judge.service.timeout_seconds
        self._line = ChatClient(
            "the judge",
            judge.model,
            "reward.judge.model",
            url,
            timeout,
            "reward.judge.max_output_tokens",
        )
        self._format = 0  # position in FORMATS

    @property
    def url(self) -> str:
        """The server's base URL, without credentials."""
        return self._line.url

    @property
    def is_public(self) -> bool:
        """Whether this is OpenAI's own server, which answers to nobody without a key."""
        return self._line.is_public

    def check_key(self) -> None:
        """Check that there is a key where one is needed.

        Raises:
            AccessDenied: OpenAI's own server is asked, and there is no key.
        """
        self._line.check_key("set reward.judge.base_url to a server of your own")

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
                reply = await self._line.complete(
                    messages,
                    temperature=0,
                    max_tokens=self._judge.max_output_tokens,
                    **_response_format(FORMATS[position], schema),
                )
                # A parser that saw no end of a thought takes a verdict for one.
                return reply if reply.text.strip() else replace(reply, text=reply.thought)
            except RequestRefused as refusal:
                self._step_down(position, refusal)

    async def describe_models(self) -> str:
        """Name the models that the server has, as the end of a message; "" if it does not say."""
        return await self._line.describe_models()

    async def close(self) -> None:
        """Close the connections."""
        await self._line.close()

    def _step_down(self, position: int, refusal: RequestRefused) -> None:
        """Go on to the next of FORMATS after a refusal at `position`, unless that is not the cause.

        Raises:
            PermanentFailure: There is no other format, or this one is known to be accepted.
        """
        if position != self._format:
            return  # another call that is under way has stepped on already
        if self._line.answered or position == len(FORMATS) - 1:
            if not self._line.answered:
                self._format = 0  # it was not the format: the next request starts anew
            raise PermanentFailure(str(refusal), free=True)
        self._format += 1


def _response_format(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name == "text":
        return {}
    if name == "json_object":
        return {"response_format": {"type": name}}
    named = {"name": "verdict", "strict": True, "schema": schema}
    return {"response_format": {"type": name, "json_schema": named}}
