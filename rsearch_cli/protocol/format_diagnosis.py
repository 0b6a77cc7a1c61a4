"""Why no answer of an evaluation keeps the format, and the setting that is likely to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsearch_cli.protocol.transcript import CHECKS, TAG, read_transcript
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Segment

# Of its limit of tokens; a server's count and ours differ a little.
_NEARLY_ALL = 0.98


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of one answer.

    Attributes:
        opening: What the chat template had opened.
        segments: The completion in order.
        tokens: Tokens that the policy wrote.
    """

    opening: str
    segments: Sequence[Segment]
    tokens: int

    @property
    def written(self) -> str:
        """What the policy wrote last; the tag that opens a thought counts for nothing."""
        texts = [s.text for s in self.segments if s.author == "model" and s.text]
        last = texts[-1] if texts else ""
        return TAG.sub("", last, count=1) if TAG.fullmatch(last.strip()) else last

    @property
    def has_results(self) -> bool:
        """Whether a search was carried out, or its plan refused."""
        return any(s.author == "system" and s.text.strip() for s in self.segments)


def explain_format(
    attempts: Sequence[Attempt], recipe: Recipe, results: str | None = None
) -> str | None:
    """Say why no answer keeps the format; None if one does, or if there is none.

    Args:
        attempts: The answers of an evaluation, without those that failed.
        recipe: Names the settings.
        results: Where a server was sent the results, `same_turn` or `user_turn`; None for local
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
    """The first cause that fits most of the answers, with the setting to change."""
    most = recipe.rollout.max_new_tokens
    limit = f"raise rollout.max_new_tokens (now {most})"
    if _most([not a.written.strip() for a in attempts]):
        if results is None:
            return (
                f"the model writes nothing; check its chat template (rsearch preview), or {limit}"
            )
        return (
            "the server sends no text; a thinking model may have used up its tokens unseen: "
            f"{limit}, or start the server without a parser of thoughts"
        )
    if _most([a.tokens >= _NEARLY_ALL * most for a in attempts]):
        return f"answers are cut off at their limit of tokens: {limit}"
    if _most([_ends_open(a.written) for a in attempts]):
        return (
            f"answers end inside a block, as if they were cut off: {limit}, or the server's limit"
        )
    if "search" in broken:
        return f"there is no <search> block; {_advise_protocol(recipe)}"
    if _most([a.has_results for a in attempts]) and "answer" in broken and results:
        other = "same_turn" if results == "user_turn" else "user_turn"
        return (
            f"no answer follows the results of a search; they went to the server as {results}, try "
            f"--set policy.endpoint.results={other}"
        )
    if broken[:1] == ["think"]:
        server = ", or let the server send its thoughts" if results else ""
        return f"there is no <think> block; try --set rollout.open_thought=true{server}"
    rule = f"most break the rule «{CHECKS[broken[0]]}»; " if broken else ""
    return f"{rule}{_advise_protocol(recipe)}"


def _advise_protocol(recipe: Recipe) -> str:
    if recipe.protocol.system_prompt == "":
        return (
            "the recipe tells the model nothing of the protocol: name one that does, such as "
            "--recipe hotpot-offline, or a model that was trained with this one"
        )
    if recipe.protocol.example_turns == 0:
        return "show the model examples: --set protocol.example_turns=2, or train it first"
    return "the model does not know the protocol: train it first, or take a larger one"


def _ends_open(text: str) -> bool:
    """Whether text ends inside a block."""
    tags = list(TAG.finditer(text))
    return bool(tags) and not tags[-1][1]


def _most(holds: Sequence[bool]) -> bool:
    return sum(holds) * 2 > len(holds)
