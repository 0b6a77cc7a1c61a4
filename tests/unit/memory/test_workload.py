"""How long a row gets, and how many are held at once."""

from __future__ import annotations

import pytest

from rsearch_cli.memory.workload import Row, describe_workload, longest_row
from rsearch_cli.protocol.prompt import build_messages
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question


def recipe(**sections) -> Recipe:
    return Recipe.model_validate({"purpose": "p", "hardware": "h", **sections})


def test_the_longest_row_is_prompt_results_and_what_may_be_written() -> None:
    row = longest_row(
        recipe(
            policy={"max_seq_length": 8192},
            protocol={"system_prompt": "x" * 350, "max_nodes": 2},
            search={"top_k": 1, "passage_chars": 210},
            rollout={"max_new_tokens": 100, "max_turns": 3},
        )
    )
    # 350 characters at 3.5 a token; 3 blocks of 2 x (80 + 210 + 60) characters; and eos.
    assert row == Row(prompt=96 + 100, completion=100 + 3 * 200 + 1)


def test_no_row_is_longer_than_the_recipe_allows() -> None:
    row = longest_row(recipe(policy={"max_seq_length": 300}, rollout={"max_new_tokens": 1024}))
    assert row.total == 300


@pytest.mark.parametrize("examples", [0, 1, 3])
def test_the_built_in_prompt_is_as_long_as_assumed(examples: int) -> None:
    rules = recipe(protocol={"example_turns": examples})
    question = Question("1", "", ("a",))
    chars = sum(len(m["content"]) for m in build_messages(question, rules.protocol, 1))
    assumed = (longest_row(rules).prompt - 96) * 3.5
    assert chars == pytest.approx(assumed, rel=0.3)
    assert chars <= assumed + 120  # of the three sources that default rules name


def test_rows_in_an_update_and_in_a_rollout() -> None:
    load = describe_workload(
        recipe(
            train={"batch_size": 2, "gradient_accumulation_steps": 6},
            rollout={"micro_batch": 32},
            evaluate={"limit": 20},
        ),
        "unsloth",
    )
    assert (load.update_rows, load.rollout_rows) == (2, 20)


def test_an_evaluation_without_a_limit_fills_the_micro_batch() -> None:
    whole = recipe(rollout={"micro_batch": 32}, evaluate={"limit": None})
    assert describe_workload(whole, "unsloth").rollout_rows == 32


def test_null_settings_are_those_of_a_card() -> None:
    load = describe_workload(recipe(), "unsloth")
    assert (load.four_bit, load.checkpointing, load.width) == (True, True, 2)


@pytest.mark.parametrize(
    ("backend", "four_bit", "stream"),
    [
        ("unsloth", True, 2),
        ("unsloth", False, 2),
        ("transformers", True, 4),
        ("transformers", False, 2),
    ],
)
def test_only_peft_in_4_bit_computes_in_float32(backend, four_bit, stream) -> None:
    load = describe_workload(recipe(policy={"load_in_4bit": four_bit}), backend)
    assert load.stream == stream


@pytest.mark.parametrize(
    ("backend", "reuse", "limit", "caches"),
    [
        ("transformers", True, 40, 2),
        ("transformers", True, 8, 1),
        ("transformers", False, 40, 1),
        ("unsloth", True, 40, 1),
    ],
)
def test_two_micro_batches_keep_their_caches_while_they_take_turns(
    backend, reuse: bool, limit: int, caches: int
) -> None:
    rollout = {"micro_batch": 8, "reuse_cache": reuse}
    assert (
        describe_workload(recipe(rollout=rollout, evaluate={"limit": limit}), backend).caches
        == caches
    )
