"""Explain why no answer of an evaluation keeps the format, and which setting is likely to help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsearch_cli.protocol.transcript import CHECKS, TAG, read_transcript
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Segment

# Share of the token limit; the counts of servers differ slightly.
_NEARLY_ALL = 0.98


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer, as far as the diagnosis needs it.

    Attributes:
        opening: Start of the model's turn in the prompt.
        segments: The completion in order.
        tokens: Tokens that the policy generated.
    """

    opening: str
    segments: Sequence[Segment]
    tokens: int

    @property
    def written(self) -> str:
        """What the policy wrote last, without an opening tag that stands alone."""
        texts = [s.text for s in self.segments if s.author == "model" and s.text]
        last = texts[-1] if texts else ""
        return TAG.sub("", last, count=1) if TAG.fullmatch(last.strip()) else last

    @property
    def has_results(self) -> bool:
        """Whether results, or the problems of a plan, were inserted."""
        return any(s.author == "system" and s.text.strip() for s in self.segments)


def explain_format(
    attempts: Sequence[Attempt], recipe: Recipe, results: str | None = None
) -> str | None:
    """Explain why no answer keeps the format; None if one does, or without answers.

    Args:
        attempts: The answers of an evaluation, without failed ones.
        recipe: Its settings are named in the advice.
        results: Where a server receives results, `same_turn` or `user_turn`; None for local
            weights.
    """
    readings = [read_transcript(a.opening, a.segments, recipe.protocol) for a in attempts]
    if not attempts or any(reading.format_valid for reading in readings):
        return None
    which = f"none of {len(attempts)} answers keeps" if len(attempts) > 1 else "the answer breaks"
    broken = [
        name for name in CHECKS if sum(not r.checks[name] for r in readings) * 2 > len(readings)
    ]
    cause = _find_cause(attempts, broken, recipe, results)
    return f"{which} the format of the protocol: {cause}"


def _find_cause(
    attempts: Sequence[Attempt], broken: Sequence[str], recipe: Recipe, results: str | None
) -> str:
    """Return the first cause that applies to most answers, with the setting to change."""
    most = recipe.rollout.max_new_tokens
    limit = f"raise rollout.max_new_tokens (now {most})"
    if _most([not a.written.strip() for a in attempts]):
        if results is None:
            return (
                f"the model writes nothing; check its chat template (rsearch preview), or {limit}"
            )
        return (
            "the server sends no text; a thinking model may have spent its tokens on hidden "
            f"thoughts: {limit}, or start the server without a reasoning parser"
        )
    if _most([a.has_results for a in attempts]) and not recipe.reward.rewards_answers:
        return (
            "the recipe rewards the searches alone (reward.weights.answer is 0), so no answer was "
            "learnt; plan valid and title recall tell how good the searches are"
        )
    if _most([a.tokens >= _NEARLY_ALL * most for a in attempts]):
        return f"answers are cut off at the token limit: {limit}"
    if _most([_ends_open(a.written) for a in attempts]):
        return f"answers end inside a block, as if cut off: {limit}, or the server's own limit"
    if "search" in broken:
        return f"there is no <search> block; {_advise_protocol(recipe)}"
    if _most([a.has_results for a in attempts]) and "answer" in broken and results:
        other = "same_turn" if results == "user_turn" else "user_turn"
        return (
            f"no answer follows the search results, which the server receives as {results}; try "
            f"--set policy.endpoint.results={other}"
        )
    if broken[:1] == ["think"]:
        server = ", or have the server return its thoughts" if results else ""
        return f"there is no <think> block; try --set rollout.open_thought=true{server}"
    rule = f"most break the rule {CHECKS[broken[0]]!r}; " if broken else ""
    return f"{rule}{_advise_protocol(recipe)}"


def _advise_protocol(recipe: Recipe) -> str:
    if recipe.protocol.system_prompt == "":
        return (
            "the recipe does not explain the protocol to the model: use one that does, such as "
            "--recipe hotpot-offline, or a model trained with this recipe"
        )
    if recipe.protocol.example_turns == 0:
        return "show the model examples: --set protocol.example_turns=2, or train it first"
    return "the model does not know the protocol: train it first, or use a larger one"


def _ends_open(text: str) -> bool:
    """Whether text ends inside a block."""
    tags = list(TAG.finditer(text))
    return bool(tags) and not tags[-1][1]


def _most(holds: Sequence[bool]) -> bool:
    return sum(holds) * 2 > len(holds)
