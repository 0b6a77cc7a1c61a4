"""The sections of a recipe about learning: rewards, GRPO, and the supervised cold start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from rsearch_cli.recipe.addresses import Address
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.policy import EndpointConfig
from rsearch_cli.recipe.services import JudgeConfig

WORLD = "world"
"""`sft.traces` for traces of the fictional world."""
GOLD_TITLES = "gold_titles"
"""`sft.traces` for traces with plans from the supporting titles of the training questions."""
TEACHER = "teacher"
"""`sft.traces` for traces that the model in `sft.teacher` writes."""
PENALTIES = frozenset({"length", "no_answer"})
"""Parts of `reward.extra` whose scores are from -1 to 0."""


class WeightsConfig(BaseConfig):
    """Weights of the parts of the reward; they must sum to 1."""

    answer: float = Field(ge=0.0, le=1.0)
    """Weight of the answer score."""
    plan: float = Field(ge=0.0, le=1.0)
    """Weight of plan validity."""
    format: float = Field(ge=0.0, le=1.0)
    """Weight of format validity."""

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.answer + self.plan + self.format
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"answer, plan and format must sum to 1, they sum to {total:g}")
        return self


class RewardConfig(BaseConfig):
    """The reward of a trajectory."""

    weights: WeightsConfig = WeightsConfig(answer=0.5, plan=0.25, format=0.25)
    """Weights after the curriculum."""
    curriculum_weights: WeightsConfig = WeightsConfig(answer=0.2, plan=0.4, format=0.4)
    """Weights during the curriculum."""
    curriculum_steps: int = Field(30, ge=0)
    """Optimiser steps that use curriculum_weights."""
    answer: Literal["f1", "em", "judge"] = "f1"
    """Score of the answer: token F1, exact match, or the verdict of a model."""
    normalisation: Literal["squad", "cjk"] = "squad"
    """Text normalisation of answers in reward and evaluation: SQuAD's, or one that compares
    Chinese, Japanese, Korean, Thai and similar scripts by characters."""
    judge: JudgeConfig = JudgeConfig()
    """The judge; only used if answer is judge."""
    extra: dict[str, Annotated[float, Field(le=1.0)]] = Field(default_factory=dict)
    """Weights from 0 to 1 of further parts by name, such as {retrieval: 0.2, no_answer: 0.1}. Each
    adds weight x score to the reward; ours are economy, length, no_answer and retrieval."""
    normalise_parts: bool = False
    """Normalise each part within its group before weighting it (GDPO, arXiv 2601.05242; its second
    step is train.scale_rewards: batch)."""
    require_valid_plan: bool = True
    """Give no answer reward to a trajectory with an invalid plan."""
    shuffle_answers: bool = False
    """Control experiment: shuffle the answer scores within each step."""

    @field_validator("extra")
    @classmethod
    def _no_negative_weights(cls, extra: dict[str, float]) -> dict[str, float]:
        for name, weight in extra.items():
            if weight < 0.0:
                raise ValueError(
                    f"the weight of {name} must be at least 0, not {weight:g}; penalties have "
                    "negative scores, and count against a completion with a positive weight"
                )
        return extra

    @property
    def rewards_answers(self) -> bool:
        """Whether the answer has a weight in any step; else only the searches are trained."""
        return bool(
            self.weights.answer or (self.curriculum_steps and self.curriculum_weights.answer)
        )


def highest_reward(extra: Mapping[str, float]) -> float:
    """Return the highest reward that a completion can have.

    Answer, plan and format reach 1 together, in the curriculum and after it. A further part adds
    its weight, and a penalty nothing; parts of other packages count as no penalties.

    Args:
        extra: The weights in `reward.extra` of the parts that apply.
    """
    return 1.0 + sum(weight for name, weight in extra.items() if name not in PENALTIES)


class TrainConfig(BaseConfig):
    """GRPO and the optimiser."""

    max_steps: int = Field(100, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(1, ge=1)
    """Completions per device and forward pass."""
    gradient_accumulation_steps: int = Field(4, ge=1)
    """Forward passes per optimiser step."""
    num_generations: int = Field(4, ge=2)
    """Completions per question; their mean reward is the baseline."""
    resample_ties: int = Field(0, ge=0, le=16)
    """Times that the groups of a step whose rewards are all equal may be replaced by groups of
    other questions (dynamic sampling, DAPO); each time may cost another step's rollouts; 0 is
    off."""
    learning_rate: float = Field(5e-6, gt=0.0, le=1.0)
    """Peak learning rate of AdamW."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "cosine"
    """Schedule of the learning rate after the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Maximum norm of the gradients, which are clipped to it."""
    beta: float = Field(0.0, ge=0.0, le=10.0)
    """Weight of the KL term; 0 also saves its forward pass."""
    epsilon: float = Field(0.2, gt=0.0, lt=1.0)
    """Lower clip of the policy ratio."""
    epsilon_high: float = Field(0.28, gt=0.0, le=10.0)
    """Upper clip of the policy ratio (clip-higher, DAPO)."""
    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo"] = "dapo"
    """How token losses are averaged, by TRL's names."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Standard deviation by which advantages are divided."""
    mask_truncated: bool = False
    """Exclude completions that reached the token limit from the loss."""
    save_steps: int = Field(50, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(2, ge=1)
    """Number of checkpoints to keep; older ones are deleted."""
    keep: Literal["last", "best"] = "last"
    """Adapter to keep: the last one, or the best on evaluate.slice."""

    @model_validator(mode="after")
    def _no_deviation_with_dr_grpo(self) -> Self:
        if self.loss_type == "dr_grpo" and self.scale_rewards == "group":
            raise ValueError(
                "loss_type dr_grpo is defined without division by the deviation of a group, and "
                "Unsloth silently skips it; set scale_rewards to none"
            )
        return self

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        rows = self.batch_size * self.gradient_accumulation_steps
        if rows % self.num_generations:
            raise ValueError(
                f"batch_size x gradient_accumulation_steps = {rows} must be a multiple of "
                f"num_generations = {self.num_generations}, so that no group is split"
            )
        return self


class TeacherConfig(EndpointConfig):
    """A stronger model on a server, which writes the traces if `sft.traces` is teacher.

    It answers training questions with real searches; only right answers with valid plans are kept.
    """

    url: Address | None = None
    """Server of a stronger model that writes the traces. It speaks OpenAI's chat API; the key is
    read from OPENAI_API_KEY."""
    model: str | None = None
    """Name of that model on the server."""
    samples: int = Field(1, ge=1, le=64)
    """Maximum answers sampled to a question, at rollout.temperature; it is asked again only while
    it has fewer than sft.per_question traces."""
    cache_days: float = Field(30.0, ge=0.0)
    """Days that a reply stays in the cache, so that no run pays for it again; 0 does not cache."""


class SftConfig(BaseConfig):
    """The supervised cold start, `stage: sft`; other settings of the optimiser are in `train`."""

    traces: str = WORLD
    """world for traces of the fictional world; gold_titles for plans written from the supporting
    titles of the training questions; teacher for those of the model in sft.teacher; or a JSONL file
    of predictions or trajectories to choose from."""
    teacher: TeacherConfig = TeacherConfig()
    """The model that writes the traces if traces is teacher."""
    max_traces: int | None = Field(2000, ge=1)
    """Maximum number of traces; null takes all."""
    per_question: int = Field(1, ge=1)
    """Maximum traces per question from a file or a teacher."""
    min_f1: float = Field(0.8, ge=0.0, le=1.0)
    """Minimum F1 of an answer from a file or a teacher; exact matches always count."""
    epochs: int = Field(2, ge=1)
    """Passes over the traces."""
    max_steps: int | None = Field(None, ge=1)
    """Maximum optimiser steps; null runs all epochs."""
    learning_rate: float = Field(2e-4, gt=0.0, le=1.0)
    """Peak learning rate of AdamW."""
    batch_size: int = Field(1, ge=1)
    """Traces per forward pass and device."""
    gradient_accumulation_steps: int = Field(16, ge=1)
    """Forward passes per optimiser step."""

    @model_validator(mode="after")
    def _teacher_is_named(self) -> Self:
        if self.traces == TEACHER and not (self.teacher.url and self.teacher.model):
            raise ValueError(
                "traces is teacher, which needs teacher.url and teacher.model, as in --teacher "
                "http://localhost:8000/v1 --teacher-model NAME"
            )
        return self
