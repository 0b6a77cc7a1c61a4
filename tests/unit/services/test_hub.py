"""A Hub that cannot be reached is asked once, and said once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub import constants
from local_http import Answer, LocalServer, Received

from rsearch_cli.services import hub
from rsearch_cli.services.hub import ask_hub

pytestmark = pytest.mark.usefixtures("messages_on_stderr")


class Busy(LocalServer):
    """Answers, if only that it cannot."""

    def respond(self, request: Received) -> Answer:
        return 503, {}


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import datasets

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_answered", set())
    yield


@pytest.mark.stack
def test_a_hub_that_is_not_there_costs_one_line_and_no_waiting(monkeypatch, capsys) -> None:
    import datasets
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    ask_hub()
    ask_hub()
    assert capsys.readouterr().err == (
        "warning: http://127.0.0.1:9 cannot be reached (ConnectError); "
        "using what is stored on this machine\n"
    )
    assert constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("some/body", "config.json")


@pytest.mark.stack
def test_a_hub_that_answers_is_asked_once(monkeypatch, capsys) -> None:
    with Busy() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        ask_hub()
        ask_hub()
        assert [request.method for request in server.requests] == ["HEAD"]
    assert not constants.HF_HUB_OFFLINE
    assert capsys.readouterr().err == ""


@pytest.mark.stack
def test_whoever_is_offline_by_choice_is_not_asked_for(monkeypatch, capsys) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    ask_hub()
    assert capsys.readouterr().err == ""
