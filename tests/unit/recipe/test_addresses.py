from __future__ import annotations

import pytest

from rsearch_cli.recipe.addresses import hide_login, is_http


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "HTTPS://api.example.com/v1/",
        "http://me:p%2Fw@a_b.example:81",
        "http://127.0.0.1",
        "http://[::1]:8000/v1",
    ],
)
def test_an_address_names_a_server(url: str) -> None:
    assert is_http(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http:///v1",
        "http://[x",
        "http://[zz]",
        "http://999.1.1.1",
        "http://a..b",
        f"http://{'a' * 64}",
        "http://host:0",
        "http://host:65536",
        "http://host:port",
        "http://host/v1?key=secret",
        "http://host/v1#part",
        "http://host/v 1",
        "http://host\t/v1",
        "http://höst",
        "http://me:12/34@host",
    ],
)
def test_what_no_client_could_call_is_none(url: str) -> None:
    assert not is_http(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("localhost:8000", "localhost:8000"),
        ("http://me:pass/w@rd@[x", "http://[x"),
        ("me:secret@host", "host"),
        ("https://api.exa.ai", "https://api.exa.ai"),
        ("http://me:p@ss@a.example:81/v1", "http://a.example:81/v1"),
    ],
)
def test_what_might_be_a_password_is_hidden(url: str, shown: str) -> None:
    assert hide_login(url) == shown
