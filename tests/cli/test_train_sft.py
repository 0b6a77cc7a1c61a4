"""`rsearch train --stage sft` as a person calls it, and a GRPO run that goes on from it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from backend import BACKEND
from exa import API_KEY, USD_PER_SEARCH, ExaServer
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.questions.records import write_corpus, write_rows
from rsearch_cli.questions.world import World
from rsearch_cli.training import grpo, sft

SMALL = [
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", f"policy.backend={BACKEND}",
    "--set", "rollout.max_new_tokens=80",
    "--set", "evaluate.limit=3",
    "--set", "evaluate.sampled=false",
    "--set", "train.save_steps=2",
]  # fmt: skip
SFT = [*SMALL, "--stage", "sft", "--max-steps", "4", "--batch-size", "4", "--lr", "1e-2"]


def call(*arguments: str):
    return CliRunner().invoke(app, ["train", "--recipe", "quickstart", *arguments])


def rows_of(folder: Path, *keys: str) -> list[tuple]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [tuple(json.loads(line)[key] for key in ("step", *keys)) for line in lines]


def weights_of(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def interrupt(patch, training: type, at: int) -> None:
    """Have Ctrl-C come at the end of a step."""
    finish_step = training.finish_step

    def finish(self, step, logs):
        finish_step(self, step, logs)
        if step == at:
            raise KeyboardInterrupt

    patch.setattr(training, "finish_step", finish)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "sft"
    result = call(*SFT, "--output-dir", str(folder))
    assert result.exit_code == 0, result.output
    return folder, result


def test_a_cold_start_is_measured_before_and_after(finished):
    folder, result = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["stage"], summary["steps"]) == ("sft", 4)
    assert summary["before"]["n"] == summary["after"]["n"] == 3
    assert summary["traces"]["taken"] > 100
    assert (
        f"{summary['traces']['taken']} of" in result.stderr and "traces accepted" in result.stderr
    )
    assert "loss 0." in result.stderr
    assert "EM, greedy" in result.stdout and "reward" not in result.stdout
    for name in ("recipe.yaml", "environment.json", "traces.jsonl", "checkpoint-4", "adapter"):
        assert (folder / name).exists()


def test_the_flags_set_the_section_of_the_stage(finished):
    from rsearch_cli.recipe.loading import load_recipe

    folder, _ = finished
    recipe = load_recipe(str(folder / "recipe.yaml")).recipe
    assert (recipe.sft.max_steps, recipe.sft.batch_size) == (4, 4)
    assert (recipe.sft.learning_rate, recipe.train.learning_rate) == (1e-2, 5e-4)
    # The folder's own recipe knows its stage, so its flags need no --stage.
    result = call("--recipe", str(folder / "recipe.yaml"), "--resume", "--lr", "0.5")
    assert result.exit_code == 70
    assert "'learning_rate: 0.01' where this run has 'learning_rate: 0.5'" in result.stderr


def test_a_bad_value_is_blamed_on_the_flag():
    result = call("--stage", "sft", "--lr", "7")
    assert result.exit_code == 13
    assert "--lr: sft.learning_rate must be at most 1" in result.stderr


def test_a_start_that_failed_does_not_block_its_folder(tmp_path):
    folder = tmp_path / "run"
    failed = call(*SFT, "--set", "rollout.max_new_tokens=8", "--output-dir", str(folder))
    assert failed.exit_code == 23, failed.output
    assert not (folder / "recipe.yaml").exists()
    result = call(*SFT, "--output-dir", str(folder))
    assert result.exit_code == 0, result.output


def test_a_resumed_cold_start_ends_like_one_that_was_not_stopped(finished, tmp_path, monkeypatch):
    whole, _ = finished
    predictions = tmp_path / "mine.jsonl"
    shutil.copy(whole / "traces.jsonl", predictions)
    options = [*SFT, "--set", f"sft.traces={predictions}", "--set", "sft.epochs=2"]
    options += ["--set", "sft.max_traces=6", "--output-dir"]
    assert call(*options, str(tmp_path / "whole")).exit_code == 0
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        interrupt(patch, sft.SftTraining, at=3)  # in the second epoch
        assert call(*options, str(broken)).exit_code == 130
    predictions.unlink()
    resumed = call("--recipe", str(broken / "recipe.yaml"), "--resume")
    assert resumed.exit_code == 0, resumed.output
    keys = ("loss", "grad_norm", "learning_rate", "learnt_tokens")
    assert rows_of(broken, *keys) == rows_of(tmp_path / "whole", *keys)
    assert len(rows_of(broken)) == 3
    assert weights_of(broken) == weights_of(tmp_path / "whole")
    tallies = [json.loads((f / "summary.json").read_text())["traces"] for f in (broken, whole)]
    assert tallies[0]["taken"] == 6 and tallies[0]["rejected"]["over sft.max_traces"] > 10


def test_grpo_from_a_cold_start_is_resumed_exactly(finished, tmp_path, monkeypatch):
    start = tmp_path / "start"
    shutil.copytree(finished[0], start)
    options = [*SMALL, "--set", f"policy.adapter={start}", "--set", "train.beta=0.1"]
    options += ["--set", "train.batch_size=4", "--num-generations", "4", "--max-steps", "4"]
    options += ["--lr", "1e-2", "--output-dir"]
    assert call(*options, str(tmp_path / "whole")).exit_code == 0
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        interrupt(patch, grpo.GrpoTraining, at=3)
        assert call(*options, str(broken)).exit_code == 130
    assert not (broken / "checkpoint-2" / "ref").exists()
    shutil.rmtree(start)  # the run has kept what it started from
    resumed = call("--recipe", str(broken / "recipe.yaml"), "--resume")
    assert resumed.exit_code == 0, resumed.output
    keys = ("reward", "kl", "entropy", "loss", "completion_length")
    assert rows_of(broken, *keys) == rows_of(tmp_path / "whole", *keys)
    assert weights_of(broken) == weights_of(tmp_path / "whole")


@pytest.mark.parametrize(("traces", "told"), [("world", True), ("mine.jsonl", False)])
def test_traces_of_the_world_beside_other_questions_are_told(traces, told, caplog):
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.training.run import log_questions

    settings = ("stage=sft", f"sft.traces={traces}", "questions.path=mine.csv")
    caplog.set_level("INFO", logger="rsearch_cli")
    log_questions(load_recipe("quickstart", settings).recipe, "questions from mine.csv", [], [])
    lines = caplog.messages
    assert lines[0] == "questions: 0 to evaluate; questions from mine.csv"
    note = "sft.traces is world: the run trains on questions about the fictional world only"
    assert lines[1:] == [note] * told


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "sft.traces={tmp}/none.jsonl"], 21, "none.jsonl"),
        (["--set", "sft.traces={tmp}/bad.jsonl"], 22, "bad.jsonl, line 1"),
        (
            ["--set", "sft.traces={tmp}/wrong.jsonl"],
            23,
            "no trace is left to train on (0 of 2 traces accepted; rejected: 2 without an answer)",
        ),
        (["--set", "policy.adapter={tmp}"], 60, "is neither an adapter folder nor a finished run"),
        (["--lora-r", "4", "--set", "policy.adapter={sft}"], 60, "has r 16, and policy.lora.r is"),
        (["--stage", "dpo"], 13, '--stage: stage must be "grpo" or "sft", got "dpo"'),
    ],
)
def test_bad_input_is_a_clear_line_with_a_code_of_its_own(
    finished, tmp_path, arguments, code, message
):
    row = {"question_id": "1", "question": "x?", "answers": ["y"], "segments": []}
    (tmp_path / "bad.jsonl").write_text('{"id": "1"}\n')
    (tmp_path / "wrong.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    places = {"{tmp}": str(tmp_path), "{sft}": str(finished[0])}
    for name, place in places.items():
        arguments = [a.replace(name, place) for a in arguments]
    run = tmp_path / "run"
    result = call(*SFT, "--output-dir", str(run), *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not run.exists()


@pytest.fixture(scope="module")
def without_answers(tmp_path_factory):
    """Questions and passages of the world as files, with supporting titles and no answers."""
    folder = tmp_path_factory.mktemp("titles")
    world = World(7, {"train": 1}, ["medium"])
    rows = [
        {"question": q.text, "supporting_titles": list(q.supporting_titles)}
        for q in world.load("train", 30)
    ]
    write_rows(rows, folder / "asked.jsonl")
    write_corpus(world.corpus(), folder / "passages.jsonl")
    settings = ["--data-path", str(folder / "asked.jsonl"), "--set", "search.top_k=3"]
    for source in ("General", "News", "Academy"):
        settings += ["--set", f"search.sources.{source}.corpus={folder / 'passages.jsonl'}"]
    return [*SMALL[4:], *settings, "--set", "questions.held_out_by=titles"]


def test_a_cold_start_needs_no_answers_but_titles(without_answers, tmp_path):
    options = [*without_answers, "--stage", "sft", "--set", "sft.traces=gold_titles"]
    run = tmp_path / "run"
    result = call(*options, "--max-steps", "1", "--output-dir", str(run))
    assert result.exit_code == 0, result.output
    traces = [json.loads(line) for line in (run / "traces.jsonl").read_text().splitlines()]
    assert traces and all(len(trace["segments"]) == 2 for trace in traces)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["after"]["em"] is None and summary["after"]["title_recall"] is not None
    assert "title recall" in result.stdout and "EM, greedy" not in result.stdout


def test_paid_searches_for_gold_titles_that_the_budget_stops_are_resumed(
    without_answers, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with ExaServer() as exa:
        monkeypatch.setenv("EXA_API_KEY", API_KEY)
        monkeypatch.setenv("EXA_BASE_URL", exa.url)
        monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
        options = [re.sub(r"\.corpus=.*", ".type=exa", word) for word in without_answers]
        options += ["--stage", "sft", "--set", "sft.traces=gold_titles"]
        options += ["--max-steps", "1", "--output-dir", str(run)]
        stopped = call(*options, "--set", f"budget.max_usd={5 * USD_PER_SEARCH}")
        assert stopped.exit_code == 80, stopped.output
        assert "start again (rsearch train: with --resume)" in stopped.stderr
        sent = len(exa.requests)
        resumed = call(*options, "--set", "budget.max_usd=10", "--resume")
    # The server knows none of the titles; what matters is that the run went on from the cache.
    assert resumed.exit_code == 23 and "no trace is left to train on" in resumed.stderr
    queries = [request.body["query"] for request in exa.requests]
    assert 0 < sent < len(queries) == len(set(queries))


def test_grpo_without_answers_names_the_settings_it_needs(without_answers, tmp_path):
    result = call(*without_answers, "--output-dir", str(tmp_path / "run"))
    assert result.exit_code == 13, result.output
    assert "training questions have no answer, which the reward needs" in result.stderr
    assert "reward.extra={retrieval: 1}" in result.stderr
