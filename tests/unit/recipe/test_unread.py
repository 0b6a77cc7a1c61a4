"""Settings of the command line that are not read: each is told, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from rsearch_cli.recipe.flags import schema_fields
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.unread import _NOT_READ_BY, _READ_WITH, describe_unread


def tell(
    *overrides: str,
    command: str = "train",
    recipe: str = "quickstart",
    flags: dict[str, Any] | None = None,
) -> list[str]:
    loaded = load_recipe(recipe, overrides, flags)
    return list(describe_unread(loaded.recipe, loaded.given, command))


def test_the_table_names_keys_of_the_schema() -> None:
    known = schema_fields()
    for keys, decider, _ in _READ_WITH:
        assert {decider, *keys} <= known.keys()
    for keys in _NOT_READ_BY.values():
        assert set(keys) <= known.keys()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            {"reward.judge.model": "gpt-4o"},
            "--reward-model is not used: reward.answer is f1, not judge",
        ),
        (
            {"wandb.project": "mine"},
            "--wandb-project is not used: wandb.enabled is false, not true",
        ),
        (
            {"train.num_generations": 4, "stage": "sft"},
            "--num-generations is not used: stage is sft, not grpo",
        ),
        (
            {"sft.teacher.model": "m", "stage": "sft"},
            "--teacher-model is not used: sft.traces is world, not teacher",
        ),
    ],
)
def test_a_flag_that_is_not_read_is_told(flags: dict[str, Any], told: str) -> None:
    assert tell(flags=flags) == [told]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("sft.epochs=3", "stage is grpo, not sft"),
        ("evaluate.slice=3", "evaluate.every_steps is not set"),
        ("rollout.vllm_folder=a", "rollout.engine is local, not vllm-server"),
        ("policy.endpoint.model=m", "policy.endpoint.url is not set"),
        ("questions.held_out_share=0.5", "questions.path is not set"),
        (
            "questions.profile=gone.json",
            "neither questions.pass_rate nor questions.order=easy_to_hard is set",
        ),
    ],
)
def test_an_override_that_is_not_read_is_told(override: str, told: str) -> None:
    assert tell(override) == [f"--set {override.partition('=')[0]} is not used: {told}"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["sft.per_question=2"], "sft.traces is world, not teacher or a file"),
        (["sft.min_f1=0.5", "sft.traces=gold_titles"], "sft.traces is gold_titles, not teacher or"),
        (["sft.min_f1=0.5", "sft.traces=mine.jsonl"], None),
        (["questions.max_samples=9"], "sft.traces is world, not gold_titles or teacher"),
        (["questions.max_samples=9", "sft.traces=gold_titles"], None),
        (["questions.profile=gone.json"], "stage is sft, not grpo"),
        (["questions.order=shuffled"], "stage is sft, not grpo"),
        (["reward.normalise_parts=true"], "stage is sft, not grpo"),
        (["reward.judge.mode=discrete"], "reward.answer is f1, not judge"),
        (["alarms.stop_on_collapse=true"], "stage is sft, not grpo"),
    ],
)
def test_what_a_cold_start_does_not_read_is_told(settings: list[str], told: str | None) -> None:
    lines = tell("stage=sft", *settings)
    key = settings[0].partition("=")[0]
    assert len(lines) == (told is not None)
    assert all(line.startswith(f"--set {key} is not used: {told}") for line in lines)


def test_a_judge_is_told_in_a_cold_start_and_not_in_its_evaluation() -> None:
    settings = ("stage=sft", "reward.answer=judge", "reward.judge.model=m")
    assert [line.partition(" is not")[0] for line in tell(*settings)] == [
        "--set reward.answer", "--set reward.judge.model",
    ]  # fmt: skip
    for command in ("eval", "eval rescore", "data --profile"):
        assert tell(*settings, command=command) == [f"--set stage is not used by rsearch {command}"]


def test_weights_of_a_curriculum_without_steps_are_told() -> None:
    weights = "reward.curriculum_weights={answer: 0, plan: 0.5, format: 0.5}"
    assert tell(weights) == []
    lines = tell(weights, "reward.curriculum_steps=0")
    assert lines[0] == (
        "--set reward.curriculum_weights.answer is not used: reward.curriculum_steps is 0, not 1 "
        "or more"
    )


def test_pass_rates_are_measured_without_the_settings_of_training() -> None:
    read = ("questions.max_samples=9", "rollout.temperature=0.5", "reward.require_valid_plan=false")
    assert tell(*read, command="data --profile") == []
    for unread in ("train.max_steps=9", "questions.order=shuffled", "evaluate.limit=5"):
        name = unread.partition("=")[0]
        assert tell(unread, command="data --profile") == [
            f"--set {name} is not used by rsearch data --profile"
        ]


def test_a_world_beside_another_set_is_told() -> None:
    assert tell("questions.world.seed=9", recipe="hotpot-hard") == [
        "--set questions.world.seed is not used: questions.source is hotpotqa, not world"
    ]


def test_every_key_of_a_nested_override_is_looked_at() -> None:
    lines = tell("reward={judge: {mode: discrete, model: m}, curriculum_steps: 2}")
    assert [line.partition(" is not")[0] for line in lines] == [
        "--set reward.judge.mode", "--set reward.judge.model",
    ]  # fmt: skip


def test_a_corpus_beside_exa_is_told_wherever_it_stands() -> None:
    settings = ("search.sources.News.corpus=mine.jsonl",)
    assert tell(*settings, recipe="hotpot-hard") == [
        "search.sources.News.corpus is not used: sources of type exa ask a service"
    ]
    assert tell(*settings) == []


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("eval", "rollout.temperature=0.7"),
        ("eval", "evaluate.sampled=true"),
        ("eval", "train.max_steps=3"),
        ("infer", "rollout.temperature=0.7"),
        ("infer", "evaluate.limit=3"),
    ],
)
def test_what_a_command_never_reads_is_told(command: str, key: str) -> None:
    name = key.partition("=")[0]
    assert tell(key, command=command) == [f"--set {name} is not used by rsearch {command}"]
    assert tell(key) == []


@pytest.mark.parametrize(
    "settings",
    [
        ("reward.answer=judge", "reward.judge.model=m"),
        ("wandb.enabled=true", "wandb.project=mine"),
        ("questions.world.seed=9", "questions.difficulty=null"),
        ("stage=sft", "sft.epochs=3", "train.save_steps=5"),
        ("evaluate.every_steps=5", "evaluate.slice=3"),
        ("questions.profile=rates.json", "questions.pass_rate=[0.1, 0.9]"),
        ("questions.profile=rates.json", "questions.order=easy_to_hard"),
        ("search.sources.General.corpus=mine.jsonl", "train.max_steps=3"),
    ],
)
def test_what_is_read_is_not_mentioned(settings: tuple[str, ...]) -> None:
    assert tell(*settings) == []


def test_a_question_file_takes_the_place_of_the_world() -> None:
    loaded = load_recipe("quickstart", (), {"questions.path": "mine.jsonl"})
    questions = loaded.recipe.questions
    assert (questions.source, questions.path, questions.difficulty) == (
        "custom",
        "mine.jsonl",
        None,
    )
    assert loaded.notes == (
        "questions.source is set to custom: mine.jsonl replaces the generated world, and "
        "questions.difficulty (easy, medium) is reset",
    )
    by_set = load_recipe("quickstart", ["questions.path=mine.jsonl"]).recipe
    assert by_set == loaded.recipe


def test_a_level_that_is_asked_for_stays_with_the_file() -> None:
    flags = {"questions.path": "mine.jsonl", "questions.difficulty": ["hard"]}
    loaded = load_recipe("quickstart", (), flags)
    assert loaded.recipe.questions.difficulty == ["hard"]
    assert loaded.notes[0].endswith("replaces the generated world")


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("quickstart", ["questions.source=world"]),
        ("quickstart", ["questions.source=hotpotqa"]),
        ("hotpot-offline", []),
    ],
)
def test_a_source_that_is_asked_for_stays(recipe: str, overrides: list[str]) -> None:
    loaded = load_recipe(recipe, overrides, {"questions.path": "mine.jsonl"})
    source = overrides[0].partition("=")[2] if overrides else "hotpotqa"
    assert (loaded.recipe.questions.source, loaded.notes) == (source, ())
