"""Weights & Biases, the real client: offline, out of reach, refusing the key; and a resumed run."""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from threaded import HTTPServer

KEY = "b7e1c0ffee5ec2e7b7e1c0ffee5ec2e7b7e1c0ff"
OTHER_KEY = "sk-proj-another-secret-in-the-environment"

# A run as training tracks it, without the training.
SCRIPT = """
import logging, sys, time
from pathlib import Path
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.tracking import open_tracker

folder, first, last, *settings = sys.argv[1:]
recipe = load_recipe("quickstart", ["wandb.enabled=true", *settings]).recipe
rollout = {
    "question": "Who?", "answers": ["a"], "answer": "a", "opening": "", "rounds": [],
    "reward": {"answer": 1.0, "plan": 1.0, "format": 1.0, "total": 1.0},
    "segments": [{"text": "<answer>a</answer>"}],
}
block = {"em": 0.5}
started = time.monotonic()
logging.basicConfig(format="SAID %(message)s", stream=sys.stdout)
with open_tracker(recipe, RunFolder(Path(folder))) as tracker:
    print("on the console")
    for step in range(int(first), int(last) + 1):
        tracker.on_step({"step": step, "reward": step / 10, "alarms": []}, [rollout])
    tracker.on_validation({"step": step, "f1": 0.5}, {"step": step, "f1": 0.5})
    tracker.log_summary({"before": block, "after": block, "difference": block})
print("SECONDS", time.monotonic() - started)
"""


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers every request with 401, and repeats the key it was sent."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = f'{{"errors": [{{"message": "bad key {KEY}"}}]}}'.encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Fading(Refusing):
    """Lets a run begin, and answers nothing after that."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        bucket = {"id": "b", "name": "b", "displayName": "b", "config": "{}", "project": project}
        answers = {
            b"RunResumeStatus": {"model": {"bucket": None}},
            b"UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
            b"Viewer": {"viewer": {"id": "v", "entity": "e", "username": "u"}},
        }
        data = next((answer for name, answer in answers.items() if name in body), None)
        if data is None:
            time.sleep(60)
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class Silent(Refusing):
    """Takes a request and does not answer."""

    def do_POST(self) -> None:
        time.sleep(60)

    do_GET = do_POST


@pytest.fixture
def serve() -> Iterator:
    servers = []

    def start(handler: type) -> str:
        server = HTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def track(
    folder: Path,
    *settings: str,
    url: str,
    key: str | None = KEY,
    steps: tuple[int, int] = (1, 3),
    **variables: str,
) -> str:
    """Track a run in a process of its own; everything it writes lies in `folder`."""
    (folder / "run").mkdir(exist_ok=True)
    limits = ["wandb.timeout_seconds=2", f"output_dir={folder}/{OTHER_KEY}"]
    arguments = [str(folder / "run"), *map(str, steps), *limits, *settings]
    done = call(folder, "-c", SCRIPT, *arguments, url=url, key=key, **variables)
    assert done.stderr == "", "W&B says nothing of its own"
    return done.stdout


def call(
    folder: Path, *arguments: str, url: str, key: str | None = KEY, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with W&B's settings and all folders of a user inside `folder`."""
    environment = {name: value for name, value in os.environ.items() if "WANDB" not in name}
    environment |= {
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
        "TMPDIR": str(folder),
        "OPENAI_API_KEY": OTHER_KEY,
        "WANDB_BASE_URL": url,
        **({"WANDB_API_KEY": key} if key else {}),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    for secret in (KEY, OTHER_KEY):
        assert secret not in done.stdout + done.stderr
    return done


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "run" / "wandb").glob("offline-run-*"))


def transaction_log(run: Path) -> bytes:
    """W&B's own record of a run, which `wandb sync` would send."""
    (log,) = run.glob("*.wandb")
    return log.read_bytes()


def files_with(folder: Path, *secrets: str) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        for secret in secrets
        if secret in str(path.name) or (path.is_file() and secret.encode() in path.read_bytes())
    ]


def test_offline_the_whole_run_lies_in_its_folder_without_a_key(tmp_path: Path) -> None:
    output = track(tmp_path, "wandb.mode=offline", "wandb.run_name=evening", url=closed_port())
    assert "SAID" not in output and "on the console" in output
    (run,) = offline_runs(tmp_path)
    log = transaction_log(run)
    for expected in (b"reward", b"evening", b"r-search-training", b"validation/f1", b"after/em"):
        assert expected in log
    assert b"learning_rate" in log, "the resolved recipe"
    (table,) = run.rglob("*.table.json")
    assert "<answer>a</answer>" in table.read_text()
    assert files_with(tmp_path, KEY, OTHER_KEY) == []
    assert files_with(tmp_path, "on the console") == [], "the console is not captured"
    assert files_with(run, "open_tracker") == [], "no code is kept"
    assert not list(run.rglob("requirements.txt")) and not list(run.rglob("*metadata.json"))


def test_a_training_is_tracked_from_its_first_step_to_its_outcome(tmp_path: Path) -> None:
    settings = (
        "questions.world.train_regions=2",
        "questions.world.held_out_regions=1",
        "policy.backend=transformers",
        "rollout.max_new_tokens=60",
        "train.max_steps=2",
        "train.batch_size=8",
        "train.num_generations=4",
        "evaluate.limit=4",
        "evaluate.sampled=false",
        "evaluate.every_steps=2",
        "evaluate.slice=4",
        "wandb.enabled=true",
        "wandb.mode=offline",
        "wandb.table_rows=3",
    )
    options = [word for setting in settings for word in ("--set", setting)]
    command = (
        "-m",
        "rsearch_cli",
        "train",
        "--recipe",
        "quickstart",
        *options,
        "--output-dir",
        str(tmp_path / "run"),
    )
    call(tmp_path, *command, url=closed_port())
    (run,) = offline_runs(tmp_path)
    log = transaction_log(run)
    for name in ("reward/plan", "seconds/step", "spend/usd", "validation/f1", "difference/em"):
        assert name.encode() in log
    (table,) = run.rglob("*.table.json")
    cells = json.loads(table.read_text())
    assert len(cells["data"]) == 3
    plans = [row[cells["columns"].index("plan")] for row in cells["data"]]
    assert any(re.match(r"A: .+ \((General|News)\)", plan) for plan in plans), plans
    assert files_with(tmp_path, KEY, OTHER_KEY) == []


def test_a_resumed_run_is_the_same_one(tmp_path: Path) -> None:
    for steps in ((1, 3), (3, 5)):
        track(tmp_path, "wandb.mode=offline", url=closed_port(), steps=steps)
        time.sleep(1.1)  # W&B names the folders of a run by the second
    first, second = offline_runs(tmp_path)
    assert first.name.rpartition("-")[2] == second.name.rpartition("-")[2]
    assert b"validation/f1" in transaction_log(second)


@pytest.mark.parametrize(
    ("server", "key", "reason"),
    [
        (None, KEY, "connection refused"),
        (Silent, KEY, "context deadline exceeded"),
        (Refusing, KEY, "returned error 401"),
        (None, "short", "WANDB_API_KEY invalid: API key must have 40+ characters"),
        (None, f"{KEY[:20]}\n{KEY[20:]}", "WANDB_API_KEY holds a line break"),
        (None, None, "WANDB_API_KEY is not set"),
    ],
    ids=["out of reach", "no answer", "refused", "malformed", "two lines", "missing"],
)
def test_without_w_and_b_the_run_goes_on_offline_after_one_line(
    tmp_path: Path, serve, server: type | None, key: str | None, reason: str
) -> None:
    url = serve(server) if server else closed_port()
    output = track(tmp_path, url=url, key=key).splitlines()
    (said,) = [line for line in output if line.startswith("SAID")]
    assert said.startswith("SAID W&B: ") and reason in said
    assert said.endswith(f"tracking offline, in {tmp_path / 'run' / 'wandb'}")
    (run,) = offline_runs(tmp_path)
    assert b"validation/f1" in transaction_log(run)
    assert files_with(tmp_path, KEY, OTHER_KEY) == []


def test_a_w_and_b_that_is_lost_on_the_way_costs_one_line_at_the_end(tmp_path: Path, serve) -> None:
    output = track(tmp_path, url=serve(Fading)).splitlines()
    said = [line for line in output if line.startswith("SAID")]
    assert said == ["SAID W&B: no response; what was not sent is in metrics.jsonl"]
    assert offline_runs(tmp_path) == [], "it had begun online"
    assert files_with(tmp_path, KEY, OTHER_KEY) == []


@pytest.mark.parametrize(
    "variables", [{"WANDB_MODE": "disabled"}, {"WANDB_DISABLED": "true"}], ids=["mode", "older"]
)
def test_disabled_by_the_environment_means_disabled(
    tmp_path: Path, serve, variables: dict[str, str]
) -> None:
    output = track(tmp_path, url=serve(Refusing), **variables)
    said = "SAID W&B: disabled by an environment variable; the run is not tracked"
    assert [line for line in output.splitlines() if line.startswith("SAID")] == [said]
    assert not (tmp_path / "run" / "wandb").exists()


@pytest.mark.parametrize("mode", ["offline", "dryrun"])
def test_offline_by_the_environment_asks_nobody(tmp_path: Path, mode: str) -> None:
    output = track(tmp_path, url=closed_port(), WANDB_MODE=mode)
    assert "SAID" not in output
    assert len(offline_runs(tmp_path)) == 1


def test_a_mode_that_nobody_knows_tracks_nothing(tmp_path: Path, serve) -> None:
    output = track(tmp_path, url=serve(Refusing), WANDB_MODE="ofline")
    assert "SAID W&B: WANDB_MODE is 'ofline', not online, offline or disabled" in output
    assert not (tmp_path / "run" / "wandb").exists()


@pytest.mark.parametrize("variable", [{}, {"NETRC": "elsewhere"}], ids=["home", "NETRC"])
def test_a_login_that_is_stored_is_used(tmp_path: Path, serve, variable: dict[str, str]) -> None:
    file = tmp_path / variable.get("NETRC", ".netrc")
    url = serve(Fading)
    machine = url.removeprefix("http://")
    file.write_text(f"machine {machine}\n  login user\n  password {KEY}\n")
    file.chmod(0o600)
    paths = {name: str(file) for name in variable}
    output = track(tmp_path, url=url, key=None, **paths).splitlines()
    said = [line for line in output if line.startswith("SAID")]
    assert said == ["SAID W&B: no response; what was not sent is in metrics.jsonl"]
    assert offline_runs(tmp_path) == [], "it had begun online"
    file.unlink()
    assert files_with(tmp_path, KEY, OTHER_KEY) == []


def test_a_login_at_another_server_is_none(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    output = track(tmp_path, url=closed_port(), key=None)
    assert "W&B: WANDB_API_KEY is not set, and `wandb login` has left no key in ~/.netrc" in output
