"""`rsearch data --profile`: pass rates are written, continued after a stop, and trained by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from backend import BACKEND
from openai_chat import API_KEY, ChatServer
from openai_policy import SETTINGS, write_as_agent, write_files
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.questions.profile import read_profile

SMALL = [
    *("--recipe", "quickstart", "--max-samples", "8"),
    *("--set", "questions.world.train_regions=2", "--set", "questions.world.held_out_regions=1"),
    *("--set", f"policy.backend={BACKEND}", "--set", "rollout.micro_batch=4"),
]
TRAIN = [
    *("--set", "train.batch_size=8", "--num-generations", "4", "--set", "train.save_steps=1"),
    *("--set", "evaluate.limit=2", "--set", "evaluate.sampled=false", "--max-steps", "2"),
]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def profile(output: Path, *arguments: object) -> Result:
    return call("data", "--profile", "builtin:nano", *SMALL, "--output", output, *arguments)


def count_answers(server: ChatServer) -> int:
    """The requests about questions; others only try the server out."""
    return sum("number of city" in str(request) for request in server.requests)


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("profile") / "rates.json"
    result = profile(output, "--samples", 3)
    assert result.exit_code == 0, result.output
    return output, result


def test_pass_rates_are_written_with_what_they_were_measured_by(profiled) -> None:
    output, result = profiled
    rates = read_profile(output)
    assert (rates.model, rates.samples, rates.seed) == ("builtin:nano", 3, 42)
    assert len({row.question for row in rates.rates}) == 8
    assert all(row.scored == 3 and row.failed == 0 for row in rates.rates)
    assert {row.rate for row in rates.rates} <= {0.0, 1 / 3, 2 / 3, 1.0}
    assert rates.settings["reward"]["answer"] == "f1"
    folder = output.with_name("rates-answers")
    stored = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    right = {row.id: 0 for row in rates.rates}
    for row in stored:
        right[row["id"]] += row["f1"] >= 0.8 and row["plan_valid"] == 1.0
    assert {row.id: round(row.rate * 3) for row in rates.rates} == right
    first, second, *counts, last = result.stdout.splitlines()
    assert first == f"pass rates of 8 questions written to {output}"
    assert second == "from    3 samples each of builtin:nano"
    assert sum(int(line.split()[1]) for line in counts) == 8
    assert last == f"answers {folder}"


def test_a_profile_that_was_cut_off_ends_with_the_same_bytes(profiled, tmp_path, monkeypatch):
    output, _ = profiled
    broken = tmp_path / "rates-answers"
    shutil.copytree(output.with_name("rates-answers"), broken)
    stored = (broken / "predictions.jsonl").read_bytes()
    (broken / "predictions.jsonl").write_bytes(stored[: len(stored) // 2])
    for name in ("results.json", "report.md"):
        (broken / name).unlink()
    again = profile(tmp_path / "rates.json", "--samples", 3)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "rates.json").read_bytes() == output.read_bytes()
    # Once all answers are there, they are only read.
    monkeypatch.setattr("rsearch_cli.workflows.open_policy.load_policy", None)
    (tmp_path / "rates.json").unlink()
    assert profile(tmp_path / "rates.json", "--samples", 3, "--json").exit_code == 0
    assert (tmp_path / "rates.json").read_bytes() == output.read_bytes()
    other = profile(tmp_path / "rates.json", "--samples", 4)
    assert other.exit_code == 70
    assert "with samples = 3, now it is 4; choose another --output-dir" in other.stderr


def test_a_server_is_profiled_within_a_budget_and_no_answer_is_paid_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    questions, corpus = write_files(tmp_path, 12)
    settings = [
        *(*SETTINGS, f"search.sources.General.corpus={corpus}", "rollout.micro_batch=3"),
        *("policy.endpoint.usd_per_million_input_tokens=1", "policy.endpoint.cache_days=1"),
    ]
    words = [word for setting in settings for word in ("--set", setting)]

    def ask(server: ChatServer, output: Path, usd: float) -> Result:
        return call(
            *("data", "--profile", "agent", "--endpoint", server.base_url, "--samples", 2),
            *("--recipe", "hotpot-offline", "--data-path", questions, "--split", "all", *words),
            *("--set", f"budget.max_usd={usd}", "--output", output),
        )

    with ChatServer(write_as_agent) as server:
        stopped = ask(server, tmp_path / "rates.json", 0.012)
        assert stopped.exit_code == 80 and not (tmp_path / "rates.json").exists()
        assert "to continue, raise budget.max_usd and start again" in stopped.stderr
        assert 0 < count_answers(server) < 48
        finished = ask(server, tmp_path / "rates.json", 1.0)
        assert finished.exit_code == 0, finished.output
        assert count_answers(server) == 48, "a plan and an answer for each of 24 samples"
    rates = read_profile(tmp_path / "rates.json")
    # City 0, 5 and 10 are looked up wrongly; 0 and 7 are answered without tags.
    wrong = {row.id for row in rates.rates if row.rate == 0.0}
    assert wrong == {"c0", "c5", "c7", "c10"}
    assert sum(row.rate for row in rates.rates) == 8


def test_a_run_trains_by_pass_rates_and_resumes_with_those_it_began_with(
    profiled, tmp_path, monkeypatch
) -> None:
    from rsearch_cli.training import grpo

    rates = json.loads(profiled[0].read_text())
    for number, row in enumerate(rates["rates"]):
        row["rate"] = number / 8
    file = tmp_path / "rates.json"
    file.write_text(json.dumps(rates))
    chosen = ["questions.pass_rate=[0.25,0.625]", "questions.order=easy_to_hard"]
    options = [*SMALL, *TRAIN, "--set", f"questions.profile={file}", "--output-dir"]
    options = [word for setting in chosen for word in ("--set", setting)] + options
    finish_step = grpo.GrpoTraining.finish_step

    def stop_in_step_2(self: Any, step: int, logs: dict[str, Any]) -> None:
        finish_step(self, step, logs)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(grpo.GrpoTraining, "finish_step", stop_in_step_2)
        assert call("train", *options, tmp_path / "run").exit_code == 130
    rates["rates"] = rates["rates"][:1]
    file.write_text(json.dumps(rates))
    resumed = call("train", *options, tmp_path / "run", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "4 of 8 training questions are used, by the pass rates in" in resumed.stderr
    rows = (tmp_path / "run" / "trajectories.jsonl").read_text().splitlines()
    asked = [json.loads(row)["question_id"] for row in rows]
    ids = [row["id"] for row in json.loads(profiled[0].read_text())["rates"]]
    assert asked == [ids[n] for n in (5, 4, 3, 2) for _ in range(4)]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["chosen"] == {
        **{"chosen": 4, "of": 8, "below": 2, "above": 2, "unrated": 0},
        **{"pass_rate": [0.25, 0.625], "order": "easy_to_hard"},
        **{"model": "builtin:nano", "samples": 3},
    }
    assert summary["before"]["n"] == 2, "held-out questions are not filtered"
    assert "Trained on 4 of 8 questions, chosen by the pass rates of builtin:nano" in resumed.stdout


def test_questions_without_answers_are_refused_before_the_model_is_loaded(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("rsearch_cli.workflows.open_policy.load_policy", None)
    questions, corpus = tmp_path / "titles.jsonl", tmp_path / "corpus.jsonl"
    questions.write_text('{"question": "Who?", "supporting_titles": ["A"], "split": "train"}\n')
    corpus.write_text('{"title": "A", "text": "Ann."}\n')
    given = ["questions.source=custom", f"search.sources.General.corpus={corpus}"]
    source = ["--data-path", questions, *(word for each in given for word in ("--set", each))]
    result = call(
        *("data", "--profile", "builtin:nano", "--recipe", "hotpot-offline", *source),
        *("--output", tmp_path / "rates.json"),
    )
    assert result.exit_code == 20, result.output
    assert "none of the 1 questions has an answer, and a pass rate" in result.stderr
    assert not list(tmp_path.glob("rates*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "builtin:nano", "--against", "x.jsonl"], "neither --against nor --corpus"),
        (["--profile", "builtin:nano", "--output", "x.jsonl"], "x.jsonl must end in .json"),
        (["--source", "world", "--set", "seed=1"], "--set needs --profile MODEL"),
        (["--source", "world", "--samples", "2"], "--samples needs --profile MODEL"),
        ([], "name a question set, such as world"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], message: str) -> None:
    result = call("data", "--output", "x.json", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
