"""Keys go to their service and nowhere else: no file, no line of output, no command line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from exa import ExaServer
from faults import Fault, Faults
from openai_chat import ChatServer

EXA_KEY = "exa-5a1f9c3e-0000-secret-of-exa"
OPENAI_KEY = "sk-proj-7d2b8e4a0000secretofopenai"
SECRETS = (EXA_KEY, OPENAI_KEY)

# How long a process may take to get keys off its command line; a run takes several times as long.
START_SECONDS = 2.0

SETTINGS = (
    "questions.world.train_regions=2",
    "questions.world.held_out_regions=1",
    "policy.backend=transformers",
    "search.sources.General.type=exa",
    "search.sources.News.type=exa",
    "search.sources.Academy.type=exa",
    "search.service.retries=1",
    "search.service.max_backoff_seconds=0.01",
    "search.service.breaker_failures=1000",
    "reward.answer=judge",
    "reward.judge.skip_exact_match=false",
    "reward.judge.service.retries=1",
    "reward.judge.service.max_backoff_seconds=0.01",
    "reward.judge.service.breaker_failures=1000",
    "budget.max_failed_share=1.0",
    "train.batch_size=8",
    "train.num_generations=4",
    "train.max_steps=2",
    "evaluate.limit=4",
)


class Gossip(ChatServer):
    """A judge's server that says in every error which key it was sent."""

    def describe_error(self, status: int, message: str) -> dict:
        return super().describe_error(status, f"{message}; the key was {self.requests[-1].headers}")


@dataclass
class Trained:
    """A finished process: all it wrote, and the command lines that it and its children had.

    Those of its first moment are not among them: a key that is given as a flag is on the command
    line until the program runs, and nobody can change that.
    """

    folder: Path
    exit_code: int
    output: str
    command_lines: set[bytes]


@pytest.fixture
def exa() -> Iterator[ExaServer]:
    faults = Faults((Fault.SERVER_ERROR, Fault.HTML, Fault.CUT), share=0.2)
    with ExaServer(api_key=EXA_KEY, faults=faults) as server:
        yield server


@pytest.fixture
def chat() -> Iterator[Gossip]:
    faults = Faults((Fault.RATE_LIMIT, Fault.BAD_REQUEST, Fault.BAD_JSON), share=0.3)
    with Gossip(api_key=OPENAI_KEY, faults=faults, retry_after="0") as server:
        yield server


def train(
    folder: Path,
    exa: ExaServer,
    chat: ChatServer,
    openai_key: str = OPENAI_KEY,
    *,
    by_flag: bool = False,
) -> Trained:
    """Train in a process of its own, with everything it might write to inside `folder`."""
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "rsearch_cli",
        "--debug",
        "train",
        "--recipe",
        "quickstart",
        *options,
    ]
    keys = {"EXA_API_KEY": EXA_KEY, "OPENAI_API_KEY": openai_key}
    if by_flag:
        command += ["--exa-api-key", EXA_KEY, f"--openai-api-key={openai_key}"]
        keys = {}
    environment = {
        **os.environ,
        **keys,
        "EXA_BASE_URL": exa.url,
        "OPENAI_BASE_URL": chat.base_url,
        "RSEARCH_CACHE_DIR": str(folder / "cache"),
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home" / "cache"),
        "TMPDIR": str(folder / "tmp"),
        "WANDB_DIR": str(folder / "wandb"),
        "WANDB_MODE": "offline",
    }
    for name in ("home", "tmp", "wandb"):
        (folder / name).mkdir(parents=True)
    with subprocess.Popen(
        [*command, "--output-dir", str(folder / "run")],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        seen: set[bytes] = set()
        watch = threading.Thread(target=watch_command_lines, args=(process, seen))
        watch.start()
        output, _ = process.communicate(timeout=300)
        watch.join()
    return Trained(folder, process.returncode, output, seen)


def watch_command_lines(process: subprocess.Popen[str], seen: set[bytes]) -> None:
    """Note the command lines of a process and all below it for as long as it lives."""
    time.sleep(START_SECONDS)
    while process.poll() is None:
        family = {process.pid}
        for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if int(entry.name) in family or parent in family:
                    family.add(int(entry.name))
                    seen.add((entry / "cmdline").read_bytes())
            except (OSError, ValueError):
                continue  # it has ended meanwhile
        time.sleep(0.05)


def files_with_secrets(folder: Path) -> list[Path]:
    """Files below a folder whose name or content holds a key."""
    return [
        path
        for path in folder.rglob("*")
        for secret in SECRETS
        if secret in str(path) or (path.is_file() and secret.encode() in path.read_bytes())
    ]


needs_proc = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.parametrize("by_flag", [False, True], ids=["environment", "flag"])
def test_a_run_leaves_no_key_behind(
    exa: ExaServer, chat: Gossip, tmp_path: Path, by_flag: bool
) -> None:
    trained = train(tmp_path, exa, chat, by_flag=by_flag)
    assert trained.exit_code == 0, trained.output
    assert exa.counts()["answered"] > 3 and exa.counts()["failed"], "the key was in use"
    assert chat.counts()["answered"] > 3 and chat.counts()["failed"]
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"metrics.jsonl", "trajectories.jsonl", "environment.json", "spend.json"} <= written
    assert any((tmp_path / "cache").rglob("*.db"))
    assert files_with_secrets(tmp_path) == []
    assert not any(secret in trained.output for secret in SECRETS)
    assert any(b"rsearch_cli" in line for line in trained.command_lines), "it was watched"
    assert not any(s.encode() in line for s in SECRETS for line in trained.command_lines)


@needs_proc
def test_a_refused_key_is_not_repeated_by_the_error(
    exa: ExaServer, chat: Gossip, tmp_path: Path
) -> None:
    wrong = "sk-proj-00000000wrongbutstillsecret"
    chat.faults = Faults()
    trained = train(tmp_path, exa, chat, openai_key=wrong)
    assert trained.exit_code == 41, trained.output
    [last] = [line for line in trained.output.splitlines() if line.startswith("rsearch: ")]
    assert "the key in OPENAI_API_KEY is refused" in last
    assert "Traceback" in trained.output, "--debug shows it"
    assert wrong not in trained.output
    assert files_with_secrets(tmp_path) == []
    assert not any(wrong.encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_a_secret_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "log").write_bytes(b"\x00" + EXA_KEY.encode() + b"\xff")
    (tmp_path / OPENAI_KEY).touch()
    found = {path.name for path in files_with_secrets(tmp_path)}
    assert found == {"log", OPENAI_KEY}
