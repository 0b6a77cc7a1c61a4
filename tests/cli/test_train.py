"""`rsearch train` as a person calls it: a whole small run, and every kind of bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from backend import BACKEND
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.errors import RunFolderError
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.training import TrainConfig
from rsearch_cli.runs.folder_lock import lock_folder
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.resume import change_of_steps, check_same_recipe

SMALL = [
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", f"policy.backend={BACKEND}",
    "--set", "train.batch_size=8",
    "--set", "evaluate.limit=6",
    "--num-generations", "4",
    "--max-steps", "2",
]  # fmt: skip


def call(*arguments: str):
    return CliRunner().invoke(app, ["train", "--recipe", "quickstart", *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    result = call(*SMALL, "--output-dir", str(folder))
    assert result.exit_code == 0, result.output
    return folder, result


def test_a_run_prints_its_comparison_plot_and_trajectories(finished):
    folder, result = finished
    for word in (
        "before",
        "after",
        "EM, greedy",
        "EM, sampled",
        "plan valid",
        "format valid",
        "reward",
    ):
        assert word in result.stdout
    assert f"run folder: {folder}" in result.stdout.replace("\n", "").replace(
        "folder:/", "folder: /"
    )
    assert result.stdout.endswith(f"look into it: open {folder / 'view.html'} in a browser\n")
    assert (folder / "view.html").exists()


@pytest.fixture
def own_questions(tmp_path):
    """Questions with their paragraphs, about nothing that the fictional world holds."""
    rows = [
        {
            "id": f"own-{n}",
            "title": f"Bridge {n}",
            "context": f"Bridge {n} was built by Engineer {n}.",
            "question": f"Who built Bridge {n}?",
            "answers": {"text": [f"Engineer {n}"], "answer_start": [20]},
        }
        for n in range(12)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_with_a_question_file_trains_on_that_file(own_questions, tmp_path):
    folder = tmp_path / "run"
    result = call(*SMALL, "--data-path", str(own_questions), "--output-dir", str(folder))
    assert result.exit_code == 0, result.output
    note = f"questions.source is set to custom: {own_questions} replaces the generated world"
    assert note in result.stderr
    assert f"to evaluate; questions from {own_questions}\n" in result.stderr
    run = RunFolder(folder)
    rollouts = run.read_rows("trajectories.jsonl")
    assert len(rollouts) == 16
    assert all(row["question"].startswith("Who built Bridge") for row in rollouts)
    asked = run.read_rows("predictions/after-greedy.jsonl")
    assert asked and all(row["text"].startswith("Who built Bridge") for row in asked)
    assert run.read_json("summary.json")["questions"] == f"questions from {own_questions}"
    again = call("--recipe", str(folder / "recipe.yaml"), "--resume", "--output-dir", str(folder))
    assert "replaces the generated" not in again.stderr


def test_training_on_what_is_evaluated_is_told(tmp_path):
    settings = ["--data-split", "test", "--max-steps", "1", "--output-dir", str(tmp_path / "run")]
    result = call(*SMALL, *settings)
    assert result.exit_code == 0, result.output
    assert "warning: 6 of the 6 questions to evaluate are also trained on" in result.stderr


def test_a_question_file_without_a_corpus_is_refused_before_anything_is_made(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "Who?", "answer": "Ann"}\n' * 3)
    result = call("--data-path", str(path), "--output-dir", str(tmp_path / "run"))
    assert result.exit_code == 20
    assert "search.sources.<name>.corpus of every source to a file of passages" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_flag_that_the_run_does_not_read_is_told(tmp_path):
    arguments = ["--reward-model", "gpt-4o", "--data-path", str(tmp_path / "none.jsonl")]
    result = call(*arguments)
    assert result.exit_code == 21
    assert "warning: --reward-model is not used: reward.answer is f1, not judge\n" in result.stderr


def test_progress_goes_to_stderr(finished):
    _, result = finished
    assert "to evaluate; fictional world" in result.stderr and "warning: " not in result.stderr
    assert "evaluating before training" in result.stderr
    assert "evaluating before training" not in result.stdout


def test_the_summary_holds_both_evaluations(finished):
    folder, _ = finished
    summary = json.loads((folder / "summary.json").read_text())
    for side in ("before", "after"):
        block = summary[side]
        assert block["n"] == 6
        for metric in ("em", "em_sampled", "f1", "plan_valid", "format_valid"):
            low, high = block["intervals"][metric]
            assert 0 <= low <= block[metric] <= high <= 1
        assert block["format_problem"] is None
    assert summary["steps"] == 2 and summary["split"] == "test"


def test_a_model_that_never_keeps_the_format_is_told_loudly_with_the_likely_setting(tmp_path):
    short = ("--set", "rollout.max_new_tokens=8", "--max-steps", "1")
    result = call(*SMALL, *short, "--output-dir", str(tmp_path / "short"))
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "short" / "summary.json").read_text())
    for side in ("before", "after"):
        problem = summary[side]["format_problem"]
        assert "raise rollout.max_new_tokens (now 8)" in problem
        assert f"warning: evaluation {side} training: {problem}\n" in result.stderr


def test_the_run_can_be_rebuilt_from_its_folder(finished):
    folder, _ = finished
    recipe = load_recipe(str(folder / "recipe.yaml")).recipe
    assert recipe.train.max_steps == 2 and recipe.train.num_generations == 4
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["seed"] == recipe.seed
    assert environment["packages"]["trl"] and environment["packages"]["torch"]


def test_training_and_evaluation_share_no_entity(finished):
    folder, _ = finished
    recipe = load_recipe(str(folder / "recipe.yaml")).recipe
    from rsearch_cli.questions.sets import open_question_set

    world = open_question_set(recipe.questions, recipe.seed)
    asked = {e for q in world.load("test") for e in q.metadata["entities"]}
    trained = {e for q in world.load("train") for e in q.metadata["entities"]}
    assert asked and trained and not asked & trained


def test_a_second_run_in_the_folder_is_refused(finished):
    folder, _ = finished
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    result = call(*SMALL, "--output-dir", str(folder))
    assert result.exit_code == 72
    assert (
        "already contains a run; continue it with --resume, replace it with --overwrite"
        in result.stderr
    )
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_a_folder_in_which_another_process_trains_is_left_alone(finished, how):
    folder, _ = finished
    with lock_folder(folder, "training"):
        before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
        result = call("--recipe", str(folder / "recipe.yaml"), how)
        assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert result.exit_code == 72
    assert f"rsearch: another process is training in {folder}; wait until it" in result.stderr
    assert result.stderr.count("\n") == 1


def test_resume_with_other_settings_is_refused(finished):
    folder, _ = finished
    result = call(*SMALL, "--output-dir", str(folder), "--resume", "--lr", "0.5")
    assert result.exit_code == 70
    assert "'learning_rate: 0.0005' where this run has 'learning_rate: 0.5'" in result.stderr


def test_resume_goes_on_from_the_last_checkpoint_as_if_nothing_had_happened(tmp_path, monkeypatch):
    from rsearch_cli.training import grpo

    # A folder named after the recipe must be found again from the recipe inside it.
    monkeypatch.chdir(tmp_path)
    options = [*SMALL, "--max-steps", "4", "--set", "train.save_steps=2"]
    whole = tmp_path / "whole"
    assert call(*options, "--output-dir", str(whole)).exit_code == 0
    broken = tmp_path / "runs" / "quickstart"
    finish_step = grpo.GrpoTraining.finish_step

    def fail_in_step_4(self, step, logs):
        finish_step(self, step, logs)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(grpo.GrpoTraining, "finish_step", fail_in_step_4)
        assert call(*options).exit_code == 130
    assert not (broken / "summary.json").exists()
    resumed = call("--recipe", str(broken / "recipe.yaml"), "--resume")
    assert resumed.exit_code == 0, resumed.output

    def rewards(folder: Path):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [(r["step"], r["reward"], r["entropy"], r["completion_length"]) for r in rows]

    assert rewards(broken) == rewards(whole)
    weights = [(f / "adapter" / "adapter_model.safetensors").read_bytes() for f in (broken, whole)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--recipe", "quikstart"], 11, "quickstart"),
        (["--set", "train.max_step=3"], 12, "train.max_steps"),
        (["--set", "train.max_steps=0"], 13, "train.max_steps"),
        (["--data-path", "{tmp}/none.jsonl"], 21, "none.jsonl"),
        (["--data-path", "{tmp}/bad.jsonl"], 22, "line 2"),
        (["--data-path", "{tmp}/empty.jsonl"], 23, "empty.jsonl"),
        (["--model-name", "./no-such-model"], 60, "the folder ./no-such-model does not exist"),
        (["--output-dir", "/proc/run"], 71, "/proc/run cannot be written"),
        (["--output-dir", "n" * 300], 71, "cannot be written: File name too long; choose another"),
        (["--output-dir", "{tmp}/foreign"], 72, "contains other files and no run"),
    ],
)
def test_bad_input_is_one_clear_line_with_a_code_of_its_own(tmp_path, arguments, code, message):
    (tmp_path / "bad.jsonl").write_text('{"id": "1", "question": "a?", "answer": "b"}\n{oops\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("x")
    arguments = [a.replace("{tmp}", str(tmp_path)) for a in arguments]
    run = tmp_path / "run"
    source = ["--set", "questions.source=custom"] if "--data-path" in arguments else []
    # The default recipe is in 4 bits, which a machine without a card refuses before all of these.
    defaults = [
        "--recipe",
        "hotpot-hard",
        *source,
        "--set",
        "policy.load_in_4bit=false",
        "--output-dir",
        str(run),
    ]
    result = CliRunner().invoke(app, ["train", *defaults, *arguments])
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.output
    assert not run.exists()
    assert [p.name for p in (tmp_path / "foreign").iterdir()] == ["mine.txt"]


def test_a_run_may_be_resumed_with_fewer_completions_at_once(finished):
    folder, _ = finished
    recipe = load_recipe(str(folder / "recipe.yaml")).recipe
    smaller = {"micro_batch": 1, "micro_batch_tokens": 512, "reuse_cache": False}
    changed = recipe.model_copy(update={"rollout": recipe.rollout.model_copy(update=smaller)})
    check_same_recipe(RunFolder(folder), changed)
    longer = recipe.model_copy(
        update={"rollout": recipe.rollout.model_copy(update={"max_new_tokens": 9})}
    )
    with pytest.raises(RunFolderError, match="max_new_tokens: 120' where this run has"):
        check_same_recipe(RunFolder(folder), longer)


def test_an_engine_that_cannot_run_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "run"
    result = call("--set", "rollout.engine=vllm", "--output-dir", str(folder))
    assert result.exit_code == 66
    assert result.stderr == (
        "rsearch: rollout.engine: vllm: it needs a CUDA device, and torch sees none; "
        "use --set rollout.engine=local\n"
    )
    assert not folder.exists()


def test_a_finished_run_is_trained_further_as_if_it_had_been_planned_so(finished, tmp_path):
    folder, longer = tmp_path / "run", tmp_path / "planned"
    shutil.copytree(finished[0], folder)
    resumed = call(*SMALL, "--output-dir", str(folder), "--resume", "--max-steps", "4")
    assert resumed.exit_code == 0, resumed.output
    assert "schedule" not in resumed.stderr
    planned = call(*SMALL, "--max-steps", "4", "--output-dir", str(longer))
    assert planned.exit_code == 0, planned.output
    weights = "adapter/adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (longer / weights).read_bytes()
    steps = [json.loads(row)["step"] for row in (folder / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4]
    assert json.loads((folder / "summary.json").read_text())["steps"] == 4


def test_fewer_steps_than_were_trained_are_refused(finished):
    folder, _ = finished
    result = call(*SMALL, "--output-dir", str(folder), "--resume", "--max-steps", "1")
    assert result.exit_code == 70
    assert "--max-steps 1: the run has already trained 2 steps" in result.stderr


@pytest.mark.parametrize(
    ("schedule", "steps", "done", "told"),
    [
        ("cosine", 40, 20, True),
        ("linear", 40, 20, True),
        ("constant", 40, 20, False),
        ("cosine", 20, 20, False),
        ("cosine", 40, 0, False),
    ],
)
def test_a_schedule_that_more_steps_change_is_told(schedule, steps, done, told):
    before = TrainConfig(max_steps=20, lr_scheduler=schedule)
    now = before.model_copy(update={"max_steps": steps})
    note = change_of_steps(before, now, done)
    assert (note is not None) == told
    if note:
        assert f"the {schedule} schedule is recomputed from here on" in note


def test_a_recipe_that_was_edited_in_the_run_is_said(finished, tmp_path):
    edited = shutil.copytree(finished[0], tmp_path / "edited")
    recipe = edited / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 42", "seed: 43", 1))
    result = call("--recipe", str(recipe), "--resume")
    assert result.exit_code == 0, result.output
    assert f"{recipe} was edited, or was written on another machine" in result.stderr


def test_a_recipe_that_describes_itself_in_other_words_goes_on(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    result = call(
        *SMALL, "--output-dir", str(folder), "--resume", "--set", "purpose=Said in another way"
    )
    assert result.exit_code == 0, result.output


def test_a_run_that_was_moved_is_resumed_where_it_lies(finished, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(finished[0], moved)
    before = (finished[0] / "summary.json").read_bytes()
    result = call("--recipe", str(moved / "recipe.yaml"), "--resume", "--max-steps", "3")
    assert result.exit_code == 0, result.output
    assert json.loads((moved / "summary.json").read_text())["steps"] == 3
    assert (finished[0] / "summary.json").read_bytes() == before
