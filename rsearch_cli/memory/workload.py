"""The workload of a run: how long its rows are, and how many are in memory at once.

If only the run can know a length, the longest that the recipe allows is taken: the prediction must
hold in the worst step.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from rsearch_cli.recipe.schema import Recipe

Backend = Literal["unsloth", "transformers"]

CHARS_PER_TOKEN = 3.5
"""English web text has about 4 characters per token with vocabularies of 49,000 to 152,000; names,
numbers and tags have fewer. The lower figure gives the longer row."""

SYSTEM_PROMPT_CHARS = 1100
EXAMPLE_CHARS = 350
"""Lengths of the built-in system prompt and of one worked example (`protocol.prompt`)."""

QUESTION_TOKENS = 96
"""A multi-hop question of about 30 words, and the tokens that the chat template adds."""

TITLE_CHARS = 60
NODE_CHARS = 80
"""Text that the result block adds to each passage, and the line of a node."""


@dataclass(frozen=True, slots=True)
class Row:
    """Length of one prompt with its completion, in tokens.

    Attributes:
        prompt: Tokens of the prompt.
        completion: Tokens after it: generated, inserted, and the final eos.
    """

    prompt: int
    completion: int

    @property
    def total(self) -> int:
        """Tokens of the whole row."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything that memory depends on apart from the model's shape.

    Attributes:
        backend: The back end of the policy.
        four_bit: Whether the projections are quantised to NF4.
        width: Bytes per number in the forward pass.
        checkpointing: Whether the backward pass recomputes each layer.
        update_rows: Rows in one forward and backward pass.
        rollout_rows: Maximum number of rows generated at once.
        row: The longest row.
        caches: Number of micro-batches whose keys and values are kept at once.
        engine: What generates, as in `rollout.engine`.
        vllm_share: Share of the card that the engine vllm takes.
    """

    backend: Backend
    four_bit: bool
    width: int
    checkpointing: bool
    update_rows: int
    rollout_rows: int
    row: Row
    caches: int = 1
    engine: str = "local"
    vllm_share: float = 0.5

    @property
    def stream(self) -> int:
        """Bytes per number between layers, in the output of a projection and in the KV cache.

        PEFT's `prepare_model_for_kbit_training` casts embedding, head and norms to float32, and
        bitsandbytes' `Linear4bit` returns its output in the type of its input: with transformers, a
        model in 4 bit has float32 activations. Unsloth keeps the compute type throughout.
        """
        return 4 if self.four_bit and self.backend == "transformers" else self.width


def describe_workload(recipe: Recipe, backend: Backend, row: Row | None = None) -> Workload:
    """Return the workload of a recipe on one CUDA card; with several cards it is the same on each.

    Args:
        recipe: Its policy, protocol, search, rollout, train and evaluate sections are read.
        backend: The back end of the policy.
        row: Length of the longest row if it is known; None takes the longest the recipe allows.
    """
    policy, train = recipe.policy, recipe.train
    # None means "on CUDA only" for both (see `policy.transformers_backend`).
    four_bit = policy.load_in_4bit is not False
    checkpointing = policy.gradient_checkpointing is not False
    per_step = train.batch_size * train.gradient_accumulation_steps
    micro_batch = recipe.rollout.micro_batch
    asked = micro_batch if recipe.evaluate.limit is None else recipe.evaluate.limit
    rows = max(per_step, asked)
    # One micro-batch generates while another searches; Unsloth keeps no cache.
    keeps = recipe.rollout.reuse_cache and backend == "transformers" and rows > micro_batch
    return Workload(
        backend=backend,
        four_bit=four_bit,
        width=4 if policy.dtype == "float32" else 2,
        checkpointing=checkpointing,
        update_rows=train.batch_size,
        rollout_rows=min(micro_batch, rows),
        row=row or longest_row(recipe),
        caches=2 if keeps else 1,
        engine=recipe.rollout.engine,
        vllm_share=recipe.rollout.vllm_memory_share,
    )


def longest_row(recipe: Recipe) -> Row:
    """Return the longest row the recipe allows, at most `policy.max_seq_length`."""
    protocol, search, rollout = recipe.protocol, recipe.search, recipe.rollout
    system = protocol.system_prompt
    chars = SYSTEM_PROMPT_CHARS if system is None else len(system)
    prompt = QUESTION_TOKENS + _tokens(chars + EXAMPLE_CHARS * protocol.example_turns)
    passages = search.top_k * (search.passage_chars + TITLE_CHARS)
    block = _tokens(protocol.max_nodes * (NODE_CHARS + passages))
    completion = rollout.max_new_tokens + rollout.max_turns * block + 1
    longest = recipe.policy.max_seq_length
    prompt = min(prompt, longest - 1)
    return Row(prompt, min(completion, longest - prompt))


def _tokens(chars: int) -> int:
    return ceil(chars / CHARS_PER_TOKEN)
