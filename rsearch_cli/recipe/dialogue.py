"""The section of a recipe about conversations: follow-up questions and long answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rsearch_cli.recipe.addresses import Address
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.services import ServiceConfig


class WriterConfig(BaseConfig):
    """A server that rewrites follow-up questions and writes paragraphs instead of the policy."""

    url: Address | None = None
    """OpenAI-compatible server; null uses OPENAI_BASE_URL, which may contain a password, else
    OpenAI. The key is read from OPENAI_API_KEY."""
    model: str = "gpt-4o-mini"
    """Name of the model on the server."""
    # gpt-4o-mini; see the judge's prices.
    usd_per_million_input_tokens: float = Field(0.15, ge=0.0)
    """Price of a million input tokens, in USD."""
    usd_per_million_output_tokens: float = Field(0.60, ge=0.0)
    """Price of a million output tokens, in USD."""
    # Somebody waits for it, and goes on without it.
    service: ServiceConfig = ServiceConfig(
        timeout_seconds=60.0, retries=1, max_backoff_seconds=2.0, breaker_pause_seconds=2.0
    )
    """Limits of calls to the server."""


class DialogueConfig(BaseConfig):
    """Follow-up questions and long answers, in `infer`, `serve` and the Python API."""

    follow_up: bool = True
    """Rewrite a follow-up question into one that can be understood without the conversation."""
    style: Literal["short", "paragraph"] = "short"
    """Answer in short, or also with a paragraph whose sentences cite the passages that hold their
    words."""
    writer: Literal["auto", "policy", "endpoint", "none"] = "auto"
    """What rewrites questions and writes paragraphs: the policy without its adapter (policy),
    dialogue.endpoint, or nothing (none). auto is the endpoint if its url is set, else the policy,
    unless that is a built-in model, which can only search."""
    history_tokens: int = Field(600, ge=50, le=32768)
    """Maximum tokens of earlier turns that are read to rewrite a question, about four bytes each;
    older turns are left out."""
    max_output_tokens: int = Field(1024, ge=16, le=32768)
    """Maximum tokens of a rewritten question or a paragraph, with the thinking before it."""
    endpoint: WriterConfig = WriterConfig()
    """A server that writes instead of the policy."""
