"""One check whether the Hugging Face Hub can be reached, before anything is read from it.

Without it the Hub's client would try each file six times over half a minute. If the Hub does not
answer, the client is switched to the files stored on this machine, with a warning.
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
    """Switch the Hub's clients to offline mode if the Hub does not answer.

    Raises:
        AccessDenied: HF_TOKEN cannot be a token.
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
    """Send one request to the Hub; return the type of the error, or None if it answers."""
    import httpx
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return type(error).__name__
    return None


def _go_offline() -> None:
    """Do what HF_HUB_OFFLINE=1 does; datasets copies that setting when it is imported."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    if datasets := sys.modules.get("datasets"):
        datasets.config.HF_HUB_OFFLINE = True
