from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from rsearch_cli import __version__
from rsearch_cli.errors import SourceError
from rsearch_cli.services.http import CONTACT_VARIABLE, read_retry_after, user_agent


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Fri, 32 Foo 2024 10:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 +99999999999999"}, None),
        ({"retry-after": "Wed, 01 May 2024 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 01 May 2024 10:00:00 -0000"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "many", "retry-after": "1"}, 1.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers) == seconds


def test_a_date_to_come_is_waited_for() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    seconds = read_retry_after({"retry-after": later})
    assert seconds is not None
    assert 0 < seconds <= 90


def test_the_user_agent_names_the_version_and_whom_to_contact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(CONTACT_VARIABLE, raising=False)
    assert user_agent().startswith(f"rsearch/{__version__} (no contact given) httpx/")
    monkeypatch.setenv(CONTACT_VARIABLE, " me@example.org ")
    assert user_agent().startswith(f"rsearch/{__version__} (me@example.org) httpx/")


@pytest.mark.parametrize("contact", ["a\nX-Evil: 1", "me) Mozilla/5.0 (", "m\u00e9@example.org"])
def test_a_contact_cannot_change_the_header(contact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTACT_VARIABLE, contact)
    with pytest.raises(SourceError, match=CONTACT_VARIABLE):
        user_agent()
