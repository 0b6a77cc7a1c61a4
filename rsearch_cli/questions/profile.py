"""Pass rates of questions: the file that `rsearch data --profile` writes, and what training takes.

A question is recognised by its text and its reference answers; its id may be a position in a file.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataEmpty, DataError, DataMalformed, DataNotFound
from rsearch_cli.recipe.nested import WITHOUT_EFFECT, without
from rsearch_cli.recipe.schema import QuestionsConfig, Recipe
from rsearch_cli.runs.evaluation_folder import setting_differences
from rsearch_cli.runs.json_text import dump_json, read_json_object
from rsearch_cli.types import Question

logger = logging.getLogger(__name__)

RIGHT = 0.8
"""Lowest answer score in [0, 1] of a right answer; the default of `sft.min_f1`."""

_WRITE_IT = "write it with: rsearch data --profile MODEL --recipe RECIPE --output"


@dataclass(frozen=True, slots=True)
class PassRate:
    """How often a model answered one question right.

    Attributes:
        id: Id of the question.
        question: The question.
        answers: Its reference answers.
        rate: Share in [0, 1] of right answers among the scored samples; None without any.
        scored: Samples with a score.
        failed: Samples without one, because the model's server, a search or the judge failed.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    rate: float | None
    scored: int
    failed: int


@dataclass(frozen=True, slots=True)
class Profile:
    """The pass rates of a question set, and how they were measured.

    Attributes:
        policy: What identifies the model: its name with weights or server.
        samples: Samples of each question.
        seed: The recipe's seed.
        settings: Settings that the rates depend on; see `rate_settings`.
        rates: One per question, in the order of the set.
    """

    policy: Mapping[str, str | None]
    samples: int
    seed: int
    settings: Mapping[str, Any]
    rates: Sequence[PassRate]

    @property
    def model(self) -> str:
        """Name of the model that answered."""
        return str(self.policy.get("model"))

    def as_text(self) -> str:
        """Return the content of the file: JSON with a line for each question."""
        facts = {
            "policy": dict(self.policy),
            "samples": self.samples,
            "seed": self.seed,
            "settings": self.settings,
        }
        rows = ",\n".join(dump_json(asdict(row)) for row in self.rates)
        lines = [f"{dump_json(name)}: {dump_json(value)}" for name, value in facts.items()]
        return "{\n" + ",\n".join([*lines, f'"rates": [\n{rows}\n]']) + "\n}\n"


@dataclass(frozen=True, slots=True)
class Choice:
    """The training questions that were chosen by their pass rates.

    Attributes:
        questions: Those to train on; from easy to hard if the recipe orders them.
        config: The recipe's questions section.
        profile: The pass rates.
        below: Questions with a rate below the range.
        above: Questions with a rate above the range.
        unrated: Questions without a rate.
    """

    questions: Sequence[Question]
    config: QuestionsConfig
    profile: Profile
    below: int
    above: int
    unrated: int

    def as_json(self) -> dict[str, Any]:
        """Return the choice for `summary.json`."""
        return {
            "chosen": len(self.questions),
            "of": len(self.questions) + self.below + self.above + self.unrated,
            "below": self.below,
            "above": self.above,
            "unrated": self.unrated,
            "pass_rate": self.config.pass_rate,
            "order": self.config.order,
            "model": self.profile.model,
            "samples": self.profile.samples,
        }


def rate_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that pass rates depend on, apart from model and questions."""
    rollout, reward = recipe.rollout, recipe.reward
    return {
        "protocol": recipe.protocol.model_dump(),
        "rollout": {
            name: getattr(rollout, name)
            for name in ("max_turns", "max_new_tokens", "temperature", "top_p")
        },
        "reward": {
            "answer": reward.answer,
            "normalisation": reward.normalisation,
            "require_valid_plan": reward.require_valid_plan,
            "judge": reward.judge.model if reward.answer == "judge" else None,
        },
        # Another retriever finds other passages; no recipe has an address with a login.
        "search": without(recipe.search.model_dump(), WITHOUT_EFFECT - {"url"}),
    }


def find_profile(config: QuestionsConfig) -> Path:
    """Return the file of `questions.profile`."""
    return Path(os.path.expanduser(config.profile or ""))


def read_profile(path: Path) -> Profile:
    """Read a file that `rsearch data --profile` wrote.

    Raises:
        DataNotFound: There is no such file.
        DataMalformed: It is something else.
    """
    try:
        content = read_json_object(path)
        rates = [
            PassRate(
                id=str(row["id"]),
                question=str(row["question"]),
                answers=tuple(str(answer) for answer in row["answers"]),
                rate=_read_rate(row["rate"]),
                scored=int(row["scored"]),
                failed=int(row["failed"]),
            )
            for row in content["rates"]
        ]
        return Profile(
            policy=dict(content["policy"]),
            samples=int(content["samples"]),
            seed=int(content["seed"]),
            settings=dict(content["settings"]),
            rates=rates,
        )
    except OSError as error:
        raise DataNotFound(
            f"questions.profile: {path} cannot be read ({error.strerror}); {_WRITE_IT} {path}"
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataMalformed(
            f"questions.profile: {path} is no file of pass rates ({reason}); {_WRITE_IT} FILE"
        ) from error


def _read_rate(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"the rate {value!r:.40} is not in [0, 1]")
    return float(value)


def is_chosen(rate: float | None, config: QuestionsConfig) -> bool:
    """Whether `pass_rate` takes a question with this rate; without a rate it takes none."""
    low, high = config.pass_rate or (0.0, 1.0)
    return rate is not None and low <= rate <= high


def choose_questions(
    questions: Sequence[Question], profile: Profile, config: QuestionsConfig, seed: int
) -> Choice:
    """Choose and order training questions by their pass rates; without a rate none is chosen.

    The result depends on the arguments alone. Questions with equal rates are shuffled.

    Args:
        questions: The training questions, each once.
        profile: Their pass rates, and possibly those of others.
        config: The recipe's questions section, with `pass_rate`, `order` or both.
        seed: The recipe's seed.

    Raises:
        DataError: The profile has no rate of any of them.
        DataEmpty: No rate is in the range.
    """
    rates = {(row.question, row.answers): row.rate for row in reversed(profile.rates)}
    rated = {q.text: rates.get((q.text, q.answers)) for q in questions}
    known = {text: rate for text, rate in rated.items() if rate is not None}
    where = f"questions.profile: {config.profile}"
    if not known:
        raise DataError(
            f"{where} has the pass rates of {len(profile.rates)} questions, but of none of the "
            f"{len(questions)} training questions; {_WRITE_IT} FILE"
        )
    low, high = config.pass_rate or (0.0, 1.0)
    below = sum(rate < low for rate in known.values())
    above = sum(rate > high for rate in known.values())
    chosen = [q for q in questions if is_chosen(rated[q.text], config)]
    if not chosen:
        raise DataEmpty(
            f"{where}: no training question has a pass rate from {low:g} to {high:g}: {below} are "
            f"lower, {above} higher, {len(rated) - len(known)} have none; change "
            "questions.pass_rate"
        )
    if config.order == "easy_to_hard":
        random.Random(f"{seed} easy to hard").shuffle(chosen)
        chosen.sort(key=lambda question: -known[question.text])
    return Choice(chosen, config, profile, below, above, len(rated) - len(known))


def log_choice(choice: Choice, recipe: Recipe) -> None:
    """Log how many questions were chosen, and warn if the rates were measured otherwise."""
    config, profile, facts = choice.config, choice.profile, choice.as_json()
    counts = [f"{choice.unrated} without a rate"]
    if config.pass_rate is not None:
        low, high = config.pass_rate
        counts = [f"{choice.below} below {low:g}", f"{choice.above} above {high:g}", *counts]
    logger.info(
        f"{facts['chosen']} of {facts['of']} training questions are used, by the pass rates in "
        f"{config.profile} ({profile.model}, {profile.samples} samples); left out: "
        f"{', '.join(counts)}"
    )
    now = rate_settings(recipe)
    # A file of another version may lack sections or have more of them.
    stored = {section: profile.settings[section] for section in now if section in profile.settings}
    now = {section: now[section] for section in stored}
    if differing := list(setting_differences(stored, now)):
        logger.warning(
            f"{config.profile} was made with other settings ({', '.join(differing)}): the pass "
            "rates of this run may be others"
        )
