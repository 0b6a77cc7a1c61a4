"""Several processes train together: the run of one, paid for once, written once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from exa import API_KEY, USD_PER_SEARCH, ExaServer
from loaded_process import LoadedProcess

SETTINGS = (
    "questions.world.train_regions=2",
    "questions.world.held_out_regions=1",
    "policy.backend=transformers",
    "search.service.requests_per_second=1000",
    "train.batch_size=8",
    "train.num_generations=4",
    "train.max_steps=3",
    "train.save_steps=2",
    "evaluate.limit=5",
)
EXA = tuple(f"search.sources.{name}.type=exa" for name in ("General", "News", "Academy"))

# Sampling draws from a generator for each process; here each row gets one of its own, so that it is
# the same row whichever process writes it.
SEEDED = """
import torch
from collections import Counter
from rsearch_cli.rollout import rollout
from rsearch_cli.app import main

plain, calls = rollout.Rollout.run, Counter()

def run(self, questions, sampling, on_done=None):
    if on_done is not None:  # an evaluation
        return plain(self, questions, sampling, on_done)
    calls["run"] += 1
    seen, rows = Counter(), []
    for question in questions:
        seen[question.id] += 1
        torch.manual_seed(hash((calls["run"], seen[question.id])) % 2**31)
        rows += plain(self, [question], sampling)
    return rows

rollout.Rollout.run = run
main()
"""


def command(folder: Path, *settings: str) -> list[str]:
    options = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    return ["train", "--recipe", "quickstart", *options, "--output-dir", str(folder)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": "0", **more}


def train_seeded(folder: Path, processes: int, *settings: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    started = [
        LoadedProcess(
            [sys.executable, "-c", SEEDED, *command(folder, *settings)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes, "\n".join(outputs)


def read_rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_two_processes_train_like_one_with_twice_the_accumulation(tmp_path: Path) -> None:
    replacing = "train.resample_ties=1"
    train_seeded(tmp_path / "one", 1, "train.gradient_accumulation_steps=2", replacing)
    train_seeded(tmp_path / "two", 2, replacing)
    one, two = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert len(one) == len(two) == 3
    for alone, shared in zip(one, two, strict=True):
        assert shared["discarded/rollouts"] == alone["discarded/rollouts"]
        for figure in ("reward", "loss", "grad_norm", "entropy", "kl", "completion_length"):
            assert shared[figure] == pytest.approx(alone[figure], abs=2e-4, rel=2e-3), figure
    assert any(abs(row["loss"]) > 1e-4 for row in one), "there was something to learn"
    assert any(row["discarded/rollouts"] for row in one)
    rollouts = [read_rows(tmp_path / name / "trajectories.jsonl") for name in ("one", "two")]
    texts = [Counter(json.dumps(row["segments"]) for row in rows) for rows in rollouts]
    assert texts[0] == texts[1] and sum(texts[0].values()) == 3 * 16
    evaluations = [
        (tmp_path / name / "predictions" / "before-greedy.jsonl").read_text()
        for name in ("one", "two")
    ]
    assert evaluations[0] == evaluations[1]


def test_two_processes_learn_from_the_same_traces_of_gold_titles(tmp_path: Path) -> None:
    settings = ("stage=sft", "sft.traces=gold_titles", "sft.batch_size=4", "sft.max_steps=2")
    train_seeded(tmp_path / "one", 1, *settings, "sft.gradient_accumulation_steps=2")
    train_seeded(tmp_path / "two", 2, *settings, "sft.gradient_accumulation_steps=1")
    for file in ("traces.jsonl", "traces.json"):
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert one == two and one
    one, two = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert len(one) == len(two) == 2
    for alone, shared in zip(one, two, strict=True):
        assert shared["learnt_tokens"] == alone["learnt_tokens"] > 0
        for figure in ("loss", "grad_norm"):
            assert shared[figure] == pytest.approx(alone[figure], rel=2e-3), figure


@pytest.fixture
def exa() -> Iterator[ExaServer]:
    with ExaServer() as server:
        yield server


def launch(
    folder: Path, exa: ExaServer, *settings: str, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    keys = {"EXA_API_KEY": API_KEY, "EXA_BASE_URL": exa.url}
    line = [*command(folder, *EXA, *settings), "--num-processes", "2", *flags]
    return subprocess.run(
        [sys.executable, "-m", "rsearch_cli", *line],
        env=environment(RSEARCH_CACHE_DIR=str(folder.parent / "cache"), **keys),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_what_two_processes_search_is_paid_once_and_written_once(
    exa: ExaServer, tmp_path: Path
) -> None:
    done = launch(tmp_path / "run", exa)
    assert done.returncode == 0, done.stderr
    counts = exa.counts()
    assert counts["requests"] == counts["distinct"] > 5, "a search was sent twice"
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert len(read_rows(tmp_path / "run" / "trajectories.jsonl")) == 3 * 16
    spend = json.loads((tmp_path / "run" / "spend.json").read_text())["services"]["exa"]
    assert spend["calls"] == len(exa.requests)
    assert spend["usd"] == pytest.approx(USD_PER_SEARCH * len(exa.requests))
    assert done.stdout.count("run folder: ") == 1
    assert done.stderr.count("opening the search sources") == 1
    states = sorted(p.name for p in (tmp_path / "run" / "checkpoint-2").glob("rng_state*"))
    assert states == ["rng_state_0.pth", "rng_state_1.pth"]


def test_a_budget_that_ends_both_is_told_once_and_can_be_resumed(
    exa: ExaServer, tmp_path: Path
) -> None:
    stopped = launch(tmp_path / "run", exa, "budget.max_usd=0.07")
    assert stopped.returncode == 80, stopped.stderr
    told = [line for line in stopped.stderr.splitlines() if line.startswith("rsearch: ")]
    assert len(told) == 1 and "--resume" in told[0]
    assert len(exa.requests) <= 14
    resumed = launch(tmp_path / "run", exa, "budget.max_usd=50", flags=("--resume",))
    assert resumed.returncode == 0, resumed.stderr
    assert [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3]
    assert exa.counts()["requests"] == exa.counts()["distinct"]
