"""What the tests of judge and Hub share: servers, and the real clients that ask them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hub import TOKEN, HubServer
from openai_chat import API_KEY, ChatServer

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.judge import AnswerJudge, open_judge
from rsearch_cli.services.runtime import Services, open_services

FAST = (
    "reward.answer=judge",
    "reward.judge.service.requests_per_second=10000",
    "reward.judge.service.max_backoff_seconds=0",
    "reward.judge.service.retries=2",
    "reward.judge.service.breaker_failures=10000",
)


@pytest.fixture(autouse=True)
def openai_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and no address of the user's own."""
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def install(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str, str], None]]:
    """Installs an example of the documentation, as pip would: the module and its entry point."""
    installed = []

    def install(module: str, group: str, line: str) -> None:
        site = tmp_path / "site"
        about = site / f"{module}-1.0.dist-info"
        about.mkdir(parents=True)
        example = repository / "docs/examples" / f"{module}.py"
        (site / example.name).write_bytes(example.read_bytes())
        name = module.replace("_", "-")
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{group}]\n{line}\n")
        monkeypatch.syspath_prepend(str(site))
        installed.append(module)

    yield install
    for module in installed:
        sys.modules.pop(module, None)


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A judge's server that grades by comparing texts; `grade` and `faults` may be changed."""
    with ChatServer(retry_after="0", stall_seconds=20.0) as server:
        yield server


@pytest.fixture
def judge_recipe(chat_server: ChatServer) -> Callable[..., Recipe]:
    """A recipe that is judged by `chat_server`, with settings on top."""

    def load(*settings: str) -> Recipe:
        address = f"reward.judge.base_url={chat_server.base_url}"
        return load_recipe("quickstart", (*FAST, address, *settings)).recipe

    return load


@pytest.fixture
def open_services_of(tmp_path: Path) -> Iterator[Callable[[Recipe], Services]]:
    """Opens the services of a recipe on the test's own cache and run folder."""
    with ExitStack() as stack:
        yield lambda recipe: stack.enter_context(
            open_services(recipe, tmp_path / "run", tmp_path / "cache" / "answers")
        )


@pytest.fixture
def make_judge(
    judge_recipe: Callable[..., Recipe], open_services_of: Callable[[Recipe], Services]
) -> Iterator[Callable[..., AnswerJudge]]:
    """Opens a judge with settings on top; several share the test's cache."""
    with ExitStack() as stack:

        def make(*settings: str) -> AnswerJudge:
            recipe = judge_recipe(*settings)
            judge: Any = open_judge(recipe, open_services_of(recipe))
            return stack.enter_context(judge)

        yield make


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A local Hub; the client in this process asks it, without its waits between attempts."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with HubServer() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a short quickstart run."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
