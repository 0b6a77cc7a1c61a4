"""Client of the judge's server: requests replies as JSON, as strictly as the server allows."""

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

# Reply formats from the strictest to plain text; a server that refuses one gets the next.
FORMATS = ("json_schema", "json_object", "text")


class JudgeClient(ChatClient):
    """The judge's server, and the reply format that it accepts.

    Args:
        judge: Model, address (or else OPENAI_BASE_URL), reply length and time-out are read.

    Raises:
        JudgeError: OPENAI_BASE_URL is used, and is not an http address.
    """

    def __init__(self, judge: JudgeConfig) -> None:
        self._judge = judge
        url = find_url(judge)
        if not is_http(url):
            raise JudgeError(
                f"{URL_VARIABLE} is not an http address, got {hide_login(url)!r}; unset it to use "
                f"{OPENAI_URL}, or set reward.judge.base_url"
            )
        super().__init__(
            "the judge",
            judge.model,
            "reward.judge.model",
            url,
            judge.service.timeout_seconds,
            "reward.judge.max_output_tokens",
        )
        self._format = 0  # position in FORMATS

    async def request_json(
        self, messages: list[dict[str, str]], schema: dict[str, Any]
    ) -> Completion:
        """Request one greedy reply, as JSON if the server supports that.

        Args:
            messages: The chat.
            schema: JSON schema of the reply.

        Raises:
            TransientFailure: The server is busy, late or broken, or its answer is not a completion.
            PermanentFailure: It refuses this request.
            NothingThere: It does not know the model or the address.
            AccessDenied: It refuses the key or the account.
        """
        while True:
            position = self._format
            try:
                reply = await self.complete(
                    messages,
                    temperature=0,
                    max_tokens=self._judge.max_output_tokens,
                    **_response_format(FORMATS[position], schema),
                )
                # A server that missed the end of a thought takes the verdict for a part of it.
                return reply if reply.text.strip() else replace(reply, text=reply.thought)
            except RequestRefused as refusal:
                self._step_down(position, refusal)

    def _step_down(self, position: int, refusal: RequestRefused) -> None:
        """Switch to the next format after a refusal of that at `position`.

        Raises:
            PermanentFailure: There is no other format, or this one is known to be accepted.
        """
        if position != self._format:
            return  # another call in flight has switched already
        if self.answered or position == len(FORMATS) - 1:
            if not self.answered:
                self._format = 0  # the format was not the cause: the next request starts over
            raise PermanentFailure(str(refusal), free=True)
        self._format += 1


def find_url(judge: JudgeConfig) -> str:
    """Return the judge's address, which may contain a login if it comes from the environment."""
    return judge.base_url or os.environ.get(URL_VARIABLE) or OPENAI_URL


def _response_format(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name == "text":
        return {}
    if name == "json_object":
        return {"response_format": {"type": name}}
    named = {"name": "verdict", "strict": True, "schema": schema}
    return {"response_format": {"type": name, "json_schema": named}}
