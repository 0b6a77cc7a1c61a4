"""The sections of a recipe that are about the policy: its weights, its adapter, how it generates.

Place in the path: a part of the schema, read by `policy` and `rollout`. On failure: as in
`section`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rsearch_cli.recipe.addresses import Address
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.services import ServiceConfig

ALL_LINEAR = ["all-linear"]
"""`target_modules` for every linear module of the model but its head, as PEFT writes it."""


class LoraConfig(BaseConfig):
    """Low-rank adapter on the policy."""

    r: int = Field(16, ge=1, le=512, description="Rank of the adapter.")
    alpha: int = Field(32, ge=1, le=1024, description="Scale of the adapter; it acts as alpha / r.")
    dropout: float = Field(
        0.05,
        ge=0.0,
        le=0.9,
        description="Dropout on the adapter's input; Unsloth is fastest at 0.",
    )
    target_modules: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj"],
        min_length=1,
        description="Linear modules with an adapter; gate_proj, up_proj, down_proj are the MLP. "
        "all-linear, alone, takes every one but the head.",
    )

    @field_validator("target_modules", mode="before")
    @classmethod
    def _take_one_word(cls, value: Any) -> Any:
        return ALL_LINEAR if value == ALL_LINEAR[0] else value

    @field_validator("target_modules")
    @classmethod
    def _all_is_all(cls, value: list[str]) -> list[str]:
        if ALL_LINEAR[0] in value and value != ALL_LINEAR:
            raise ValueError(f"{ALL_LINEAR[0]} stands alone, as it takes every linear module")
        return value


class EndpointConfig(BaseConfig):
    """A server that writes in place of local weights, in evaluation; training always has weights.

    It is any server with OpenAI's chat API: OpenAI's own, vLLM, SGLang, llama.cpp, Ollama, ...
    """

    url: Address | None = Field(
        None,
        description="Base URL such as http://localhost:8000/v1; null takes local weights. Its key "
        "is taken from OPENAI_API_KEY.",
    )
    model: str | None = Field(
        None, description="Name of the model, as its server knows it; null takes policy.model."
    )
    results: Literal["auto", "same_turn", "user_turn"] = Field(
        "auto",
        description="Where search results go: into the model's own turn, as in training, or into a "
        "user message. auto asks the server what it is: vLLM, SGLang and llama.cpp continue the "
        "model's turn; every other server, and one that refuses to, gets user messages.",
    )
    usd_per_million_input_tokens: float = Field(
        0.0, ge=0.0, description="Price of a million tokens that are sent, in USD."
    )
    usd_per_million_output_tokens: float = Field(
        0.0, ge=0.0, description="Price of a million tokens that come back, in USD."
    )
    cache_days: float = Field(
        0.0,
        ge=0.0,
        description="Days a greedy reply is used again; 0 asks anew, as a server may have got "
        "other weights under the same name.",
    )
    service: ServiceConfig = Field(
        ServiceConfig(concurrency=16, requests_per_second=200.0, timeout_seconds=300.0),
        description="Calls to the server.",
    )


class PolicyConfig(BaseConfig):
    """The model that thinks, plans and answers."""

    model: str = Field(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        description="Hub id, model folder, or `builtin:nano` for the model inside the package.",
    )
    backend: Literal["auto", "unsloth", "transformers"] = Field(
        "auto", description="What loads and runs the weights; auto takes Unsloth where it imports."
    )
    load_in_4bit: bool | None = Field(
        None, description="Quantise the frozen weights to NF4; null does so on CUDA only."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Compute type; auto is bfloat16 on CUDA (float16 on cards older than Ampere) "
        "and float32 on a CPU.",
    )
    max_seq_length: int = Field(
        4096,
        ge=128,
        le=131072,
        description="Longest prompt plus completion, in tokens; at most what the model was made "
        "for.",
    )
    gradient_checkpointing: bool | None = Field(
        None,
        description="Recompute activations in the backward pass; null does so on CUDA only.",
    )
    lora: LoraConfig = Field(default_factory=LoraConfig, description="The adapter that is trained.")
    adapter: str | None = Field(
        None,
        description="Run folder or adapter folder to start from, also the reference of the KL "
        "term; null starts from a new adapter, and the model itself is the reference.",
    )
    endpoint: EndpointConfig = Field(
        default_factory=EndpointConfig, description="A server in place of weights, to evaluate it."
    )
    # Never written to a file, and taken from none: see `recipe.loading`.
    trust_remote_code: bool = Field(
        False,
        exclude=True,
        description="Run Python code that comes with the model; only --trust-remote-code sets it.",
    )


class RolloutConfig(BaseConfig):
    """How a completion is generated."""

    engine: Literal["local", "vllm", "vllm-server"] = Field(
        "local",
        description="What generates: the training model itself, vLLM on the same weights through "
        "Unsloth (one CUDA device), or a vLLM server on other cards. The last two were not yet run "
        "on a GPU.",
    )
    vllm_url: Address | None = Field(
        None, description="The server of engine vllm-server, as in http://host:8000."
    )
    vllm_folder: str | None = Field(
        None,
        description="Folder in which engine vllm-server hands adapters over; the server sees it "
        "under the same path. null takes the system's folder for temporary files.",
    )
    vllm_memory_share: float = Field(
        0.5,
        gt=0.0,
        lt=1.0,
        description="Share of the GPU's memory that vLLM may take, the weights it shares with "
        "training included; only read by engine vllm.",
    )
    max_turns: int = Field(1, ge=1, le=8, description="Most searches in one completion.")
    max_new_tokens: int = Field(
        1024, ge=8, le=32768, description="Most tokens the policy may write, over all turns."
    )
    open_thought: bool = Field(
        False, description="Begin the model's turn with <think>, as the templates of R1 models do."
    )
    temperature: float = Field(
        1.0, gt=0.0, le=4.0, description="Sampling temperature in training and sampled evaluation."
    )
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Nucleus of sampling; 1 keeps all.")
    micro_batch: int = Field(
        64, ge=1, le=4096, description="Most completions that are generated at once."
    )
    micro_batch_tokens: int | None = Field(
        None,
        ge=256,
        le=2**24,
        description="Most tokens of prompts and answers, padding included, that are generated at "
        "once; results come on top. null leaves the bound to micro_batch.",
    )
    reuse_cache: bool = Field(
        True,
        description="Keep the keys and values of prompt and plan for the answer, of at most two "
        "micro-batches; else the answer's context is encoded from its start.",
    )

    @model_validator(mode="after")
    def _server_has_an_address(self) -> Self:
        if self.engine == "vllm-server" and self.vllm_url is None:
            raise ValueError("engine vllm-server needs vllm_url, as in http://host:8000")
        return self
