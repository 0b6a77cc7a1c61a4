"""`rsearch train --stage sft --teacher`: a model on a server writes the traces to train on."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from backend import BACKEND
from faults import Fault, Faults
from loaded_process import LoadedProcess
from local_http import Answer, Received
from openai_chat import API_KEY, ChatServer, Said
from openai_policy import stop_as_openai
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.errors import FailureShareExceeded
from rsearch_cli.protocol.plan import render_plan
from rsearch_cli.questions.world import gold_plan, open_world
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.search.executor import open_executor
from rsearch_cli.services.runtime import open_services
from rsearch_cli.training.stored_traces import choose_traces
from rsearch_cli.training.teacher_traces import Teacher, sample_traces
from rsearch_cli.training.traces import Trace, TraceStats
from rsearch_cli.types import Question

ASKED = 24
WRONG, UNPLANNED = (0, 6, 12, 18), (1, 9)
"""Questions that are answered wrongly, and with a plan that is not valid."""

SMALL = (
    "questions.world.train_regions=2",
    "questions.world.held_out_regions=1",
    f"questions.max_samples={ASKED}",
    f"policy.backend={BACKEND}",
    "evaluate.limit=3",
    "evaluate.sampled=false",
    "sft.teacher.usd_per_million_input_tokens=10",
    "sft.teacher.usd_per_million_output_tokens=30",
    "sft.teacher.service.concurrency=4",
    "sft.teacher.service.requests_per_second=10000",
    "sft.teacher.service.max_backoff_seconds=0",
    "sft.teacher.service.retries=2",
    "sft.teacher.service.breaker_failures=10000",
)


class TeacherServer(ChatServer):
    """A model that knows the relations of the fictional world and answers with what it reads.

    Attributes:
        asked: How often each question was asked for a plan, and how often for an answer.
        broken: Positions of the questions that are answered with `error`.
        error: A status and a body.
        improves: Whether it answers rightly when it is asked again.
        kill: Process to kill with the next answer but `kill_after`.
    """

    def __init__(self, questions: list[Question]) -> None:
        super().__init__(self.teach, retry_after="0")
        self._questions = {q.text: (position, q) for position, q in enumerate(questions)}
        self.reset()

    def reset(self) -> None:
        """Forget what was asked and what is broken."""
        self.asked: Counter[tuple[int, str]] = Counter()
        self.broken: Sequence[int] = ()
        self.error: Answer = (500, self.describe_error(500, "out of order"))
        self.improves = False
        self.kill: LoadedProcess | None = None
        self.kill_after = 0
        self.faults = Faults()

    def respond(self, request: Received) -> Answer:
        texts = [m["content"] for m in (request.body or {}).get("messages", ())]
        if any(self._questions.get(text, (None,))[0] in self.broken for text in texts):
            return self.error
        return super().respond(request)

    def teach(self, body: dict[str, Any]) -> Said:
        """Plan, or answer once there is a result."""
        asked = [m["content"] for m in body["messages"] if m["content"] in self._questions]
        if not asked:  # it is only tried out
            return stop_as_openai("<think> Hm. </think>", body)
        position, question = self._questions[asked[0]]
        assert "You answer questions by searching" in body["messages"][0]["content"]
        read = body["messages"][-1]["content"]
        part = "answer" if "<result>" in read else "plan"
        if self.kill and self.asked.total() >= self.kill_after:
            os.kill(self.kill.pid, signal.SIGKILL)
        self.asked[position, part] += 1
        learnt = self.improves and self.asked[position, part] > 1
        if part == "plan":
            plan = render_plan(gold_plan(question))
            if position in UNPLANNED and not learnt:
                plan = "Nodes:\nA: what is asked (Nowhere)\nEdges:"
            return stop_as_openai(f"<think> I look. </think>\n<search>\n{plan}\n</search>", body)
        (answer,) = question.answers  # from memory, if the plan was not valid
        found = answer in read or position in UNPLANNED
        if not found or (position in WRONG and not learnt):
            answer = "unknown"
        return stop_as_openai(f"<answer> {answer} </answer>", body)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    recipe = load_recipe("quickstart", SMALL).recipe
    return open_world(recipe.questions, recipe.seed).load("train", ASKED)


@pytest.fixture(scope="module")
def running(questions: list[Question]) -> Iterator[TeacherServer]:
    with TeacherServer(questions) as server:
        yield server


@pytest.fixture
def server(running: TeacherServer) -> TeacherServer:
    running.reset()
    return running


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """A key, and a cache of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", API_KEY)
        patch.setenv("RSEARCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield patch


def command(server: TeacherServer, folder: Path, *more: str) -> list[str]:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    teacher = ["--teacher", server.base_url, "--teacher-model", "wise"]
    named = ["--recipe", "quickstart", "--stage", "sft", "--max-steps", "1", *teacher]
    return ["train", *named, *settings, "--output-dir", str(folder), *more]


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(running: TeacherServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run that nothing stopped."""
    running.reset()
    folder = tmp_path_factory.mktemp("runs") / "whole"
    result = call(*command(running, folder))
    assert result.exit_code == 0, result.output
    assert running.asked.total() == 2 * ASKED
    return folder, result


def test_verified_answers_become_the_traces_of_the_run(
    whole: tuple[Path, Result], questions: list[Question]
) -> None:
    folder, result = whole
    right = [q.text for i, q in enumerate(questions) if i not in (*WRONG, *UNPLANNED)]
    traces = rows(folder, "traces.jsonl")
    assert [trace["question"] for trace in traces] == right
    assert [s["author"] for s in traces[0]["segments"]] == ["model", "system", "model"]
    said = (
        f"{len(right)} of {ASKED} traces accepted; rejected: {len(WRONG)} with a wrong answer, "
        f"{len(UNPLANNED)} with a plan that is not valid"
    )
    assert said in result.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["traces"]["teacher"]["model"] == "wise"
    assert summary["traces"]["taken"] == len(right) and summary["traces"]["failed"] == 0
    assert summary["steps"] == 1 and (folder / "adapter").is_dir()
    assert len(rows(folder, "metrics.jsonl")) == 1


def test_the_budget_counts_what_the_teacher_costs(whole: tuple[Path, Result]) -> None:
    folder, result = whole
    spent = json.loads((folder / "spend.json").read_text())["services"]["teacher"]
    assert spent["calls"] == 2 * ASKED + 1, "one of them found out how the server works"
    assert 0.01 < spent["usd"] < 1.0
    assert f"asking the teacher: {ASKED}/{ASKED} answers" in result.stderr
    assert "spent $0." in result.stderr


def test_the_key_is_stored_nowhere(whole: tuple[Path, Result], tmp_path: Path) -> None:
    folder, result = whole
    places = [folder, Path(os.environ["RSEARCH_CACHE_DIR"])]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if API_KEY.encode() in path.read_bytes()]
    assert API_KEY not in result.output


def test_a_run_without_money_or_killed_is_resumed_exactly(
    whole: tuple[Path, Result],
    server: TeacherServer,
    tmp_path: Path,
    environment: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    with environment.context() as patch:
        patch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
        stopped = call(*command(server, folder, "--set", "budget.max_usd=0.1"))
        assert stopped.exit_code == 80, stopped.output
        assert "budget.max_usd $0.1000 is spent" in stopped.stderr.splitlines()[-1]
        kept = len(rows(folder, "teacher.jsonl"))
        paid = server.asked.total()
        assert 0 < kept < ASKED and paid < 2 * ASKED

        server.kill_after = paid + 9
        words = [sys.executable, "-m", "rsearch_cli", *command(server, folder, "--resume")]
        with LoadedProcess(words) as server.kill:
            assert server.kill.wait(120) == -signal.SIGKILL
        server.kill = None
        assert len(rows(folder, "teacher.jsonl")) < ASKED
        assert not (folder / "traces.jsonl").exists()

        resumed = call("train", "--recipe", str(folder / "recipe.yaml"), "--resume")
    assert resumed.exit_code == 0, resumed.output
    again = [key for key, times in server.asked.items() if times > 1]
    assert len(again) <= 4, "only what was in flight at the kill is asked again"
    assert server.asked.keys() == {(i, part) for i in range(ASKED) for part in ("plan", "answer")}
    adapter = "adapter/adapter_model.safetensors"
    for name in ("teacher.jsonl", "traces.jsonl", "traces.json", adapter):
        assert (folder / name).read_bytes() == (whole[0] / name).read_bytes(), name


# --- sampling alone, without a training


Sample = Callable[..., tuple[list[Trace], TraceStats]]


@pytest.fixture
def sample(server: TeacherServer, questions: list[Question], tmp_path: Path) -> Iterator[Sample]:
    """Samples traces with settings on top; every call goes on in the same run folder."""
    folder = RunFolder(tmp_path / "run")
    folder.open(resume=False)

    def sample(
        *settings: str, cache: Path | None = tmp_path / "cache"
    ) -> tuple[list[Trace], TraceStats]:
        address = (f"sft.teacher.url={server.base_url}", "sft.teacher.model=wise")
        recipe = load_recipe("quickstart", (*SMALL, *address, *settings)).recipe
        corpus = open_world(recipe.questions, recipe.seed).corpus
        with (
            open_services(recipe, folder.path, cache) as services,
            open_executor(recipe, corpus, services) as executor,
            Teacher(recipe, executor, services) as teacher,
        ):
            return sample_traces(teacher, questions, recipe, folder, services.budget.snapshot)

    sample.folder = folder
    yield sample


def test_another_run_pays_for_no_answer_again(
    whole: tuple[Path, Result], sample: Sample, server: TeacherServer
) -> None:
    traces, _ = sample("sft.learning_rate=0.01", cache=None)
    assert [trace.as_row() for trace in traces] == rows(whole[0], "traces.jsonl")
    assert server.asked.total() == 0


def test_stored_answers_are_a_file_to_choose_traces_from(whole: tuple[Path, Result]) -> None:
    settings = (*SMALL, f"sft.traces={whole[0] / 'teacher.jsonl'}")
    traces, stats = choose_traces(load_recipe("quickstart", settings).recipe, ())
    assert [trace.as_row() for trace in traces] == rows(whole[0], "traces.jsonl")
    assert stats.as_row() == json.loads((whole[0] / "traces.json").read_text())


def test_what_the_server_fails_at_is_failed_and_not_rejected(
    sample: Sample, server: TeacherServer
) -> None:
    server.broken = (2, 20)
    _, stats = sample()
    assert (stats.taken, stats.failed) == (ASKED - len((*WRONG, *UNPLANNED)) - 2, 2)
    assert stats.rejected.keys() == {"with a wrong answer", "with a plan that is not valid"}
    assert stats.describe().endswith("; failed: 2")
    row = rows(sample.folder.path, "teacher.jsonl")[2]
    assert row["failure"].startswith("the teacher at") and "out of order" in row["failure"]


def test_faults_that_pass_cost_nothing_but_time(sample: Sample, server: TeacherServer) -> None:
    server.faults = Faults((Fault.SERVER_ERROR, Fault.RATE_LIMIT, Fault.BAD_JSON), share=0.3)
    _, stats = sample()
    assert (stats.taken, stats.failed) == (ASKED - len((*WRONG, *UNPLANNED)), 0)


@pytest.mark.parametrize("error", [(503, {}), (200, {"choices": []})])
def test_too_many_failures_end_the_run(
    sample: Sample, server: TeacherServer, error: Answer
) -> None:
    sample("sft.max_traces=3")
    before = rows(sample.folder.path, "teacher.jsonl")
    server.broken, server.error = range(ASKED), error
    with pytest.raises(FailureShareExceeded) as failed:
        sample()
    assert "answers of the teacher failed" in str(failed.value)
    assert "start again with --resume" in str(failed.value)
    assert rows(sample.folder.path, "teacher.jsonl") == before
    server.broken = ()
    _, stats = sample()
    assert stats.failed == 0


def test_a_question_is_asked_again_only_while_it_lacks_traces(
    sample: Sample, server: TeacherServer
) -> None:
    server.improves = True
    traces, stats = sample("sft.teacher.samples=3")
    assert stats.taken == len({trace.question.text for trace in traces}) == ASKED
    times = {position: server.asked[position, "plan"] for position in range(ASKED)}
    assert times == {i: 2 if i in (*WRONG, *UNPLANNED) else 1 for i in range(ASKED)}
    server.reset()
    again, _ = sample("sft.teacher.samples=3")
    assert again == traces and server.asked.total() == 0


def test_no_more_is_asked_than_is_needed(sample: Sample, server: TeacherServer) -> None:
    traces, _ = sample("sft.max_traces=5")
    assert len(traces) == 5
    assert len(rows(sample.folder.path, "teacher.jsonl")) == 8, "0, 1 and 6 are not right"


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--stage", "grpo"], 2, "--teacher writes traces for the supervised stage; add --stage"),
        (["--set", "sft.traces=a.jsonl"], 2, "both say where the traces come from; omit one"),
        (["--teacher-model", ""], 13, "--teacher: sft: traces is teacher, which needs"),
        (["--teacher", "http://127.0.0.1:9/v1"], 43, "the teacher"),
        (["--set", "questions.held_out_share=0.5"], 41, "OPENAI_API_KEY"),
        (["--set", "protocol.system_prompt=null"], 60, "policy.max_seq_length"),
    ],
)
def test_bad_input_is_a_clear_line_and_leaves_no_run(
    server: TeacherServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    if code == 41:
        monkeypatch.setenv("OPENAI_API_KEY", "another-key-that-is-wrong")
    result = call(*command(server, tmp_path / "run"), *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    assert not server.asked
