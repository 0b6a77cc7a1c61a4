"""Keys are checked before they are used, and hidden in every form."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from rsearch_cli.errors import AccessDenied, PublishDenied
from rsearch_cli.publishing.upload import check_access
from rsearch_cli.search.exa_client import ExaClient
from rsearch_cli.services.chat_client import ChatClient
from rsearch_cli.services.hub import ask_hub
from rsearch_cli.services.keys import check_key, hide_secrets, read_key
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.validation import mend

KEY = "sk-proj-7d2b8e4a0000/secret+of=openai"

FLAWS = {
    "sk-first\nsk-second": "holds a line break",
    "sk-first\r\nsk-second": "holds a line break",
    "sk-first\u2028second": "holds a line break",
    '"sk-quoted"': "begins or ends with a quotation mark",
    "'sk-quoted'": "begins or ends with a quotation mark",
    "“sk-quoted”": "begins or ends with a quotation mark",
    "sk-half-quoted'": "begins or ends with a quotation mark",
    "Bearer sk-key": "holds a space",
    "sk-a\tb": "holds a space",
    "sk-a\u00a0b": "holds a space",
    "sk-schlüssel": "holds a character that is not visible ASCII",
    "sk-a\u200bb": "holds a character that is not visible ASCII",
    "sk-a\x1bb": "holds a character that is not visible ASCII",
    "sk-a\x7fb": "holds a character that is not visible ASCII",
    "sk-a\udcffb": "holds a character that is not visible ASCII",
}


def check_exa(key: str) -> None:
    ExaClient(key).check()


def check_openai(key: str) -> None:
    line("http://localhost:9/v1").check_key("do something else")


def check_reading(key: str) -> None:
    ask_hub()


def check_writing(key: str) -> None:
    check_access("someone/agent")


def line(url: str) -> ChatClient:
    return ChatClient("the judge", "m", "reward.judge.model", url, 5.0, "max_tokens")


CHECKS: dict[str, Callable[[str], None]] = {
    "EXA_API_KEY": check_exa,
    "OPENAI_API_KEY": check_openai,
    "HF_TOKEN": check_reading,
    "HF_TOKEN ": check_writing,
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("key", "flaw"), FLAWS.items(), ids=map(ascii, FLAWS))
def test_what_cannot_be_a_key_is_told_by_its_variable_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch, check: str, key: str, flaw: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv(check.strip(), key)
    with pytest.raises((AccessDenied, PublishDenied)) as caught:
        CHECKS[check](key)
    assert str(caught.value) == f"{check.strip()} {flaw}, and no key does; copy the key again"


@pytest.mark.parametrize("key", [KEY, "x", "EMPTY", "hf_AbC123", "a.b-c_d~e!f%g", "mid'dle"])
def test_what_can_be_a_key_passes(key: str) -> None:
    check_key("OPENAI_API_KEY", key)


def test_white_space_around_a_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXA_API_KEY", f" {KEY}\r\n")
    assert read_key("EXA_API_KEY") == KEY
    monkeypatch.setenv("EXA_API_KEY", " \n")
    assert read_key("EXA_API_KEY") == ""


BROKEN = "sk-proj-first\nline/and\té\"second'"


@pytest.mark.parametrize("secret", [KEY, BROKEN], ids=["a key", "what cannot be one"])
@pytest.mark.parametrize(
    "spell",
    [
        str,
        repr,
        ascii,
        lambda s: repr(f"said {s!r}"),
        json.dumps,
        lambda s: json.dumps(s, ensure_ascii=False),
        lambda s: repr(s.encode()),
        lambda s: f"Illegal header value {f'Bearer {s}'.encode()!r}",
        quote,
        lambda s: quote(s, safe=""),
        lambda s: quote(s, safe="").lower(),
        quote_plus,
        html.escape,
        lambda s: " ".join(s.split()),
        lambda s: b64encode(s.encode()).decode(),
        lambda s: b64encode(s.encode()).decode().rstrip("="),
    ],
)
def test_every_form_of_a_key_is_hidden(secret: str, spell: Callable[[str], str]) -> None:
    shown = hide_secrets(f"the key was {spell(secret)}, it seems", [secret])
    assert "***" in shown
    for part in ("7d2b8e4a0000", "first", "second", spell(secret)):
        assert part not in shown
    assert shown.startswith("the key was ") and shown.endswith(", it seems")


@pytest.mark.parametrize("kind", [TransientFailure, PermanentFailure])
def test_no_failed_call_tells_a_key_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """Sources of third parties put the words of their libraries into the failure."""
    monkeypatch.setenv("SEARXNG_TOKEN", KEY)
    assert str(kind(f"refused {KEY!r} and {quote_plus(KEY)}")) == "refused '***' and ***"


def test_texts_and_empty_keys_stay_as_they_are() -> None:
    assert hide_secrets("nothing to hide", []) == "nothing to hide"
    assert hide_secrets("nothing to hide", [""]) == "nothing to hide"


def test_lone_surrogates_are_mended_and_pairs_are_kept() -> None:
    assert mend("a\ud83db\udc00 \U0001f600") == "a\ufffdb\ufffd \U0001f600"
