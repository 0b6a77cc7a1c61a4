"""The sections of a recipe about services: calls, judge, budget, cache, tracking and the Hub."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rsearch_cli.recipe.addresses import Address
from rsearch_cli.recipe.base import BaseConfig


class ServiceConfig(BaseConfig):
    """Limits of calls to one service: rate, time and retries."""

    concurrency: int = Field(32, ge=1, le=1024)
    """Maximum calls in flight."""
    requests_per_second: float = Field(10.0, gt=0.0, le=10000.0)
    """Maximum calls started per second, on average."""
    timeout_seconds: float = Field(30.0, gt=0.0, le=3600.0)
    """Timeout of one attempt, in seconds."""
    retries: int = Field(5, ge=0, le=20)
    """Attempts after the first one failed."""
    max_backoff_seconds: float = Field(30.0, ge=0.0, le=3600.0)
    """Longest wait before a retry, in seconds, unless the service asks for more."""
    breaker_failures: int = Field(10, ge=1, le=10000)
    """Consecutive failures after which all calls pause."""
    breaker_pause_seconds: float = Field(30.0, gt=0.0, le=3600.0)
    """Length of that pause, in seconds; then one call is tried."""


class JudgeConfig(BaseConfig):
    """The model that scores answers if `reward.answer` is `judge`."""

    model: str = "gpt-4o-mini"
    """Model that judges the answers."""
    base_url: Address | None = None
    """OpenAI-compatible server; null uses OPENAI_BASE_URL, which may contain a password, else
    OpenAI. The key is read from OPENAI_API_KEY."""
    mode: Literal["continuous", "discrete", "multi"] = "continuous"
    """Verdict: a score from 0 to 1 (continuous), one of correct, partial and wrong (discrete), or
    micro-F1 over several choices (multi)."""
    skip_exact_match: bool = True
    """Score an exact match 1 without calling the judge."""
    max_output_tokens: int = Field(64, ge=1, le=8192)
    """Maximum length of a verdict, in tokens."""
    # gpt-4o-mini: https://developers.openai.com/api/docs/pricing, as quoted elsewhere on
    # 2026-11-26.
    usd_per_million_input_tokens: float = Field(0.15, ge=0.0)
    """Price of a million input tokens, in USD."""
    usd_per_million_output_tokens: float = Field(0.60, ge=0.0)
    """Price of a million output tokens, in USD."""
    service: ServiceConfig = ServiceConfig()
    """Limits of calls to the judge."""


class BudgetConfig(BaseConfig):
    """What a run may spend, and how many calls may fail."""

    max_usd: float | None = Field(None, ge=0.0)
    """Hard spending limit of the run, in USD; null sets none."""
    max_failed_share: float = Field(0.2, ge=0.0, le=1.0)
    """Share of a step's searches, verdicts or reward parts that may fail before the run stops."""


class WandbConfig(BaseConfig):
    """Tracking on Weights & Biases, with the key in WANDB_API_KEY or from `wandb login`."""

    enabled: bool = False
    """Track the run on Weights & Biases."""
    project: str = Field("r-search-training", min_length=1)
    """Project to track the run in."""
    run_name: str | None = None
    """Name of the run; null lets W&B choose one."""
    mode: Literal["online", "offline"] = "online"
    """Upload during training, or only store in the run folder."""
    timeout_seconds: float = Field(30.0, gt=0.0, le=3600.0)
    """Longest wait for W&B, at the start and at the end, in seconds."""
    table_every_steps: int = Field(10, ge=1)
    """Steps between tables of trajectories."""
    table_rows: int = Field(4, ge=0, le=64)
    """Trajectories in each table; 0 sends none."""


class CacheConfig(BaseConfig):
    """How cached answers of services are used."""

    mode: Literal["read-write", "refresh", "offline"] = "read-write"
    """read-write uses and stores answers; refresh asks again and stores; offline only uses stored
    answers and sends nothing."""


class HubConfig(BaseConfig):
    """Publishing on the Hugging Face Hub after training."""

    push: bool = False
    """Publish the adapter when the run is finished."""
    model_id: str | None = None
    """Repository, such as user/name; created if it does not exist."""
    private: bool = False
    """Make the repository private."""
    base_model: str | None = None
    """Hub id of the base model if policy.model is a local folder."""

    @model_validator(mode="after")
    def _somewhere_to_push(self) -> Self:
        if self.push and self.model_id is None:
            raise ValueError("push needs model_id, such as user/name")
        return self
