"""`rsearch preview`: what it shows of a recipe, with and without the model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backend import BACKEND
from rich.console import Console
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.commands.preview import _print_rollout

SMALL = [
    "--recipe", "quickstart",
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", f"policy.backend={BACKEND}",
    "--set", "evaluate.limit=6",
    "--set", "questions.max_samples=12",
]  # fmt: skip


def call(*arguments: str):
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["preview", *SMALL, *arguments])


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    result = call("--json", "--samples", "2")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_counts_lengths_and_samples(told: dict[str, Any]) -> None:
    assert (told["recipe"], told["model"]) == ("quickstart", "builtin:nano")
    training, evaluation = told["training"], told["evaluation"]
    assert (training["split"], training["n"]) == ("train", 12)
    assert (evaluation["split"], evaluation["n"]) == ("test", 6)
    for side in (training, evaluation):
        assert sum(side["by_type"].values()) == sum(side["by_level"].values()) == side["n"]
    tokens = told["tokens"]
    assert tokens["measured"] == 12 and tokens["cramped"] == 0
    for name in ("question", "prompt"):
        values = [tokens[name][key] for key in ("min", "p50", "p95", "max")]
        assert values == sorted(values) and values[0] > 0
    assert len(told["samples"]) == 2 and told["samples"][0]["answers"]


def test_a_question_file_is_what_is_shown(tmp_path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("question,answer\n" + "".join(f"Who is {n}?,Ann\n" for n in range(9)))
    result = call("--data-path", str(path), "--no-rollout", "--json")
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    assert shown["questions"] == f"questions from {path}"
    assert all(sample["question"].startswith("Who is") for sample in shown["samples"])
    assert "replaces the generated world" in result.stderr


def test_answers_in_chinese_are_told_of_the_rules_that_fit_them(tmp_path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("question,answer\n" + "".join(f"第{n}首都?,北京\n" for n in range(5)))
    arguments = ("--data-path", str(path), "--no-rollout", "--json")
    note = "warning: 5 of 5 questions have an answer in Chinese, Japanese, Korean, Thai"
    result = call(*arguments)
    assert result.exit_code == 0 and note in result.stderr
    assert "set reward.normalisation=cjk" in result.stderr
    assert note not in call(*arguments, "--set", "reward.normalisation=cjk").stderr


def test_the_prompt_is_what_the_model_gets(told: dict[str, Any], nano_policy: Any) -> None:
    text = told["prompt"]["text"]
    question = told["samples"][0]["question"]
    assert text == f"<|user|> {question}<|assistant|>"
    assert len(nano_policy.tokenizer.encode(text)) == told["prompt"]["tokens"]


def test_the_mask_tells_trained_from_inserted(told: dict[str, Any], nano_policy: Any) -> None:
    rollout = told["rollout"]
    inserted = [s["text"] for s in rollout["segments"] if not s["trained"]]
    assert inserted[0].startswith("\n<result>\n") and inserted[0].endswith("</result>\n")
    mask = [int(s["trained"]) for s in rollout["segments"] for _ in range(s["tokens"])]
    assert mask == rollout["mask"]
    assert sum(mask) == rollout["trained_tokens"]
    assert len(mask) == len(rollout["token_ids"]) == sum(mask) + rollout["inserted_tokens"]
    whole = "".join(s["text"] for s in rollout["segments"])
    assert nano_policy.decode(rollout["token_ids"]) == whole


def test_a_person_sees_it_all_without_colour_by_marks(told: dict[str, Any]) -> None:
    result = call("--samples", "2")
    shown = result.stdout
    assert told["prompt"]["text"] in shown
    for sample in told["samples"]:
        assert sample["question"] in shown
    marked = "".join(
        s["text"] if s["trained"] else f"⟦{s['text']}⟧" for s in told["rollout"]["segments"]
    )
    assert marked in shown
    trained, inserted = (told["rollout"][f"{kind}_tokens"] for kind in ("trained", "inserted"))
    assert f"{trained} tokens trained, ⟦{inserted} inserted, masked out of the loss⟧" in shown
    assert "\x1b" not in shown
    loading, back_end = result.stderr.splitlines()
    assert loading == "loading builtin:nano"
    assert back_end.startswith(f"back end: {BACKEND} ")


def test_colour_tells_them_apart_on_a_terminal(told: dict[str, Any]) -> None:
    console = Console(force_terminal=True, color_system="standard", width=120)
    segments = [
        {"trained": True, "tokens": 1, "text": "mine[b]\x1b[2J"},
        {"trained": False, "tokens": 1, "text": "theirs"},
    ]
    with console.capture() as capture:
        _print_rollout(console, told["rollout"] | {"segments": segments})
    assert "\x1b[32mmine[b]\ufffd[2J\x1b[0m\x1b[36mtheirs\x1b[0m" in capture.get()


def test_without_a_rollout_no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rsearch_cli.workflows.preview.load_policy", fail)
    result = call("--no-rollout", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["rollout"] is None and told["prompt"]["tokens"] > 0
    assert " rollout " not in call("--no-rollout").stdout


def test_a_reward_part_that_does_not_exist_is_refused() -> None:
    result = call("--no-rollout", "--set", "reward.extra.econmy=0.1")
    assert result.exit_code == 13
    assert "no reward part 'econmy'; did you mean 'economy'?" in result.stderr


def test_an_opened_thought_belongs_to_the_prompt() -> None:
    told = json.loads(call("--no-rollout", "--json", "--set", "rollout.open_thought=true").stdout)
    assert told["prompt"]["text"].endswith("<|assistant|><think>")
    assert told["prompt"]["opening"] == "<think>"


def test_prompts_that_leave_too_little_room_are_counted() -> None:
    settings = ["--set", "policy.max_seq_length=128", "--set", "rollout.max_new_tokens=120"]
    told = json.loads(call("--no-rollout", "--json", *settings).stdout)
    assert told["tokens"]["cramped"] == 12


def test_real_questions(hotpot_file: Any) -> None:
    result = CliRunner().invoke(
        app,
        ["preview", "--recipe", "hotpot-offline", "--data-path", str(hotpot_file),
         "--model-name", "builtin:nano", "--no-rollout", "--json"],
    )  # fmt: skip
    told = json.loads(result.stdout)
    assert set(told["training"]["by_type"]) <= {"bridge", "comparison"}
    assert told["training"]["n"] + told["evaluation"]["n"] > 45


def test_the_example_in_the_help() -> None:
    assert "Example: rsearch preview --recipe quickstart" in call("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--recipe", "quikstart"], 11, "no recipe is called 'quikstart'"),
        (["--model-name", "builtin:giant"], 60, "no built-in model 'builtin:giant'"),
        (["--set", "questions.source=custom", "--data-path", "no.jsonl"], 21, "no.jsonl does not"),
    ],
)
def test_bad_input_is_one_line_and_its_own_code(
    arguments: list[str], code: int, message: str
) -> None:
    result = call(*arguments)
    assert result.exit_code == code and message in result.stderr
    # Before it come the settings of SMALL that a question file leaves unread.
    *others, line = result.stderr.splitlines()
    assert line.startswith("rsearch: ")
    assert all("questions.source is " in other for other in others)
