"""`rsearch train` on paid services: what it books, and how it stops and goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from exa import API_KEY as EXA_KEY
from exa import USD_PER_SEARCH, ExaServer
from local_http import Answer, Received
from openai_chat import API_KEY as OPENAI_KEY
from openai_chat import ChatServer
from typer.testing import CliRunner, Result

from rsearch_cli.app import app

STEPS = 3

# A step has 8 completions, and up to 8 more in place of tied ones; each evaluation has 4 of each
# kind; no checkpoint is due before the last.
SETTINGS = (
    "questions.world.train_regions=2",
    "questions.world.held_out_regions=1",
    "policy.backend=transformers",
    "search.sources.General.type=exa",
    "search.sources.News.type=exa",
    "search.sources.Academy.type=exa",
    "search.service.retries=0",
    "search.service.requests_per_second=1000",
    "reward.answer=judge",
    "train.batch_size=8",
    "train.num_generations=4",
    "train.resample_ties=1",
    f"train.max_steps={STEPS}",
    "evaluate.limit=4",
)


class MeteredExa(ExaServer):
    """Exa until the credit is used up, or until it breaks down."""

    answers: float = float("inf")
    then: int = 402

    def respond(self, request: Received) -> Answer:
        if len(self.requests) > self.answers:
            return self.then, self.describe_error(self.then, "that was the last one")
        return super().respond(request)


@dataclass
class Run:
    """One run folder, and how it came to be."""

    folder: Path
    cache: Path
    result: Result

    def rows(self) -> list[dict[str, Any]]:
        text = (self.folder / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def course(self) -> list[tuple[Any, ...]]:
        """What must not depend on stops, caches and prices."""
        names = ("step", "reward", "reward/answer", "entropy", "completion_length", "searches")
        return [tuple(row[name] for name in names) for row in self.rows()]

    def paid(self) -> list[tuple[Any, ...]]:
        """What each step has paid for, although a repeated step finds some of it in the cache."""
        names = ("calls/search", "calls/judge", "discarded/usd")
        return [tuple(row[name] for name in names) for row in self.rows()]

    def weights(self) -> bytes:
        return (self.folder / "adapter" / "adapter_model.safetensors").read_bytes()

    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def exa() -> Iterator[MeteredExa]:
    with MeteredExa() as server:
        yield server


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


Train = Callable[..., Run]


@pytest.fixture(scope="module")
def train(
    exa: MeteredExa, chat: ChatServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Train]:
    """Trains in the folder of a name, on the cache of a name; the folder is part of the recipe."""
    base = tmp_path_factory.mktemp("services")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXA_API_KEY", EXA_KEY)
        patch.setenv("EXA_BASE_URL", exa.url)
        patch.setenv("OPENAI_API_KEY", OPENAI_KEY)
        patch.setenv("OPENAI_BASE_URL", chat.base_url)

        def train(name: str, *settings: str, cache: str | None = None, resume: bool = False) -> Run:
            folder, cache_folder = base / name, base / f"cache-{cache or name}"
            patch.setenv("RSEARCH_CACHE_DIR", str(cache_folder))
            options = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
            command = ["train", "--recipe", "quickstart", *options, "--output-dir", str(folder)]
            result = CliRunner().invoke(app, [*command, *(["--resume"] if resume else [])])
            return Run(folder, cache_folder, result)

        yield train


@pytest.fixture(scope="module")
def whole(train: Train) -> Run:
    """A run that nothing stopped."""
    run = train("whole")
    assert run.result.exit_code == 0, run.result.output
    return run


@pytest.fixture(scope="module")
def stopped(train: Train, whole: Run) -> Run:
    """The same run with money for two steps and a half."""
    second, third = (row["spend/usd"] for row in whole.rows()[1:])
    return train("stopped", f"budget.max_usd={(second + third) / 2:.4f}")


def test_rows_say_what_was_sent_and_spent(whole: Run, exa: MeteredExa, chat: ChatServer) -> None:
    rows = whole.rows()
    assert [row["step"] for row in rows] == [1, 2, 3]
    spent = [row["spend/usd"] for row in rows]
    assert 0 < spent[0] < spent[1] < spent[2]
    for row in rows:
        assert row["calls/search"] + row["cache_hits/search"] == row["searches"] > 0
        assert row["failed/search"] == row["failed/judge"] == row["failed_share/search"] == 0
        assert row["calls/judge"] + row["cache_hits/judge"] <= 8 + row["discarded/rollouts"]
    assert rows[-1]["spend/saved_usd"] > 0, "four generations overlap"


def test_the_summary_holds_the_bill(whole: Run) -> None:
    spend = whole.summary()["spend"]
    stored = json.loads((whole.folder / "spend.json").read_text())["services"]
    assert spend == stored
    assert spend["exa"]["usd"] == pytest.approx(USD_PER_SEARCH * spend["exa"]["calls"])
    assert sum(s["usd"] for s in spend.values()) >= whole.rows()[-1]["spend/usd"] - 1e-6 > 0


def test_the_bill_says_what_was_thrown_away(whole: Run) -> None:
    rows, discarded = whole.rows(), whole.summary()["discarded"]
    thrown = [row["discarded/rollouts"] for row in rows]
    assert any(thrown) and all(count % 4 == 0 for count in thrown)
    assert (discarded["rollouts"], discarded["sampled"]) == (sum(thrown), 3 * 8 + sum(thrown))
    assert discarded["usd"] == pytest.approx(sum(row["discarded/usd"] for row in rows), abs=1e-5)
    start = rows[-1]["spend/usd"] - rows[0]["spend/usd"]
    later = sum(row["discarded/usd"] for row in rows[1:])
    assert 0 <= later < start and discarded["usd"] > 0
    assert f"Discarded: {sum(thrown)} of " in whole.result.stdout


def test_progress_tells_the_bill(whole: Run) -> None:
    lines = whole.result.stderr.splitlines()
    step = next(line for line in lines if line.startswith(f"step {STEPS}/{STEPS}"))
    assert "spent $" in step and "calls, " in step and " hits" in step
    assert any("answers  spent $" in line for line in lines if line.startswith("evaluating"))


def test_a_spent_budget_stops_the_run_with_a_checkpoint(stopped: Run) -> None:
    assert stopped.result.exit_code == 80, stopped.result.output
    line = stopped.result.stderr.splitlines()[-1]
    assert line.startswith("rsearch: the next call could cost $0.00")
    assert (
        "to continue, raise budget.max_usd and start again (rsearch train: with --resume)" in line
    )
    saved = stopped.folder / "checkpoint-2"
    assert line.endswith(
        f"2 steps are finished and saved in {saved}; --resume continues from there"
    )
    assert saved.is_dir()
    assert "Traceback" not in stopped.result.output


def test_a_resumed_run_is_the_run_without_the_stop(
    train: Train, whole: Run, stopped: Run, exa: MeteredExa
) -> None:
    sent = len(exa.requests)
    resumed = train("stopped", "budget.max_usd=100", resume=True)
    assert resumed.result.exit_code == 0, resumed.result.output
    assert resumed.course() == whole.course()
    assert resumed.weights() == whole.weights()
    assert resumed.summary()["after"] == whole.summary()["after"]
    assert resumed.paid() == whole.paid()
    bill, whole_bill = (run.summary()["spend"]["exa"] for run in (resumed, whole))
    assert bill["usd"] == pytest.approx(whole_bill["usd"]), "nothing was bought twice"
    assert 0 < len(exa.requests) - sent < bill["calls"]


def test_a_finished_run_that_is_resumed_trains_no_further(train: Train, whole: Run) -> None:
    course, weights, after = whole.course(), whole.weights(), whole.summary()["after"]
    again = train("whole", resume=True)
    assert again.result.exit_code == 0, again.result.output
    assert (again.course(), again.weights()) == (course, weights)
    assert again.summary()["after"] == after


def test_a_run_is_repeated_offline_from_its_answers(
    train: Train, whole: Run, exa: MeteredExa, chat: ChatServer
) -> None:
    sent = len(exa.requests), len(chat.requests)
    replay = train("replay", "cache.mode=offline", cache="whole")
    assert replay.result.exit_code == 0, replay.result.output
    assert replay.course() == whole.course()
    assert replay.weights() == whole.weights()
    assert (len(exa.requests), len(chat.requests)) == sent
    assert replay.rows()[-1]["spend/usd"] == 0.0


@pytest.mark.parametrize(
    ("then", "code", "words"),
    [
        (402, 41, "refuses EXA_API_KEY: the account has no credit left"),
        (500, 81, "searches of the step failed, a share of"),
    ],
)
def test_a_service_that_is_gone_stops_the_run_with_a_checkpoint(
    train: Train, whole: Run, exa: MeteredExa, then: int, code: int, words: str
) -> None:
    # It goes right after the second step: the evaluation and two steps have sent so many.
    rows = whole.rows()
    calls = round(rows[1]["spend/usd"] / USD_PER_SEARCH)
    exa.answers, exa.then = len(exa.requests) + calls, then
    try:
        run = train(f"gone-{then}")
    finally:
        exa.answers = float("inf")
    assert run.result.exit_code == code, run.result.output
    line = run.result.stderr.splitlines()[-1]
    assert words in line
    assert f"saved in {run.folder / 'checkpoint-2'}; --resume" in line
    assert (run.folder / "checkpoint-2").is_dir()
    assert [row["step"] for row in run.rows()] == [1, 2]


def test_a_run_stopped_before_its_first_step_can_be_resumed(
    train: Train, whole: Run, exa: MeteredExa
) -> None:
    stopped = train("early", "budget.max_usd=0.01")
    assert stopped.result.exit_code == 80, stopped.result.output
    assert not list(stopped.folder.glob("checkpoint-*"))
    resumed = train("early", "budget.max_usd=100", "train.max_steps=3", resume=True)
    assert resumed.result.exit_code == 0, resumed.result.output
    assert resumed.course() == whole.course()


def test_an_evaluation_whose_searches_fail_gives_no_figures(
    train: Train, whole: Run, exa: MeteredExa
) -> None:
    exa.answers, exa.then = 0, 500
    try:
        run = train("dark")
    finally:
        exa.answers = float("inf")
    assert run.result.exit_code == 81, run.result.output
    line = run.result.stderr.splitlines()[-1]
    assert " searches of the evaluation failed, a share of 1; " in line
    assert "budget.max_failed_share is 0.2; last error: Exa at" in line
    assert not (run.folder / "predictions").exists()
    resumed = train("dark", resume=True)
    assert resumed.result.exit_code == 0, resumed.result.output
    assert resumed.course() == whole.course()


def test_a_missing_key_is_told_before_anything_starts(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("EXA_API_KEY", "OPENAI_API_KEY"):
        with monkeypatch.context() as patch:
            patch.delenv(variable)
            patch.delenv("OPENAI_BASE_URL")
            run = train("keyless")
        assert run.result.exit_code == 41
        assert variable in run.result.stderr and "get one at https://" in run.result.stderr
        assert not run.folder.exists()
