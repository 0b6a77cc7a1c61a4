"""The sections of a recipe that are about the outside world: services, judge, money, cache, Hub.

Place in the path: a part of the schema, read by `services`, the judge and `publish`. On failure: as
in `section`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rsearch_cli.recipe.addresses import Address
from rsearch_cli.recipe.base import BaseConfig


class ServiceConfig(BaseConfig):
    """How one outside service is called: how fast, how long and how often."""

    concurrency: int = Field(32, ge=1, le=1024, description="Most calls under way at once.")
    requests_per_second: float = Field(
        10.0, gt=0.0, le=10000.0, description="Most calls that start within a second, on average."
    )
    timeout_seconds: float = Field(
        30.0, gt=0.0, le=3600.0, description="Longest that one attempt may take, in seconds."
    )
    retries: int = Field(5, ge=0, le=20, description="Further attempts after one that failed.")
    max_backoff_seconds: float = Field(
        30.0,
        ge=0.0,
        le=3600.0,
        description="Longest wait before a further attempt, unless the service asks for more.",
    )
    breaker_failures: int = Field(
        10, ge=1, le=10000, description="Failed attempts in a row after which all calls pause."
    )
    breaker_pause_seconds: float = Field(
        30.0, gt=0.0, le=3600.0, description="How long they pause before one call is tried."
    )


class JudgeConfig(BaseConfig):
    """The model that scores answers where `reward.answer` is `judge`."""

    model: str = Field("gpt-4o-mini", description="Name of the model, as its server knows it.")
    base_url: Address | None = Field(
        None,
        description="OpenAI-compatible server; null takes OPENAI_BASE_URL, which may hold a "
        "password, or else OpenAI's own. Its key is taken from OPENAI_API_KEY.",
    )
    mode: Literal["continuous", "discrete", "multi"] = Field(
        "continuous",
        description="From 0 to 1; correct, partial or wrong; or micro-F1 over several choices.",
    )
    skip_exact_match: bool = Field(
        True, description="Score an answer that equals a reference 1 without a call."
    )
    max_output_tokens: int = Field(64, ge=1, le=8192, description="Longest verdict, in tokens.")
    # gpt-4o-mini: https://developers.openai.com/api/docs/pricing, checked on 2026-11-26.
    usd_per_million_input_tokens: float = Field(
        0.15, ge=0.0, description="Price of a million tokens that are sent, in USD."
    )
    usd_per_million_output_tokens: float = Field(
        0.60, ge=0.0, description="Price of a million tokens that come back, in USD."
    )
    service: ServiceConfig = Field(default_factory=ServiceConfig, description="Calls to the judge.")


class BudgetConfig(BaseConfig):
    """What a run may spend, and how many failures it may meet."""

    max_usd: float | None = Field(
        None, ge=0.0, description="No call is sent that could pass this many USD; null: no limit."
    )
    max_failed_share: float = Field(
        0.2,
        ge=0.0,
        le=1.0,
        description="Share of a step's searches or verdicts that may fail; over it the run stops.",
    )


class WandbConfig(BaseConfig):
    """Weights & Biases; the key is that of WANDB_API_KEY, or the one that `wandb login` stored."""

    enabled: bool = Field(False, description="Whether the run is tracked there.")
    project: str = Field("r-search-training", min_length=1, description="Project of the run.")
    run_name: str | None = Field(None, description="Name of the run; null lets W&B choose one.")
    mode: Literal["online", "offline"] = Field(
        "online", description="Send while training, or only keep in the run folder."
    )
    timeout_seconds: float = Field(
        30.0,
        gt=0.0,
        le=3600.0,
        description="Longest wait for W&B at the start, and again at the end, in seconds.",
    )
    table_every_steps: int = Field(10, ge=1, description="Steps between tables of trajectories.")
    table_rows: int = Field(4, ge=0, le=64, description="Trajectories in each; 0 sends none.")


class CacheConfig(BaseConfig):
    """How the answers that are kept on disk are used."""

    mode: Literal["read-write", "refresh", "offline"] = Field(
        "read-write",
        description="Take and keep answers; ask anew and keep; or take only, and send nothing.",
    )


class HubConfig(BaseConfig):
    """What is published on the Hugging Face Hub when training is done."""

    push: bool = Field(False, description="Push the adapter at the end of the run.")
    model_id: str | None = Field(
        None, description="Repository to push to, as in user/name; it is made if it is not there."
    )
    private: bool = Field(False, description="Only its owner can see the repository.")
    base_model: str | None = Field(
        None, description="Hub id of the base, where policy.model is a folder; strangers load it."
    )

    @model_validator(mode="after")
    def _somewhere_to_push(self) -> Self:
        if self.push and self.model_id is None:
            raise ValueError("push needs model_id, as in user/name")
        return self
