"""What a training run will send, cost and need on the card; and whether it fits this machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rsearch_cli.errors import DoesNotFit, PolicyError
from rsearch_cli.memory.card import find_vram, query_cards
from rsearch_cli.memory.components import Card
from rsearch_cli.memory.driver import explain_unused_card, torch_sees_gpu
from rsearch_cli.memory.prediction import MemoryPrediction, predict_memory
from rsearch_cli.memory.shape import find_shape
from rsearch_cli.memory.suggestions import Suggestion, suggest_settings
from rsearch_cli.memory.units import GIB
from rsearch_cli.memory.workload import Backend
from rsearch_cli.policy.loading import choose_backend
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.questions.profile import find_profile, is_chosen, read_profile
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.addresses import hide_login, is_loopback
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.training import GOLD_TITLES, TEACHER
from rsearch_cli.search.prices import find_prices
from rsearch_cli.services.cost import Assumptions, Bill, Estimate, estimate_run
from rsearch_cli.timing.lengths import WRITTEN
from rsearch_cli.workflows.estimate_time import PredictedTime, predict_time

logger = logging.getLogger(__name__)

_LABELS = {
    "weights": "weights",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimiser": "optimiser",
    "positions": "table of positions",
    "dequantised": "a dequantised weight",
    "vllm": "vLLM",
    "vllm_server": "vLLM server",
    "kv_cache": "KV cache",
    "prefill": "reading contexts",
    "layer_inputs": "inputs of the layers",
    "forward_and_loss": "forward pass and loss",
    "layer_recomputed": "a layer, recomputed",
    "cuda": "CUDA itself",
    "slack": "slack of the allocator",
}
_SUGGESTED = 3


@dataclass(frozen=True, slots=True)
class PlannedMemory:
    """The memory a run needs, beside the card that is to hold it.

    Attributes:
        plan: The predicted memory, part by part.
        suggestions: Settings that would need less.
        vram_gb: Memory of the card in GB of 2^30 bytes; None if no card is known.
    """

    plan: MemoryPrediction
    suggestions: list[Suggestion]
    vram_gb: float | None

    @property
    def fits(self) -> bool | None:
        """Whether the card is large enough; None without a card."""
        return None if self.vram_gb is None else self.plan.fits(self.vram_gb)

    def as_json(self) -> dict[str, Any]:
        """The prediction, ready for JSON; sizes in GB of 2^30 bytes."""
        plan = self.plan
        engine: dict[str, Any] = {"engine": plan.workload.engine}
        if plan.engine_gb is not None and plan.engine_least_gb is not None:
            engine |= {
                "vllm_needs_gb": round(plan.engine_gb, 2),
                "vllm_needs_at_least_gb": round(plan.engine_least_gb, 2),
            }
        return {
            **engine,
            "fits": self.fits,
            "total_gb": round(plan.total_gb, 2),
            "vram_gb": self.vram_gb,
            "peak": plan.peak,
            "backend": plan.workload.backend,
            "row_tokens": plan.workload.row.total,
            "parts": {
                part.name: {"gb": round(part.size / GIB, 3), "phases": list(part.phases)}
                for part in plan.components
            },
            "knobs": [
                {
                    "set": list(suggestion.settings),
                    "saves_gb": round(suggestion.saves_gb, 2),
                    "total_gb": round(suggestion.total_gb, 2),
                }
                for suggestion in self.suggestions
            ],
        }


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What a training run will send, cost and need.

    Attributes:
        recipe: The run.
        assumptions: What the recipe leaves open.
        prices: Expected price of a search in USD, by source.
        without_cache: Requests and cost if no answer is cached.
        with_cache: The same for a cache that is empty at the start.
        memory: The predicted GPU memory, or why it cannot be predicted.
        time: The predicted time, or why it cannot be predicted.
    """

    recipe: Recipe
    assumptions: Assumptions
    prices: Mapping[str, float]
    without_cache: Estimate
    with_cache: Estimate
    memory: PlannedMemory | str
    time: PredictedTime | str

    def as_json(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        if isinstance(self.memory, str):
            memory = {"fits": None, "total_gb": None, "memory_unknown": self.memory}
        else:
            memory = self.memory.as_json()
        both = {"without_cache": self.without_cache, "with_cache": self.with_cache}
        return {
            **{name: _bill_as_json(estimate.total) for name, estimate in both.items()},
            "cache_mode": self.recipe.cache.mode,
            "max_usd": self.recipe.budget.max_usd,
            "stops": {name: e.stop and asdict(e.stop) for name, e in both.items()},
            "assumptions": asdict(self.assumptions),
            "usd_per_search": dict(self.prices),
            **memory,
            "time": (
                {"hours": None, "time_unknown": self.time}
                if isinstance(self.time, str)
                else self.time.as_json()
            ),
        }


def estimate(
    recipe: Recipe,
    assumptions: Assumptions | None = None,
    vram_gb: float | None = None,
    *,
    card: str | None = None,
    calibrate: Path | None = None,
    written: float = WRITTEN,
) -> RunEstimate:
    """Predict the requests, the cost, the GPU memory and the time of a training run.

    Args:
        recipe: The run.
        assumptions: What the recipe leaves open; None takes the defaults.
        vram_gb: Memory of the card; None takes that of `card`, or asks nvidia-smi.
        card: Name of a card, as in `timing.devices.DEVICES`, or `this`; None takes this machine's.
        calibrate: Folder of a run of the same model on the same device, whose measured seconds
            scale the prediction.
        written: Share of `rollout.max_new_tokens` that a row writes.

    Raises:
        DataError: The recipe evaluates or trains on a whole question set, and that cannot be
            opened; or its file of pass rates cannot be read.
        UsageError: `card` is not known, or `calibrate` is no run, or differs in more than it may.
        RecipeError: A search source is of a kind that does not exist, or has a wrong option.
        PolicyError: `vram_gb` is given, and the memory cannot be predicted.
    """
    assumptions = assumptions or Assumptions()
    recipe = _with_chosen_questions(recipe)
    evaluated = _count_evaluated(recipe)
    traced = _count_traced(recipe)
    prices = find_prices(recipe.search)
    backend = presumed_backend(recipe)
    time = predict_time(recipe, evaluated, assumptions.nodes, written, card, calibrate, backend)
    if vram_gb is None and card and not isinstance(time, str):
        vram_gb = time.device.memory_gb
    return RunEstimate(
        recipe,
        assumptions,
        prices,
        estimate_run(recipe, evaluated, assumptions, "none", prices, traced),
        estimate_run(recipe, evaluated, assumptions, "empty", prices, traced),
        _predict_memory(recipe, vram_gb),
        time,
    )


def _with_chosen_questions(recipe: Recipe) -> Recipe:
    """Return the recipe with as many training questions as `questions.pass_rate` leaves."""
    config = recipe.questions
    if recipe.stage != "grpo" or config.pass_rate is None:
        return recipe
    rates = read_profile(find_profile(config)).rates
    chosen = sum(is_chosen(row.rate, config) for row in rates)
    most = max(1, min(chosen, config.max_samples or chosen))
    return recipe.model_copy(update={"questions": config.model_copy(update={"max_samples": most})})


def plan_for(recipe: Recipe, backend: Backend, vram_gb: float | None) -> PlannedMemory:
    """Predict the memory of a run.

    Raises:
        PolicyError: The model's config is not at hand, or of an architecture that is not supported.
    """
    shape = find_shape(locate_model(recipe.policy.model))
    card = Card(vram_gb, has_server=_server_shares_card(recipe))
    plan = predict_memory(shape, recipe, backend, card=card)
    return PlannedMemory(plan, suggest_settings(shape, recipe, backend, card), vram_gb)


def _server_shares_card(recipe: Recipe) -> bool:
    """Whether a vLLM server takes memory of the card that trains.

    It does if its address is this machine and there is no second card for it.
    """
    url = recipe.rollout.vllm_url
    if recipe.rollout.engine != "vllm-server" or url is None:
        return False
    return is_loopback(urlsplit(url).hostname or "") and len(query_cards("uuid")) < 2


def presumed_backend(recipe: Recipe) -> Backend:
    """The back end of a run on CUDA, where `auto` means Unsloth."""
    return "unsloth" if recipe.policy.backend == "auto" else recipe.policy.backend


def memory_lines(planned: PlannedMemory) -> list[str]:
    """One line of text for each part; the comments of the shipped recipes contain them too."""
    plan = planned.plan
    lines = [
        f"{_LABELS[part.name]:<24}{part.size / GIB:6.2f}  {' and '.join(part.phases)}"
        for part in plan.components
    ]
    verdict = ""
    if planned.vram_gb is not None:
        fits = f"; fits in {planned.vram_gb:g} GB"
        too_large = f"; does not fit in {planned.vram_gb:g} GB"
        verdict = fits if planned.fits else too_large
        if plan.lacks_share(planned.vram_gb):
            verdict = "; vLLM's share is too small"
    return [*lines, f"{'GB at the peak':<24}{plan.total_gb:6.2f}  in {plan.peak}{verdict}"]


def engine_lines(planned: PlannedMemory, recipe: Recipe) -> list[str]:
    """What vLLM needs, on this card or another; [] where the training model generates."""
    plan, rollout = planned.plan, recipe.rollout
    if plan.engine_gb is None or plan.engine_least_gb is None:
        return []
    needs = (
        f"{plan.engine_gb:.2f} GB to generate {plan.workload.rollout_rows} rows at once, and "
        f"{plan.engine_least_gb:.2f} GB for one"
    )
    if plan.workload.engine == "vllm":
        share = "rollout.vllm_memory_share"
        return [
            f"vLLM takes {rollout.vllm_memory_share:.0%} of the card ({share}), weights included, "
            "while",
            f"the run lasts. It needs {needs}.",
        ]
    where = "is counted above" if plan.size_gb("vllm_server") else "runs on another card"
    return [
        f"The vLLM server at {hide_login(rollout.vllm_url or '')} {where}, with the base model in "
        "16 bit.",
        f"It needs {needs}.",
    ]


def check_memory(recipe: Recipe, *, force: bool) -> None:
    """Refuse a run that does not fit this machine's card; without a card, accept it.

    Raises:
        DoesNotFit: The card is too small, and `force` is not given.
        PolicyError: The model's folder does not exist, or the back end cannot run here.
    """
    _require_gpu(recipe, force=force)
    vram_gb = find_vram()
    if vram_gb is None:
        return
    locate_model(recipe.policy.model)
    unsloth = choose_backend(recipe.policy.backend)[0] == "unsloth"
    backend: Backend = "unsloth" if unsloth else "transformers"
    try:
        planned = plan_for(recipe, backend, vram_gb)
    except PolicyError as unknown:
        logger.warning(f"the memory of this run cannot be predicted: {unknown}")
        return
    if planned.fits:
        return
    message = _refusal(planned)
    if not force:
        raise DoesNotFit(f"{message}; --force starts it anyway")
    logger.warning(f"started because of --force: {message}")


def _require_gpu(recipe: Recipe, *, force: bool) -> None:
    """Refuse to train on the CPU what is meant for a GPU: it would take weeks in 32 bits.

    Raises:
        DoesNotFit: Torch cannot use the card, or the recipe asks for 4-bit weights and there is no
            GPU; and `force` is not given.
    """
    unused = explain_unused_card()
    problem = str(unused) if unused else None
    if problem is None and recipe.policy.load_in_4bit and not torch_sees_gpu():
        problem = (
            f"the recipe trains {recipe.policy.model} in 4 bits, which needs a GPU, and torch "
            "finds none; `rsearch doctor` shows why"
        )
    if problem is None:
        return
    if not force:
        raise DoesNotFit(f"{problem}; --force trains on the CPU")
    logger.warning(f"training on the CPU because of --force: {problem}")


def _refusal(planned: PlannedMemory) -> str:
    """What does not fit, and the settings that save most, those that suffice first."""
    vram_gb = planned.vram_gb or 0.0
    if planned.plan.lacks_share(vram_gb):
        share = planned.plan.workload.vllm_share
        return (
            f"vLLM may take {share * vram_gb:.1f} GB (rollout.vllm_memory_share={share:g}) and is "
            f"predicted to need {planned.plan.engine_least_gb:.1f} GB; raise the share, or use "
            "--set rollout.engine=local"
        )
    suggested = sorted(planned.suggestions, key=lambda suggestion: suggestion.total_gb > vram_gb)[
        :_SUGGESTED
    ]
    hints = ", ".join(f"{suggestion} ({suggestion.total_gb:.1f} GB)" for suggestion in suggested)
    plan = planned.plan
    return (
        f"the run is predicted to need {plan.total_gb:.1f} GB in its {plan.peak}, and the card has "
        f"{vram_gb:.1f} GB; try {hints or 'a smaller model'}"
    )


def _predict_memory(recipe: Recipe, vram_gb: float | None) -> PlannedMemory | str:
    backend = presumed_backend(recipe)
    try:
        return plan_for(recipe, backend, find_vram() if vram_gb is None else vram_gb)
    except PolicyError as unknown:
        if vram_gb is not None:
            raise
        return str(unknown)


def _count_evaluated(recipe: Recipe) -> int:
    """Questions of one evaluation; the set is opened only if the recipe sets no limit."""
    if recipe.evaluate.limit is not None:
        return recipe.evaluate.limit
    return len(open_question_set(recipe.questions, recipe.seed).load(recipe.evaluate.split, None))


def _count_traced(recipe: Recipe) -> int:
    """Questions that traces are searched for; the set is opened only if the recipe sets no limit.

    Those of the world are searched for locally, whatever the recipe searches.
    """
    if recipe.stage != "sft" or recipe.sft.traces not in (TEACHER, GOLD_TITLES):
        return 0
    if recipe.questions.max_samples is not None:
        return recipe.questions.max_samples
    question_set = open_question_set(recipe.questions, recipe.seed)
    return len(question_set.load(recipe.questions.train_split, None))


def _bill_as_json(bill: Bill) -> dict[str, Any]:
    figures = {**asdict(bill), "usd": bill.usd}
    return {k: round(v, 4) if k.startswith("usd") else round(v) for k, v in figures.items()}
