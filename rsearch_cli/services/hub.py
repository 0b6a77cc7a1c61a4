"""Whether the Hugging Face Hub can be reached, asked once and not once a file.

Place in the path: before models and question sets are read from the Hub. Its client tries each file
six times over half a minute, also where there is no network at all. On failure: without an answer
from the Hub the client goes on with what is stored on this machine, and one line says so.
"""

from __future__ import annotations

import logging
import sys

from rsearch_cli.services.http import check_proxies
from rsearch_cli.services.keys import check_key, read_key

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "HF_TOKEN"
TIMEOUT_SECONDS = 10.0

_answered: set[str] = set()


def ask_hub() -> None:
    """Let the Hub's clients read only what is stored here, if the Hub does not answer.

    Raises:
        AccessDenied: HF_TOKEN is text that cannot be a token.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or constants.ENDPOINT in _answered:
        return
    check_proxies()
    if token := read_key(TOKEN_VARIABLE):
        check_key(TOKEN_VARIABLE, token)
    if problem := hub_problem():
        _go_offline()
        logger.warning(
            f"{constants.ENDPOINT} cannot be reached ({problem}); using what is "
            "stored on this machine"
        )
    else:
        _answered.add(constants.ENDPOINT)


def hub_problem() -> str | None:
    """Ask the Hub once; the kind of error if it does not answer, else None."""
    import httpx
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return type(error).__name__
    return None


def _go_offline() -> None:
    """As HF_HUB_OFFLINE=1 does; datasets has a copy of it, taken when it is imported."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    if datasets := sys.modules.get("datasets"):
        datasets.config.HF_HUB_OFFLINE = True
