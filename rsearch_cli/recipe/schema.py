"""The recipe: every setting of a run, typed, bounded and documented.

Each module receives its own section. Fields document unit and range; the defaults are those of the
7B run.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from rsearch_cli.recipe.addresses import refuse_logins
from rsearch_cli.recipe.alarms import AlarmsConfig
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.dialogue import DialogueConfig
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
    """The generated world of `questions.source: world`."""

    seed: int = Field(7, ge=0)
    """Seed of the names and facts of the world."""
    train_regions: int = Field(60, ge=1, le=2000)
    """Regions with training questions; sets the size of the training set."""
    held_out_regions: int = Field(20, ge=1, le=2000)
    """Regions each for validation and test; no training question mentions them."""


class QuestionsConfig(BaseConfig):
    """The question set: questions, reference answers and the corpus that comes with them."""

    source: str = "hotpotqa"
    """Question set: world, custom, hotpotqa, hotpotqa:fullwiki or flashrag:NAME."""
    path: str | None = None
    """File of questions (JSONL, JSON, CSV, parquet and others), or a folder for flashrag; null
    downloads hotpotqa and flashrag from the Hub. Required for custom."""
    difficulty: list[Literal["easy", "medium", "hard"]] | None = Field(None, min_length=1)
    """Difficulty levels to keep; null keeps all."""
    train_split: str = "train"
    """Split to train on."""
    max_samples: int | None = Field(1000, ge=1)
    """Maximum number of training questions; null takes all."""
    held_out_share: float = Field(0.2, gt=0.0, lt=1.0)
    """Share of a set without splits that is held out for evaluation."""
    held_out_by: Literal["question", "titles"] = "question"
    """What is held out: single questions, or groups of questions that share a supporting title, so
    that no such title is in both splits."""
    profile: str | None = None
    """File of pass rates, written by `rsearch data --profile`; read by pass_rate and order."""
    pass_rate: list[float] | None = None
    """Lowest and highest pass rate of the questions that GRPO trains on, such as [0.1, 0.9]; null
    takes all questions."""
    order: Literal["shuffled", "easy_to_hard"] = "shuffled"
    """Order of the training questions in each pass over them: shuffled, or by falling pass rate."""
    world: WorldConfig = WorldConfig()
    """The generated world; only used by source world."""

    @field_validator("pass_rate")
    @classmethod
    def _is_a_range(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and (len(value) != 2 or not 0 <= value[0] <= value[1] <= 1):
            raise ValueError(
                f"it must be [low, high] with 0 <= low <= high <= 1, or null, got {value}"
            )
        return value

    @model_validator(mode="after")
    def _profile_is_known(self) -> Self:
        if self.uses_profile and self.profile is None:
            raise ValueError(
                "pass_rate and order easy_to_hard need profile, a file of pass rates; write it "
                "with: rsearch data --profile MODEL --output FILE"
            )
        return self

    @property
    def uses_profile(self) -> bool:
        """Whether the training questions are chosen or ordered by their pass rates."""
        return self.pass_rate is not None or self.order != "shuffled"


class ProtocolConfig(BaseConfig):
    """The tags and the plan grammar that the policy must follow."""

    sources: dict[str, str] = Field(
        {
            "General": "encyclopedic facts and the open web",
            "News": "recent events and reports",
            "Academy": "research, scholars and institutions",
        },
        min_length=1,
    )
    """Source name to its description in the system prompt."""
    max_nodes: int = Field(8, ge=1, le=64)
    """Maximum nodes in one plan."""
    max_query_words: int = Field(10, ge=1, le=64)
    """Maximum words in one query; in scripts without spaces between words, three characters count
    as one word, six in Thai, Lao, Burmese and Khmer."""
    result_tag: Literal["result", "r"] = "result"
    """Tag written around results; both are read."""
    example_turns: int = Field(0, ge=0, le=3)
    """Worked examples given as earlier turns; 0 puts one into the system prompt, as does a chat
    template that does not support them (see docs/prompts.md)."""
    system_prompt: str | None = None
    """Replaces the built-in system prompt; '' omits the system message."""


class SourceConfig(BaseConfig):
    """One place to search."""

    type: str = "bm25"
    """Type of source (see docs/search.md)."""
    corpus: str = "questions"
    """File of passages, or a folder written by `rsearch index`; `questions` is the corpus that
    comes with the question set."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of this type of source, which validates them."""
    cache_days: float | None = Field(None, gt=0.0)
    """Days that an answer stays in the cache; null uses the default of the type."""
    usd_per_search: float | None = Field(None, ge=0.0, le=10.0)
    """Expected price of one request to this source, in USD; null uses search.usd_per_search."""


class SearchConfig(BaseConfig):
    """How search plans are executed."""

    sources: dict[str, SourceConfig] = Field(
        default_factory=lambda: {n: SourceConfig() for n in ("General", "News", "Academy")},
        min_length=1,
    )
    """Source name, as written in plans, to what it searches."""
    top_k: int = Field(3, ge=1, le=50)
    """Passages per node."""
    passage_chars: int = Field(500, ge=40, le=20000)
    """Maximum length of a passage in the result block, in characters."""
    expand_dependents: Literal["linked", "entities", "titles", "none"] = "linked"
    """What is added to a node's query from its parents' best passages: `entities` their names,
    `titles` their titles, `none` nothing. `linked` adds the names of the passage that the parent's
    query is about, and ranks passages titled by one of them first."""
    expand_from_top: int = Field(1, ge=1, le=10)
    """Number of best passages of each parent used for that."""
    own_words_weight: int = Field(3, ge=1, le=20)
    """Weight of a node's own words relative to the added ones."""
    usd_per_search: float | None = Field(None, ge=0.0, le=10.0)
    """Expected price of one request to a paid source, in USD; null uses the list price of each type
    of source. What a source reports as charged is what counts."""
    service: ServiceConfig = ServiceConfig()
    """Limits of calls to each search service; those that its own rules set still apply."""
    read_top: int = Field(0, ge=0, le=50)
    """Number of best hits of a node whose page is read if their text is shorter than passage_chars;
    0 reads none (see docs/search.md)."""
    read_private_addresses: bool = False
    """Also read pages at private and local addresses, and at any port."""
    read_service: ServiceConfig = ServiceConfig(
        concurrency=16,
        timeout_seconds=15.0,
        retries=1,
        max_backoff_seconds=5.0,
        breaker_failures=50,
    )
    """Limits of requests for pages."""


class EvaluateConfig(BaseConfig):
    """The evaluations before and after training, and on a slice of other questions during it."""

    split: str = "validation"
    """Split to evaluate on."""
    limit: int | None = Field(200, ge=1)
    """Maximum number of questions to evaluate; null takes all."""
    sampled: bool = True
    """Also sample one answer per question at rollout.temperature."""
    show_trajectories: int = Field(3, ge=0, le=50)
    """Trajectories printed before and after."""
    every_steps: int | None = Field(None, ge=1)
    """Steps between evaluations on the slice, from step 0 on; the best adapter by F1 is kept. null
    disables them."""
    slice: int = Field(50, ge=1)
    """Size of the slice; it excludes the questions of the final evaluation."""
    slice_split: str = "validation"
    """Split from which the slice is taken."""


class Recipe(BaseConfig):
    """All settings of a run."""

    purpose: str
    """Purpose of the recipe, in one line."""
    hardware: str
    """Hardware it needs, in one line."""
    needs: str = "nothing"
    """Keys, data and network access it needs, in one line."""
    stage: Literal["grpo", "sft"] = "grpo"
    """Reinforcement learning (grpo) or a supervised cold start (sft)."""
    seed: int = Field(42, ge=0, le=2**31 - 1)
    """Seed of sampling, data order and adapter weights."""
    output_dir: str = "runs/{recipe}"
    """Run folder; {recipe} is replaced by the name of the recipe."""
    policy: PolicyConfig = PolicyConfig()
    """The model."""
    questions: QuestionsConfig = QuestionsConfig()
    """The questions."""
    protocol: ProtocolConfig = ProtocolConfig()
    """Tags and plan grammar."""
    search: SearchConfig = SearchConfig()
    """Sources and plan execution."""
    rollout: RolloutConfig = RolloutConfig()
    """Generation."""
    dialogue: DialogueConfig = DialogueConfig()
    """Follow-up questions and long answers."""
    reward: RewardConfig = RewardConfig()
    """Reward."""
    train: TrainConfig = TrainConfig()
    """GRPO."""
    sft: SftConfig = SftConfig()
    """Supervised cold start."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Evaluation."""
    alarms: AlarmsConfig = AlarmsConfig()
    """Alarms during training."""
    wandb: WandbConfig = WandbConfig()
    """Weights & Biases."""
    budget: BudgetConfig = BudgetConfig()
    """Spending and failures."""
    cache: CacheConfig = CacheConfig()
    """Cache of service answers."""
    hub: HubConfig = HubConfig()
    """Publishing."""

    @model_validator(mode="after")
    def _sources_match(self) -> Self:
        if set(self.protocol.sources) != set(self.search.sources):
            raise ValueError(
                f"protocol.sources names {sorted(self.protocol.sources)} and search.sources "
                f"{sorted(self.search.sources)}; both must name the same sources: "
                "protocol.sources describes each to the model"
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
