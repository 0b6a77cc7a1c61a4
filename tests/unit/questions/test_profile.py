"""Pass rates: what they choose, in which order, and what is said of files that do not fit."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rsearch_cli.errors import DataEmpty, DataError, DataMalformed, DataNotFound, RecipeValueError
from rsearch_cli.questions.profile import (
    PassRate,
    Profile,
    choose_questions,
    find_profile,
    log_choice,
    rate_settings,
    read_profile,
)
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question

RATES = {"a": 0.0, "b": 0.1, "c": 0.5, "d": 0.5, "e": 0.9, "f": 1.0, "g": None}
URLS = ("http://a/search", "http://b/search")
QUESTIONS = [Question(name, f"What is {name}?", (name,)) for name in RATES]


def recipe(*settings: str) -> Recipe:
    return load_recipe("quickstart", ["questions.profile=rates.json", *settings]).recipe


def profile(of: Recipe | None = None) -> Profile:
    rows = [PassRate(q.id, q.text, q.answers, RATES[q.id], 8, 0) for q in QUESTIONS]
    return Profile({"model": "m"}, 8, 42, rate_settings(of or recipe()), rows)


def choose(*settings: str, questions=QUESTIONS, seed: int = 42):
    return choose_questions(questions, profile(), recipe(*settings).questions, seed)


def names(choice) -> str:
    return "".join(question.id for question in choice.questions)


def test_both_ends_of_the_range_belong_to_it_and_the_rest_is_counted() -> None:
    choice = choose("questions.pass_rate=[0.1,0.9]")
    assert names(choice) == "bcde"
    assert (choice.below, choice.above, choice.unrated) == (1, 1, 1)
    facts = choice.as_json()
    assert (facts["chosen"], facts["of"], facts["model"], facts["samples"]) == (4, 7, "m", 8)


def test_easy_ones_come_first_and_equal_ones_in_an_order_of_the_seed() -> None:
    orders = {names(choose("questions.order=easy_to_hard", seed=seed)) for seed in range(20)}
    assert orders == {"fecdba", "fedcba"}
    again = [choose("questions.order=easy_to_hard", seed=3) for _ in range(2)]
    assert names(again[0]) == names(again[1])


def test_a_question_is_known_by_its_text_and_answers_and_not_by_its_id() -> None:
    moved = [Question(f"line-{n}", q.text, q.answers) for n, q in enumerate(QUESTIONS)]
    changed = Question("c", "What is c?", ("another answer",))
    choice = choose("questions.pass_rate=[0.5,0.5]", questions=[*moved[:2], changed, *moved[3:]])
    assert names(choice) == "line-3"
    assert choice.unrated == 2


def test_of_a_text_that_occurs_twice_the_first_rate_counts() -> None:
    twice = [PassRate("x", "What?", ("a",), rate, 8, 0) for rate in (0.25, 0.75)]
    rates = Profile({"model": "m"}, 8, 42, {}, twice)
    config = recipe("questions.pass_rate=[0,0.5]").questions
    chosen = choose_questions([Question("x", "What?", ("a",))], rates, config, 42)
    assert names(chosen) == "x"


def test_what_cannot_be_chosen_from_is_an_error_with_the_counts() -> None:
    with pytest.raises(DataEmpty, match=r"0\.6 to 0\.8: 4 are lower, 2 higher, 1 have none"):
        choose("questions.pass_rate=[0.6,0.8]")
    others = [Question("z", "What is z?", ("z",))]
    with pytest.raises(DataError, match="of 7 questions, but of none of the 1 training questions"):
        choose("questions.pass_rate=[0,1]", questions=others)


@pytest.mark.parametrize(
    "value", ["[0.9,0.1]", "[-0.1,0.5]", "[0.5,1.1]", "[0.5]", "[]", "[.nan,1]"]
)
def test_a_range_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(RecipeValueError, match="0 <= low <= high <= 1, or null, got"):
        recipe(f"questions.pass_rate={value}")


@pytest.mark.parametrize("setting", ["pass_rate=[0,1]", "order=easy_to_hard"])
def test_a_choice_without_a_file_of_pass_rates_is_refused(setting: str) -> None:
    with pytest.raises(RecipeValueError, match="need profile, a file of pass rates"):
        load_recipe("quickstart", [f"questions.{setting}"])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    file.write_text(profile().as_text(), encoding="utf-8")
    assert read_profile(file) == profile()
    assert len(file.read_text().splitlines()) == len(QUESTIONS) + 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('"rate": 0.5', '"rate": 1.5'), "the rate 1.5 is not in"),
        (('"rate": 0.5', '"rate": "half"'), "the rate 'half' is not in"),
        (('"samples": 8', '"sample": 8'), "'samples' is missing"),
        (('"rates": [', '"rates": 5, "x": ['), "not iterable"),
        (("{", "["), "it must be a JSON object|Expecting"),
    ],
)
def test_another_file_is_refused_in_one_line(
    change: tuple[str, str], reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "rates.json"
    file.write_text(profile().as_text().replace(*change, 1))
    with pytest.raises(DataMalformed, match=reason) as raised:
        read_profile(file)
    assert "\n" not in str(raised.value) and "rsearch data --profile" in str(raised.value)
    with pytest.raises(DataNotFound, match=r"none\.json cannot be read \(No such file"):
        read_profile(tmp_path / "none.json")


def test_other_settings_are_a_warning_that_names_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = recipe("questions.pass_rate=[0.1,0.9]", "reward.answer=em", "protocol.max_nodes=3")
    log_choice(choose_questions(QUESTIONS, profile(now), now.questions, 42), now)
    log_choice(choose_questions(QUESTIONS, profile(), now.questions, 42), now)
    levels = Counter(record.levelname for record in caplog.records)
    assert levels == {"INFO": 2, "WARNING": 1}
    counted, *_, warning = caplog.messages
    assert counted.startswith("4 of 7 training questions are used, by the pass rates in rates.json")
    assert counted.endswith("left out: 1 below 0.1, 1 above 0.9, 1 without a rate")
    assert "(protocol.max_nodes, reward.answer)" in warning


def test_what_is_found_is_among_the_settings_and_how_it_is_asked_for_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = profile()
    limits = ["search.service.retries=9", "search.sources.News.usd_per_search=1"]

    def warnings(of: Profile, *settings: str) -> str:
        caplog.clear()
        now = recipe("questions.pass_rate=[0.1,0.9]", *settings)
        log_choice(choose_questions(QUESTIONS, of, now.questions, 42), now)
        return " ".join(r.message for r in caplog.records if r.levelname == "WARNING")

    assert warnings(made, *limits) == ""
    changed = ("search.top_k=5", "rollout.temperature=0.1", "search.sources.News.type=dense")
    named = "(rollout.temperature, search.sources.News.type, search.top_k)"
    assert named in warnings(made, *changed)
    retrievers = [f"search.sources.News={{type: http, options: {{url: '{u}'}}}}" for u in URLS]
    differing = warnings(profile(recipe(retrievers[0])), retrievers[1])
    assert "(search.sources.News.options.url)" in differing
    # A file of an earlier version, without the section, is compared as far as it goes.
    former = replace(made, settings={k: v for k, v in made.settings.items() if k != "search"})
    assert warnings(former, "search.top_k=5") == ""
    assert "(reward.answer)" in warnings(former, "reward.answer=em")


def test_an_estimate_counts_the_questions_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsearch_cli.workflows.estimate import estimate

    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rates.json"
    file.write_text(profile().as_text())
    settings = ["questions.pass_rate=[0.1,0.9]", f"questions.profile={file}", "evaluate.limit=1"]
    for more, most in (
        ([], 4),
        (["questions.max_samples=3"], 3),
        (["questions.max_samples=null"], 4),
    ):
        of = estimate(recipe(*settings, *more)).recipe
        assert of.questions.max_samples == most
    with pytest.raises(DataNotFound):
        estimate(recipe("questions.pass_rate=[0.1,0.9]", "questions.profile=missing.json"))


def test_a_home_that_nobody_has_is_a_file_that_is_not_there() -> None:
    config = recipe("questions.profile=~nobody-of-this-name/rates.json").questions
    with pytest.raises(DataNotFound, match="~nobody-of-this-name"):
        read_profile(find_profile(config))
