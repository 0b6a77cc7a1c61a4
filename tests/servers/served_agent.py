"""`rsearch serve` in a process of its own, as its users start it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaded_process import LoadedProcess

START_SECONDS = 120.0

SMALL_WORLD = (
    "--set=questions.world.train_regions=2",
    "--set=questions.world.held_out_regions=1",
    "--set=policy.backend=transformers",
)
"""A world that opens in a second."""

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class ServedAgent:
    """A running server.

    Attributes:
        url: Without a path, as `http://127.0.0.1:41235`.
        process: The process; its stdout is captured.
        log: File with its stderr.
    """

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def stderr(self) -> str:
        """What it has written to stderr so far."""
        return self.log.read_text(encoding="utf-8")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def get(self, path: str) -> Any:
        """GET a JSON document."""
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        """GET a text."""
        with OPENER.open(f"{self.url}{path}", timeout=30) as response:
            return response.read().decode()

    def metric(self, name: str) -> float:
        """The value of a metric, labels included in its name; 0 while it does not exist."""
        lines = self.text("/metrics").splitlines()
        found = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return sum(float(value) for key, _, value in found if key == name)

    def wait_until_idle(self, seconds: float = 30.0) -> None:
        """Wait until nothing is waiting or running."""
        deadline = time.monotonic() + seconds
        while True:
            health = self.get("/health")
            if health["waiting"] == health["running"] == 0:
                return
            assert time.monotonic() < deadline, health
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def serve_agent(
    *options: str,
    model: str | None = "builtin:nano",
    world: Sequence[str] = SMALL_WORLD,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ServedAgent]:
    """Serve an agent on a free port; stopped at the end if it still runs.

    Args:
        options: Added to the command line.
        model: What is served; None leaves it to the options.
        world: Settings that come before them.
        environment: Added to that of the tests.
    """
    with tempfile.TemporaryDirectory(prefix="rsearch-served-") as folder:
        log = Path(folder) / "stderr"
        command = [sys.executable, "-m", "rsearch_cli", "serve", "--port=0"]
        command += [] if model is None else [f"--model={model}"]
        with log.open("w") as stderr:
            process = LoadedProcess(
                [*command, *world, *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        try:
            yield ServedAgent(_wait_for_url(process, log), process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _wait_for_url(process: subprocess.Popen[str], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8")
        if found := re.search(r"listening on (http://\S+)", text):
            return found[1].replace("0.0.0.0", "127.0.0.1")
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}:\n{text}")
        time.sleep(0.05)
    raise AssertionError(f"the server does not listen:\n{log.read_text(encoding='utf-8')}")
