"""The recipe: every setting of a run, typed, bounded and documented.

Place in the path: right above `errors` and `types`; every later module takes its own section and
nothing else. On failure: pydantic reports all problems; `recipe.loading` turns them into a
`RecipeError`. Every field documents its unit and range; the defaults are those of the 7B run.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from rsearch_cli.recipe.addresses import refuse_logins
from rsearch_cli.recipe.alarms import AlarmsConfig
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.policy import PolicyConfig, RolloutConfig
from rsearch_cli.recipe.services import (
    BudgetConfig,
    CacheConfig,
    HubConfig,
    ServiceConfig,
    WandbConfig,
)
from rsearch_cli.recipe.training import RewardConfig, SftConfig, TrainConfig


class WorldConfig(BaseConfig):
    """The fictional universe of `questions.source: world`."""

    seed: int = Field(7, ge=0, description="Seed of names and facts; another seed, another world.")
    train_regions: int = Field(
        60,
        ge=1,
        le=2000,
        description="Regions that training questions are about; the size of the training set.",
    )
    held_out_regions: int = Field(
        20,
        ge=1,
        le=2000,
        description="Regions of validation and of test; no training question names their entities.",
    )


class QuestionsConfig(BaseConfig):
    """Where questions, reference answers and the corpus that comes with them are taken from."""

    source: str = Field(
        "hotpotqa",
        description="`world`, `custom`, `hotpotqa` (or `hotpotqa:fullwiki`), or `flashrag:NAME`, "
        "such as flashrag:nq (see `rsearch_cli/questions`).",
    )
    path: str | None = Field(
        None,
        description="File of questions (JSONL, JSON, CSV, parquet, ...), for flashrag a folder "
        "too; null takes the Hub set for hotpotqa and flashrag. Required for custom.",
    )
    difficulty: list[Literal["easy", "medium", "hard"]] | None = Field(
        None, min_length=1, description="Levels to keep; null keeps all."
    )
    train_split: str = Field("train", description="Split to train on.")
    max_samples: int | None = Field(
        1000, ge=1, description="Most questions to train on; null takes all."
    )
    held_out_share: float = Field(
        0.2,
        gt=0.0,
        lt=1.0,
        description="Share of a set without splits of its own that is kept for evaluation.",
    )
    world: WorldConfig = Field(
        default_factory=WorldConfig, description="Only read by source `world`."
    )


class ProtocolConfig(BaseConfig):
    """The tags and the plan grammar that the policy has to keep."""

    sources: dict[str, str] = Field(
        {
            "General": "encyclopedic facts and the open web",
            "News": "recent events and reports",
            "Academy": "research, scholars and institutions",
        },
        min_length=1,
        description="Source name to what it is good for, as the system prompt tells the model.",
    )
    max_nodes: int = Field(8, ge=1, le=64, description="Most nodes in one plan.")
    max_query_words: int = Field(
        10,
        ge=1,
        le=64,
        description="Most words in one query; in scripts without blanks between words, three "
        "letters count as one, six in Thai, Lao, Burmese and Khmer.",
    )
    result_tag: Literal["result", "r"] = Field(
        "result", description="Tag that is written around results; both are read."
    )
    example_turns: int = Field(
        0,
        ge=0,
        le=3,
        description="Worked examples told as earlier turns; 0 tells one in the system prompt, as "
        "happens with a chat template that cannot hold them (see docs/prompts.md).",
    )
    system_prompt: str | None = Field(
        None,
        description="Replaces the built-in system prompt; '' leaves the system message out.",
    )


class SourceConfig(BaseConfig):
    """One place to search."""

    type: str = Field("bm25", description="Kind of source (see `rsearch_cli/search/sources.py`).")
    corpus: str = Field(
        "questions",
        description="File of passages, or a folder that `rsearch index` made; `questions` is "
        "the corpus that comes with the set.",
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Settings of this kind of source; each checks its own."
    )
    cache_days: float | None = Field(
        None, gt=0.0, description="Days an answer is used again; null leaves it to the kind."
    )


class SearchConfig(BaseConfig):
    """How a plan is carried out."""

    sources: dict[str, SourceConfig] = Field(
        default_factory=lambda: {n: SourceConfig() for n in ("General", "News", "Academy")},
        min_length=1,
        description="Source name, as the plan writes it, to where it searches.",
    )
    top_k: int = Field(3, ge=1, le=50, description="Passages a node gets.")
    passage_chars: int = Field(
        500, ge=40, le=20000, description="Longest passage in the result block, in characters."
    )
    expand_dependents: Literal["entities", "titles", "none"] = Field(
        "entities", description="What a node's query takes from its parents' best passages."
    )
    expand_from_top: int = Field(
        1, ge=1, le=10, description="Best passages of each parent that an expansion reads."
    )
    own_words_weight: int = Field(
        3, ge=1, le=20, description="How much more a node's own words weigh than its expansion."
    )
    # Exa: 7 USD for 1,000 searches of up to 10 pages with their text, since 2026-03-03
    # (https://exa.ai/docs/admin/pricing, read on 2026-11-26).
    usd_per_search: float = Field(
        0.007,
        ge=0.0,
        le=10.0,
        description="Expected price of one request to a paid source, in USD; what the source says "
        "that it charged is what counts.",
    )
    service: ServiceConfig = Field(
        default_factory=ServiceConfig, description="Calls to each outside service that is searched."
    )


class EvaluateConfig(BaseConfig):
    """The evaluations before, after and, on a slice of other questions, during training."""

    split: str = Field("validation", description="Split to evaluate on.")
    limit: int | None = Field(200, ge=1, description="Most questions to evaluate; null takes all.")
    sampled: bool = Field(
        True, description="Besides greedy decoding, sample one answer at rollout.temperature."
    )
    show_trajectories: int = Field(
        3, ge=0, le=50, description="Trajectories printed before and after."
    )
    every_steps: int | None = Field(
        None,
        ge=1,
        description="Steps between evaluations on the slice, from step 0; the best adapter by "
        "F1 is kept. null: none.",
    )
    slice: int = Field(
        50, ge=1, description="Questions of the slice: none that are evaluated at the end."
    )
    slice_split: str = Field("validation", description="Split that the slice is taken from.")


class Recipe(BaseConfig):
    """A whole run."""

    purpose: str = Field(description="What the recipe is for, in one line.")
    hardware: str = Field(description="What it needs to run on, in one line.")
    needs: str = Field("nothing", description="Keys, data and access it needs, in one line.")
    stage: Literal["grpo", "sft"] = Field(
        "grpo", description="Reinforcement learning, or a supervised cold start on traces."
    )
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Seed of sampling, order and adapters.")
    output_dir: str = Field(
        "runs/{recipe}", description="Run folder; {recipe} is the recipe's name."
    )
    policy: PolicyConfig = Field(default_factory=PolicyConfig, description="The model.")
    questions: QuestionsConfig = Field(
        default_factory=QuestionsConfig, description="The questions."
    )
    protocol: ProtocolConfig = Field(
        default_factory=ProtocolConfig, description="Tags and plan grammar."
    )
    search: SearchConfig = Field(
        default_factory=SearchConfig, description="Sources and plan execution."
    )
    rollout: RolloutConfig = Field(default_factory=RolloutConfig, description="Generation.")
    reward: RewardConfig = Field(default_factory=RewardConfig, description="Reward.")
    train: TrainConfig = Field(default_factory=TrainConfig, description="GRPO.")
    sft: SftConfig = Field(default_factory=SftConfig, description="Supervised cold start.")
    evaluate: EvaluateConfig = Field(
        default_factory=EvaluateConfig, description="Before, after, meanwhile."
    )
    alarms: AlarmsConfig = Field(default_factory=AlarmsConfig, description="Signs of a collapse.")
    wandb: WandbConfig = Field(default_factory=WandbConfig, description="Weights & Biases.")
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="Money and failures.")
    cache: CacheConfig = Field(default_factory=CacheConfig, description="Kept answers.")
    hub: HubConfig = Field(default_factory=HubConfig, description="Publishing.")

    @model_validator(mode="after")
    def _sources_match(self) -> Self:
        if set(self.protocol.sources) != set(self.search.sources):
            raise ValueError(
                f"protocol.sources names {sorted(self.protocol.sources)} and search.sources "
                f"{sorted(self.search.sources)}; both must name the same sources"
            )
        return self

    @model_validator(mode="after")
    def _no_login_is_stored(self) -> Self:
        refuse_logins(self.model_dump())
        return self

    @model_validator(mode="after")
    def _best_is_known(self) -> Self:
        if self.train.keep == "best" and self.evaluate.every_steps is None:
            raise ValueError("train.keep best needs evaluate.every_steps, to know which is best")
        return self
