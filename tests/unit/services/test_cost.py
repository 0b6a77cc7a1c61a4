"""The arithmetic of `rsearch estimate`, against bills worked out by hand."""

from __future__ import annotations

import pytest

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.teacher import recipe_of_teacher
from rsearch_cli.search.prices import find_prices
from rsearch_cli.services.cost import (
    HIT_RATE,
    SFT_PHASES,
    Assumptions,
    Bill,
    Stop,
    estimate_run,
    find_stop,
)
from rsearch_cli.timing.lengths import expect_lengths

# 10 steps of 8 rows: 2 questions with 4 completions each.
SMALL = (
    "train.max_steps=10",
    "train.batch_size=4",
    "train.gradient_accumulation_steps=2",
    "train.num_generations=4",
    "questions.max_samples=null",
)
PAID = tuple(f"search.sources.{name}.type=exa" for name in ("General", "News", "Academy"))
JUDGED = ("reward.answer=judge", "reward.judge.max_output_tokens=50")


def recipe(*overrides: str) -> Recipe:
    return load_recipe("quickstart", (*SMALL, *overrides)).recipe


def bills(
    settings: Recipe, evaluated: int = 0, cache: str = "none", traced: int = 0, **assumed: object
):
    prices = find_prices(settings.search)
    return estimate_run(settings, evaluated, Assumptions(**assumed), cache, prices, traced).phases


def test_training_searches_are_steps_times_rows_times_nodes() -> None:
    before, training, after = bills(recipe(*PAID), nodes=3)
    assert training.searches == training.paid_searches == 10 * 8 * 3
    assert training.usd == training.usd_search == pytest.approx(240 * 0.007)
    assert before == after == Bill()


def test_replaced_groups_are_counted_at_their_bound() -> None:
    plain, bounded = (bills(recipe(*PAID, *JUDGED, f"train.resample_ties={n}")) for n in (0, 2))
    assert bounded[1].searches == 3 * plain[1].searches
    assert bounded[1].usd == pytest.approx(3 * plain[1].usd)


def test_the_price_is_the_recipes() -> None:
    training = bills(recipe(*PAID, "search.usd_per_search=0.01"), nodes=1)[1]
    assert training.usd == pytest.approx(80 * 0.01)


def test_every_turn_searches() -> None:
    training = bills(recipe(*PAID, "rollout.max_turns=2"), nodes=3)[1]
    assert training.searches == 480


def test_local_sources_cost_nothing_and_share_the_searches() -> None:
    training = bills(recipe(PAID[0]), nodes=3)[1]
    assert training.searches == 240
    assert training.paid_searches == pytest.approx(80)
    assert training.usd == pytest.approx(0.56)


def test_verdicts_are_priced_by_tokens_and_only_training_asks_for_them() -> None:
    before, training, after = bills(recipe(*JUDGED), evaluated=20, judge_input_tokens=400)
    assert (before.judge_calls, training.judge_calls, after.judge_calls) == (0, 80, 0)
    assert training.usd_judge == pytest.approx(80 * (400 * 0.15 + 50 * 0.60) / 1e6)
    assert training.usd == training.usd_judge


def test_without_a_judge_there_are_no_verdicts() -> None:
    assert bills(recipe())[1].judge_calls == 0


TAUGHT = (
    "stage=sft",
    "sft.traces=teacher",
    "sft.teacher.url=http://localhost/v1",
    "sft.teacher.model=wise",
    "sft.teacher.samples=2",
    "sft.teacher.usd_per_million_input_tokens=1",
    "sft.teacher.usd_per_million_output_tokens=10",
)


def test_a_teacher_is_sent_everything_so_far_with_every_turn() -> None:
    settings = recipe(*PAID, *TAUGHT, "rollout.max_new_tokens=100")
    traces, before, after = bills(settings, traced=5, nodes=3)
    lengths = expect_lengths(recipe_of_teacher(settings), 3)
    assert lengths.prompt > 400, "with the instructions that the recipe leaves out"
    sent = 2 * lengths.prompt + 30 + lengths.inserted  # half of 60 tokens before the results
    assert (traces.teacher_calls, traces.searches) == (5 * 2 * 2, 5 * 2 * 3)
    assert traces.usd_teacher == pytest.approx(10 * (sent * 1 + 60 * 10) / 1e6)
    assert traces.usd == pytest.approx(traces.usd_teacher + 30 * 0.007)
    assert before == after == Bill()


def test_traces_from_gold_titles_only_search() -> None:
    settings = recipe(*PAID, "stage=sft", "sft.traces=gold_titles", "sft.teacher.samples=2")
    traces = bills(settings, traced=5, nodes=2)[0]
    assert traces.usd == traces.usd_search == pytest.approx(5 * 2 * 0.007)


def test_a_supervised_run_pays_for_no_rollouts_in_training() -> None:
    settings = recipe(*PAID, *JUDGED, "stage=sft")
    traces, before, after = bills(settings, evaluated=10, nodes=2)
    assert traces == Bill()
    assert before.searches == after.searches == 10 * 2 * 2


@pytest.mark.parametrize(("sampled", "answers"), [("true", 2), ("false", 1)])
def test_both_evaluations_answer_every_question(sampled: str, answers: int) -> None:
    settings = recipe(*PAID, f"evaluate.sampled={sampled}")
    before, _, after = bills(settings, evaluated=50, nodes=2)
    assert before.searches == after.searches == 50 * answers * 2


def test_the_cache_saves_the_assumed_share_of_what_is_not_first() -> None:
    training = bills(recipe(*PAID, *JUDGED), cache="empty", nodes=1, hit_rate=0.5)[1]
    # 20 questions: 20 first completions are sent whole, of the 60 further ones half.
    assert training.searches == 20 + 30
    assert training.judge_calls == 20 + 30


def test_a_question_that_comes_again_in_a_later_epoch_is_no_first_one() -> None:
    settings = recipe(*PAID, "questions.max_samples=5")
    training = bills(settings, cache="empty", nodes=1, hit_rate=0.5)[1]
    assert training.searches == 5 + 37.5


def test_the_second_evaluation_has_only_further_answers() -> None:
    before, _, after = bills(recipe(*PAID), evaluated=10, cache="empty", nodes=1, hit_rate=0.5)
    assert (before.searches, after.searches) == (10 + 5, 10)


def test_with_every_answer_a_repeat_only_first_ones_are_paid() -> None:
    settings = recipe(*PAID)
    assert bills(settings, cache="empty", nodes=1, hit_rate=1.0)[1].searches == 20
    assert bills(settings, cache="empty", nodes=1, hit_rate=0.0)[1].searches == 80


def test_the_default_hit_rate_is_a_share() -> None:
    assert 0 < HIT_RATE < 1


def phases(before: float, training: float, after: float) -> tuple[Bill, ...]:
    return tuple(Bill(usd_search=usd) for usd in (before, training, after))


@pytest.mark.parametrize(
    ("max_usd", "stop"),
    [
        (None, None),
        (4.0, None),
        (3.5, Stop("evaluation after")),
        (2.99, Stop("training", 20)),
        (1.05, Stop("training", 1)),
        (1.1, Stop("training", 2)),
        (1.0, Stop("training", 1)),
        (0.5, Stop("evaluation before")),
        (0.0, Stop("evaluation before")),
    ],
)
def test_where_the_budget_ends_a_run(max_usd: float | None, stop: Stop | None) -> None:
    # 1 USD, then 20 steps of 0.10 USD, then 1 USD.
    assert find_stop(phases(1.0, 2.0, 1.0), 20, max_usd) == stop


def test_a_budget_may_end_before_there_are_traces() -> None:
    stop = find_stop(phases(2.0, 1.0, 1.0), 0, 1.5, SFT_PHASES)
    assert stop == Stop("collecting traces") and str(stop) == "collecting traces"


def test_a_free_run_never_meets_its_budget() -> None:
    assert find_stop(phases(0, 0, 0), 20, 0.0) is None


def test_a_stop_is_told_in_words() -> None:
    assert str(Stop("training", 7)) == "step 7"
    assert str(Stop("evaluation after")) == "evaluation after"


@pytest.mark.parametrize(("every", "times"), [("null", 0), ("5", 3), ("4", 4), ("100", 2)])
def test_validations_are_part_of_the_training(every: str, times: int) -> None:
    def searches(*overrides: str) -> float:
        settings = recipe("evaluate.slice=7", *overrides)
        return bills(settings, evaluated=10, nodes=2)[1].searches

    assert searches(f"evaluate.every_steps={every}") - searches() == 2 * 7 * times
