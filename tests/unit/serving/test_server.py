from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rsearch_cli.errors import AddressUnavailable, UsageError
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.serving.server import name_model, open_listener

KEY = "a-key-of-some-length"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.3.2.1"])
def test_this_machine_needs_no_key(host: str) -> None:
    with open_listener(host, 0) as listener:
        assert listener.getsockname()[0].startswith("127.")


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    with open_listener("::1", 0) as listener:
        assert listener.family == socket.AF_INET6


@pytest.mark.parametrize(
    "key", ["short", "with space in it!", "ümlaut-ümlaut-ümlaut", '"quoted-quoted"']
)
def test_what_is_no_good_key(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_listener("127.0.0.1", 0, key)
    assert key not in str(caught.value)


def test_a_restart_takes_the_same_port() -> None:
    with open_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        listener.listen()
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()
    with open_listener("127.0.0.1", port) as again:
        again.listen()
        with pytest.raises(AddressUnavailable, match=f"127.0.0.1:{port}: address already in use"):
            open_listener("127.0.0.1", port)


def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("quickstart").recipe
    (tmp_path / "run").mkdir()
    assert name_model(recipe, "builtin:nano") == "builtin:nano"
    assert name_model(recipe, "someone/agent") == "someone/agent"
    assert name_model(recipe, str(tmp_path / "run")) == "run"
    monkeypatch.chdir(tmp_path / "run")
    assert name_model(recipe, ".") == "run"
    url = "policy.endpoint.url=http://10.0.0.9/v1"
    on_server = load_recipe("quickstart", [url, "policy.endpoint.model=agent"]).recipe
    assert name_model(on_server, "builtin:nano") == "agent"
