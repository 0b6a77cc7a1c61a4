"""The sections of a recipe about the policy: weights, adapter, servers and generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rsearch_cli.recipe.addresses import Address
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.services import ServiceConfig

ALL_LINEAR = ["all-linear"]
"""`target_modules` for every linear module of the model but its head, as PEFT writes it."""


ENGINES: Mapping[str, str] = {
    "local": "rsearch_cli.policy.local:LocalPolicy",
    "vllm": "rsearch_cli.policy.vllm_engine:VllmPolicy",
    "vllm-server": "rsearch_cli.policy.vllm_server:VllmServerPolicy",
}
"""Name of an engine, as in `rollout.engine`, to the class of its policy."""


class LoraConfig(BaseConfig):
    """The LoRA adapter that is trained."""

    r: int = Field(16, ge=1, le=512)
    """Rank of the LoRA adapter."""
    alpha: int = Field(32, ge=1, le=1024)
    """Scale of the LoRA adapter; the effective scale is alpha / r."""
    dropout: float = Field(0.05, ge=0.0, le=0.9)
    """Dropout on the adapter's input; Unsloth is fastest with 0."""
    target_modules: list[str] = Field(["q_proj", "k_proj", "v_proj", "o_proj"], min_length=1)
    """Linear modules that get an adapter; gate_proj, up_proj and down_proj are the MLP. all-linear
    stands for every linear module except the head."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _take_one_word(cls, value: Any) -> Any:
        return ALL_LINEAR if value == ALL_LINEAR[0] else value

    @field_validator("target_modules")
    @classmethod
    def _all_is_all(cls, value: list[str]) -> list[str]:
        if ALL_LINEAR[0] in value and value != ALL_LINEAR:
            raise ValueError(
                f"{ALL_LINEAR[0]} already stands for every linear module; list nothing else"
            )
        return value


class EndpointConfig(BaseConfig):
    """A server used instead of local weights, for evaluation and inference; training needs weights.

    Any server with OpenAI's chat API works: OpenAI, vLLM, SGLang, llama.cpp, Ollama and others.
    """

    url: Address | None = None
    """Base URL such as http://localhost:8000/v1; null uses local weights. The key is read from
    OPENAI_API_KEY."""
    model: str | None = None
    """Name of the model on the server; null uses policy.model."""
    results: Literal["auto", "same_turn", "user_turn"] = "auto"
    """Where search results are put: into the model's own turn, as in training, or into a user
    message. auto detects the server: vLLM, SGLang and llama.cpp continue the model's turn; any
    other server, or one that refuses, gets user messages."""
    usd_per_million_input_tokens: float = Field(0.0, ge=0.0)
    """Price of a million input tokens, in USD."""
    usd_per_million_output_tokens: float = Field(0.0, ge=0.0)
    """Price of a million output tokens, in USD."""
    cache_days: float = Field(0.0, ge=0.0)
    """Days that a greedy reply, or a sample of `rsearch eval --samples`, stays in the cache; 0 does
    not cache, as the weights behind a name may change."""
    service: ServiceConfig = ServiceConfig(
        concurrency=16, requests_per_second=200.0, timeout_seconds=300.0
    )
    """Limits of calls to the server."""


class PolicyConfig(BaseConfig):
    """The model that is trained, evaluated or asked."""

    model: str = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    """Hub id, model folder, or builtin:nano for the model inside the package."""
    backend: Literal["auto", "unsloth", "transformers"] = "auto"
    """Library that loads and runs the weights; auto uses Unsloth if it imports."""
    load_in_4bit: bool | None = None
    """Quantise the frozen weights to NF4; null does so on CUDA only."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Compute type; auto is bfloat16 on CUDA (float16 on cards older than Ampere) and float32 on a
    CPU."""
    max_seq_length: int = Field(4096, ge=128, le=131072)
    """Maximum length of prompt plus completion, in tokens; at most the model's context length."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass; null does so on CUDA only."""
    lora: LoraConfig = LoraConfig()
    """The adapter that is trained."""
    adapter: str | None = None
    """Run folder or adapter folder to start from, also the reference of the KL term; null starts
    with a new adapter and uses the base model as reference."""
    endpoint: EndpointConfig = EndpointConfig()
    """A server used instead of local weights."""
    # Neither written to files nor read from them: see `recipe.loading`.
    trust_remote_code: bool = Field(False, exclude=True)
    """Run Python code that ships with the model; only --trust-remote-code sets it."""


class RolloutConfig(BaseConfig):
    """How completions are generated."""

    engine: str = "local"
    """What generates: the training model itself (local), vLLM on the same weights through Unsloth
    (vllm, one CUDA device), or a vLLM server on other cards (vllm-server). The last two have not
    been run on a GPU yet."""
    vllm_url: Address | None = None
    """URL of the server for engine vllm-server, such as http://host:8000."""
    vllm_folder: str | None = None
    """Folder through which engine vllm-server receives adapters; it must have the same path on the
    server. null uses the system's temporary folder."""
    vllm_memory_share: float = Field(0.5, gt=0.0, lt=1.0)
    """Share of the GPU's memory that vLLM may use, including the weights it shares with training;
    only used by engine vllm."""
    max_turns: int = Field(1, ge=1, le=8)
    """Maximum searches in one completion."""
    max_new_tokens: int = Field(1024, ge=8, le=32768)
    """Maximum number of tokens the model writes, over all turns."""
    open_thought: bool = False
    """Start the model's turn with <think>, as the templates of R1 models do."""
    temperature: float = Field(1.0, gt=0.0, le=4.0)
    """Sampling temperature in training and sampled evaluation."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling threshold; 1 disables it."""
    micro_batch: int = Field(64, ge=1, le=4096)
    """Maximum completions generated at once."""
    micro_batch_tokens: int | None = Field(None, ge=256, le=2**24)
    """Maximum tokens of prompts and completions generated at once, with padding but without search
    results; null leaves the limit to micro_batch."""
    reuse_cache: bool = True
    """Reuse the keys and values of prompt and plan for the answer, of at most two micro-batches;
    otherwise the answer's context is encoded from the start."""

    @field_validator("engine")
    @classmethod
    def _engine_is_known(cls, value: str) -> str:
        if value not in ENGINES:
            raise ValueError(f"must be one of {', '.join(ENGINES)}")
        return value

    @model_validator(mode="after")
    def _server_has_an_address(self) -> Self:
        if self.engine == "vllm-server" and self.vllm_url is None:
            raise ValueError("engine vllm-server needs vllm_url, as in http://host:8000")
        return self
