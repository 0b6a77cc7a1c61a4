"""The fences around the tests themselves."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import urllib.request

import pytest


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "huggingface.co"])
def test_network_is_out_of_reach(host: str) -> None:
    with pytest.raises(RuntimeError, match=f"tests have no network, .* reached for {host}"):
        socket.create_connection((host, 80), timeout=1)


def test_http_clients_and_threads_meet_the_same_wall() -> None:
    seen: list[BaseException] = []

    def fetch() -> None:
        try:
            urllib.request.urlopen("http://192.0.2.1/", timeout=1)
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    thread.join()
    assert "reached for 192.0.2.1" in str(seen[0])


def test_loopback_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


@pytest.mark.parametrize("variable", ["HF_HOME", "RSEARCH_CACHE_DIR", "WANDB_DIR"])
def test_caches_are_temporary(variable: str) -> None:
    assert os.environ[variable].startswith(tempfile.gettempdir())
