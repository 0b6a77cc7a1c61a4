"""`rsearch estimate`: what it prints, and that nothing but arithmetic happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.memory.driver import Card
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.services.cost import HIT_RATE, NODES

PAID = [
    "--recipe", "quickstart",
    "--set", "search.sources.General.type=exa",
    "--set", "search.sources.News.type=exa",
    "--set", "search.sources.Academy.type=exa",
    "--set", "reward.answer=judge",
    "--set", "train.max_steps=100",
    "--set", "train.batch_size=8",
    "--set", "train.num_generations=4",
    "--set", "train.gradient_accumulation_steps=1",
    "--set", "evaluate.limit=50",
    "--set", "evaluate.sampled=false",
]  # fmt: skip


def call(*arguments: str):
    return CliRunner(env={"COLUMNS": "120"}).invoke(
        app, ["estimate", "--recipe", "quickstart", *arguments]
    )


def plan(*arguments: str) -> str:
    result = call(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def rows(text: str) -> dict[str, list[str]]:
    """The table's rows by name."""
    table = text.split("\n\n")[0].splitlines()[1:]
    return {line[:26].strip(): line[26:].split() for line in table}


def test_the_bill_without_and_with_cache() -> None:
    shown = rows(plan(*PAID, "--nodes", "2", "--hit-rate", "0.5"))
    # 100 steps x 8 rows x 2 nodes, and twice 50 questions x 2 nodes.
    assert shown["searches"] == ["1,800", "1,150"]
    assert shown["of them paid"] == ["1,800", "1,150"]
    assert shown["judge calls"] == ["800", "500"]
    assert shown["USD for searches"] == ["12.60", "8.05"]
    verdicts = [float(usd) for usd in shown["USD for the judge"]]
    assert verdicts == [pytest.approx(v, abs=0.005) for v in (800 * 113.4e-6, 500 * 113.4e-6)]


def test_the_price_of_a_search_is_told_by_source() -> None:
    mixed = [*PAID, "--set", "search.sources.News.type=tavily"]
    mixed += ["--set", "search.sources.Academy.type=bm25"]
    prices = {"General": 0.007, "News": 0.008, "Academy": 0.0}
    assert json.loads(plan(*mixed, "--json"))["usd_per_search"] == prices
    assert "USD for a search: General 0.007, News 0.008, Academy 0\n" in plan(*mixed)


def test_dynamic_sampling_is_told_as_the_worst_case() -> None:
    shown = plan(*PAID, "--set", "train.resample_ties=1", "--set", "evaluate.limit=1")
    assert rows(shown)["judge calls"][0] == "1,600"
    assert "train.resample_ties is 1: training is counted 2 times" in shown


def test_the_calls_of_a_teacher_are_told_instead_of_verdicts() -> None:
    taught = "stage=sft sft.traces=teacher sft.teacher.model=wise questions.max_samples=7"
    settings = [*taught.split(), "sft.teacher.url=http://localhost/v1"]
    shown = plan(*(word for setting in settings for word in ("--set", setting)))
    assert rows(shown)["teacher calls"] == ["14", "14"]
    assert "as often as sft.teacher.samples=1\nallows" in shown
    assert "judge calls" not in shown and "teacher calls" not in plan(*PAID)


def test_the_assumptions_are_told_with_the_options_that_change_them() -> None:
    told = " ".join(plan(*PAID, "--nodes", "2", "--hit-rate", "0.5").split())
    assert "Assumed: 2 nodes in a plan (--nodes); 50% of the requests of further answers" in told
    assert "repeat earlier ones (--hit-rate); an empty cache" in told


def test_the_json_is_the_same_bill() -> None:
    told = json.loads(plan(*PAID, "--nodes", "2", "--hit-rate", "0.5", "--json"))
    assert told["without_cache"]["paid_searches"] == 1800
    assert told["without_cache"]["usd_search"] == 12.6
    assert told["with_cache"]["judge_calls"] == 500
    assert told["max_usd"] is None
    assert told["stops"] == {"without_cache": None, "with_cache": None}
    assert told["assumptions"]["hit_rate"] == 0.5


def test_where_the_budget_would_end_the_run() -> None:
    limited = [*PAID, "--set", "budget.max_usd=8.4", "--nodes", "2", "--hit-rate", "0.5"]
    # 0.70 USD before, then 0.1129 USD a step for 16 searches and 8 verdicts.
    told = json.loads(plan(*limited, "--json"))
    assert told["stops"]["without_cache"] == {"phase": "training", "step": 69}
    assert told["stops"]["with_cache"] is None
    assert rows(plan(*limited))["budget.max_usd=8.4 stops"] == ["step", "69", "not", "reached"]


def test_an_offline_run_is_said_to_send_nothing() -> None:
    offline = [*PAID, "--set", "cache.mode=offline"]
    assert "the run sends nothing, and stops at the first cache miss.\n" in plan(*offline)
    assert json.loads(plan(*offline, "--json"))["cache_mode"] == "offline"


def test_the_defaults_are_those_of_the_help() -> None:
    told = json.loads(plan(*PAID, "--json"))["assumptions"]
    assert (told["nodes"], told["hit_rate"]) == (NODES, HIT_RATE)
    words = " ".join(plan("--help").replace("│", " ").split())
    assert f"[default: {NODES}]" in words and f"[default: {HIT_RATE:g}]" in words


def test_the_example_in_the_help_works_and_is_free() -> None:
    example = "rsearch estimate --recipe quickstart --nodes 2 --hit-rate 0.5"
    assert example in plan("--help")
    shown = rows(plan(*example.split()[2:]))
    assert shown["USD"] == ["0.00", "0.00"]
    # 40 steps x 64 rows, and twice 208 questions answered twice; 2 nodes each.
    assert shown["searches"][0] == "6,784"


def test_without_a_limit_the_questions_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    lines = [{"id": str(i), "question": f"q{i}?", "answer": "a"} for i in range(30)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = ["questions.source=custom", f"questions.path={file}", "evaluate.limit=null"]
    settings.append("questions.difficulty=null")
    options = [word for setting in settings for word in ("--set", setting)]
    counted = json.loads(plan(*PAID, "--json", "--nodes", "1", *options))
    recipe = load_recipe("quickstart", settings).recipe
    held_out = open_question_set(recipe.questions, recipe.seed).load(recipe.evaluate.split, None)
    assert 0 < len(held_out) < 30
    assert counted["without_cache"]["searches"] == 800 + 2 * len(held_out)


def test_the_memory_of_a_card_is_planned_by_part() -> None:
    shown = plan("--recipe", "hotpot-offline", "--vram", "24")
    assert "MEMORY of each CUDA card in GB, with unsloth, for rows of 2048 tokens" in shown
    assert "\nKV cache                  0.22  rollout\n" in shown
    assert "\nGB at the peak            1.25  in rollout; fits in 24 GB\n" in shown
    assert "--set policy.max_seq_length=1024: 0.18 GB less, 1.07\n" in shown


def test_the_memory_in_json() -> None:
    arguments = ["--recipe", "hotpot-offline", "--vram", "1", "--json"]
    told = json.loads(plan(*arguments))
    assert (told["fits"], told["total_gb"], told["vram_gb"]) == (False, 1.25, 1.0)
    assert told["parts"]["weights"] == {"gb": 0.104, "phases": ["always"]}
    assert told["parts"]["layer_inputs"]["phases"] == ["loss", "backward"]
    assert told["knobs"][0] == {
        "set": ["policy.max_seq_length=1024"],
        "saves_gb": 0.18,
        "total_gb": 1.07,
    }


def test_what_vllm_takes_is_planned() -> None:
    engine = ["--recipe", "hotpot-hard", "--vram", "24", "--set", "rollout.engine=vllm"]
    shown = plan(*engine)
    assert "\nvLLM                     12.00  always\n" in shown
    assert "vLLM takes 50% of the card (rollout.vllm_memory_share), weights included" in shown
    told = json.loads(plan(*engine, "--json"))
    assert (told["engine"], told["fits"]) == ("vllm", True)
    assert told["vllm_needs_at_least_gb"] < told["vllm_needs_gb"] < 12
    small = plan(*engine, "--set", "rollout.vllm_memory_share=0.2")
    assert "in backward; vLLM's share is too small\n" in small


@pytest.mark.parametrize(
    ("host", "cards", "where"),
    [
        ("localhost", 1, "is counted above"),
        ("localhost", 2, "runs on another card"),
        ("gpu2", 1, "runs on another card"),
    ],
)
def test_a_vllm_server_is_on_this_card_or_another(monkeypatch, host, cards, where) -> None:
    listed = [[str(number)] for number in range(cards)]
    monkeypatch.setattr("rsearch_cli.workflows.estimate.query_cards", lambda *fields: listed)
    url = f"rollout.vllm_url=http://{host}:8000"
    server = ["--set", "rollout.engine=vllm-server", "--set", url]
    shown = plan("--recipe", "hotpot-hard", "--vram", "24", *server)
    assert f"The vLLM server at http://{host}:8000 {where}, with the base model in 16 bit" in shown
    assert ("\nvLLM server " in shown) is (where == "is counted above")


def test_the_hours_of_a_card_are_told_by_part() -> None:
    shown = plan("--recipe", "hotpot-hard", "--card", "rtx-4090")
    table = shown[shown.index("TIME ON RTX-4090, unsloth") :].splitlines()
    assert [line.split("  ")[0] for line in table[1:8]] == [
        "start, first compilation",
        "evaluation before",
        "training: generation",
        "training: waiting for searches",
        "training: scoring",
        "training: update",
        "evaluation after",
    ]
    hours = json.loads(plan("--recipe", "hotpot-hard", "--card", "rtx-4090", "--json"))
    told = hours["time"]
    assert (told["card"], told["calibrated"], hours["vram_gb"]) == ("rtx-4090", False, 24.0)
    assert 0.5 < told["hours_low"] < told["hours"] < told["hours_high"] < 3
    assert sum(part["hours"] for part in told["parts"].values()) == pytest.approx(
        told["hours"], abs=0.001
    )
    shorter = json.loads(
        plan("--recipe", "hotpot-hard", "--card", "rtx-4090", "--json", "--written", "0.3")
    )
    assert shorter["time"]["hours"] < told["hours"]


def test_without_a_card_that_is_known_the_time_is_left_out() -> None:
    why = "this machine has no NVIDIA card; name a card with --card (rtx-3090, "
    assert f"The time cannot be predicted: {why}" in plan()
    told = json.loads(plan("--card", "this", "--json"))["time"]
    assert told["hours"] is None and "--calibrate RUN" in told["time_unknown"]


def test_a_card_of_this_machine_that_is_not_known_is_named(monkeypatch) -> None:
    cards = [Card("NVIDIA T4", "580.1", "15360")]
    for module in ("timing.devices", "workflows.estimate_time"):
        monkeypatch.setattr(f"rsearch_cli.{module}.list_cards", lambda: cards)
    assert "predicted: no card like this machine's NVIDIA T4 is known; name a" in plan()


@pytest.mark.parametrize("setting", ["stage=sft", "rollout.engine=vllm"])
def test_what_has_no_model_of_time_is_told_with_what_to_do(setting) -> None:
    name, _, value = setting.partition("=")
    why = f"{name} {value} has no model of time, not even with --calibrate; rsearch train shows the"
    assert f"The time cannot be predicted: {why} time left after its first step" in plan(
        "--set", setting
    )


def test_without_a_card_only_the_total_is_told(monkeypatch) -> None:
    monkeypatch.setattr("rsearch_cli.workflows.estimate.find_vram", lambda: None)
    shown = plan("--recipe", "hotpot-offline")
    assert "GB at the peak            1.25  in rollout\nNo card was found; --vram GB" in shown
    assert json.loads(plan("--recipe", "hotpot-offline", "--json"))["fits"] is None


def test_the_card_of_this_machine_is_taken(monkeypatch) -> None:
    monkeypatch.setattr("rsearch_cli.workflows.estimate.find_vram", lambda: 8.0)
    assert json.loads(plan("--recipe", "hotpot-offline", "--json"))["fits"] is True


def test_a_model_that_is_not_known_has_a_bill_but_no_memory_plan() -> None:
    unknown = ["--recipe", "hotpot-offline", "--set", "policy.model=someone/model"]
    shown = plan(*unknown)
    assert rows(shown)["USD"] == ["0.00", "0.00"]
    assert "GPU memory cannot be predicted: policy.model: the memory of someone/model" in shown
    told = json.loads(plan(*unknown, "--json"))
    assert (told["fits"], told["total_gb"]) == (None, None)
    assert "hf download someone/model" in told["memory_unknown"]
    asked = call(*unknown, "--vram", "24")
    assert asked.exit_code == 60
    assert "its config.json is not on this machine" in asked.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--recipe", "quikstart"], 11, "did you mean quickstart?"),
        (["--set", "budget.max_usd=-1"], 13, "budget.max_usd must be at least 0"),
        (["--hit-rate", "2"], 2, "--hit-rate"),
        (["--nodes", "0"], 2, "--nodes"),
        (["--card", "gtx-480"], 2, "known cards: rtx-3090, rtx-4090, a100"),
        (["--calibrate", "nowhere"], 2, "nowhere is not a run folder"),
    ],
)
def test_bad_input_is_told(arguments: list[str], code: int, words: str) -> None:
    result = call(*arguments)
    assert result.exit_code == code
    assert words in result.stderr
