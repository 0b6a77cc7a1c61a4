"""The recipe: every setting of a run, typed, bounded and documented.

Place in the path: right above `errors` and `types`; every later module takes its own section and
nothing else. On failure: pydantic reports all problems; `recipe.loading` turns them into a
`RecipeError`. Every field documents its unit and range; the defaults are those of the 7B run.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Base of all sections: unknown keys fail, values are not coerced, nothing changes later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class Lora(Section):
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
        description="Linear modules with an adapter; gate_proj, up_proj, down_proj are the MLP.",
    )


class Policy(Section):
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
        "auto", description="Compute type; auto is bfloat16 on CUDA and float32 on a CPU."
    )
    max_seq_length: int = Field(
        4096, ge=128, le=131072, description="Longest prompt plus completion, in tokens."
    )
    gradient_checkpointing: bool | None = Field(
        None,
        description="Recompute activations in the backward pass; null does so on CUDA only.",
    )
    lora: Lora = Field(default_factory=Lora, description="The adapter that is trained.")


class World(Section):
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


class Questions(Section):
    """Where questions, reference answers and the corpus that comes with them are taken from."""

    source: str = Field(
        "hotpotqa", description="`world`, `hotpotqa` or `custom` (see `rsearch_cli/questions`)."
    )
    path: str | None = Field(
        None,
        description="JSON or JSONL file; null takes the Hub set for hotpotqa. Required for custom.",
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
    world: World = Field(default_factory=World, description="Only read by source `world`.")


class Protocol(Section):
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
    max_query_words: int = Field(10, ge=1, le=64, description="Most words in one query.")
    result_tag: Literal["result", "r"] = Field(
        "result", description="Tag that is written around results; both are read."
    )
    example_turns: int = Field(
        0,
        ge=0,
        le=3,
        description="Worked examples told as earlier turns; 0 tells one in the system prompt.",
    )
    system_prompt: str | None = Field(
        None,
        description="Replaces the built-in system prompt; '' leaves the system message out.",
    )


class Source(Section):
    """One place to search."""

    type: str = Field("bm25", description="Kind of source (see `rsearch_cli/search/sources.py`).")
    corpus: str = Field(
        "questions",
        description="JSONL file of passages; `questions` is the corpus that comes with the set.",
    )


class Search(Section):
    """How a plan is carried out."""

    sources: dict[str, Source] = Field(
        default_factory=lambda: {n: Source() for n in ("General", "News", "Academy")},
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
    concurrency: int = Field(32, ge=1, le=1024, description="Most searches under way at once.")
    cache: bool = Field(True, description="Keep answers on disk and use them again.")


class Rollout(Section):
    """How a completion is generated."""

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


class Weights(Section):
    """Shares of the reward's parts; they must sum to 1."""

    answer: float = Field(ge=0.0, le=1.0, description="Share of the answer score.")
    plan: float = Field(ge=0.0, le=1.0, description="Share of plan validity.")
    format: float = Field(ge=0.0, le=1.0, description="Share of format validity.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.answer + self.plan + self.format
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"answer, plan and format must sum to 1, they sum to {total:g}")
        return self


class Reward(Section):
    """What a trajectory earns."""

    weights: Weights = Field(
        Weights(answer=0.5, plan=0.25, format=0.25), description="Shares after the curriculum."
    )
    curriculum_weights: Weights = Field(
        Weights(answer=0.2, plan=0.4, format=0.4), description="Shares during the curriculum."
    )
    curriculum_steps: int = Field(
        30, ge=0, description="Optimiser steps that use the curriculum's shares."
    )
    answer: Literal["f1", "em"] = Field("f1", description="Lexical score of the answer.")
    require_valid_plan: bool = Field(
        True, description="An invalid plan earns nothing for its answer."
    )
    shuffle_answers: bool = Field(
        False,
        description="Control experiment: deal the answer scores of a step out at random.",
    )


class Train(Section):
    """GRPO and the optimiser."""

    max_steps: int = Field(100, ge=1, description="Optimiser steps.")
    batch_size: int = Field(1, ge=1, description="Completions per forward pass and device.")
    gradient_accumulation_steps: int = Field(
        4, ge=1, description="Forward passes per optimiser step."
    )
    num_generations: int = Field(
        4, ge=2, description="Completions a question; they are each other's baseline."
    )
    learning_rate: float = Field(5e-6, gt=0.0, le=1.0, description="Peak learning rate of AdamW.")
    lr_scheduler: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description="Course of the learning rate after the warm-up."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    max_grad_norm: float = Field(1.0, gt=0.0, description="Gradients are clipped to this norm.")
    beta: float = Field(
        0.0, ge=0.0, le=10.0, description="Weight of the KL term; 0 also saves its forward pass."
    )
    epsilon: float = Field(0.2, gt=0.0, lt=1.0, description="Lower clip of the policy ratio.")
    epsilon_high: float = Field(
        0.28, gt=0.0, le=10.0, description="Upper clip of the policy ratio (clip-higher, DAPO)."
    )
    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo"] = Field(
        "dapo", description="How token losses are averaged (TRL's name)."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="Standard deviation that advantages are divided by."
    )
    mask_truncated: bool = Field(
        False, description="Take completions that ran out of tokens out of the loss."
    )
    save_steps: int = Field(50, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(2, ge=1, description="Checkpoints kept; older ones go.")

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        rows = self.batch_size * self.gradient_accumulation_steps
        if rows % self.num_generations:
            raise ValueError(
                f"batch_size x gradient_accumulation_steps = {rows} must be a multiple of "
                f"num_generations = {self.num_generations}, so that no group is cut"
            )
        return self


class Evaluate(Section):
    """The evaluation before and after training."""

    split: str = Field("validation", description="Split to evaluate on.")
    limit: int | None = Field(200, ge=1, description="Most questions to evaluate; null takes all.")
    sampled: bool = Field(
        True, description="Besides greedy decoding, sample one answer at rollout.temperature."
    )
    show_trajectories: int = Field(
        3, ge=0, le=50, description="Trajectories printed before and after."
    )


class Recipe(Section):
    """A whole run."""

    purpose: str = Field(description="What the recipe is for, in one line.")
    hardware: str = Field(description="What it needs to run on, in one line.")
    needs: str = Field("nothing", description="Keys, data and access it needs, in one line.")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Seed of sampling, order and adapters.")
    output_dir: str = Field(
        "runs/{recipe}", description="Run folder; {recipe} is the recipe's name."
    )
    policy: Policy = Field(default_factory=Policy, description="The model.")
    questions: Questions = Field(default_factory=Questions, description="The questions.")
    protocol: Protocol = Field(default_factory=Protocol, description="Tags and plan grammar.")
    search: Search = Field(default_factory=Search, description="Sources and plan execution.")
    rollout: Rollout = Field(default_factory=Rollout, description="Generation.")
    reward: Reward = Field(default_factory=Reward, description="Reward.")
    train: Train = Field(default_factory=Train, description="GRPO.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Before and after.")

    @model_validator(mode="after")
    def _sources_match(self) -> Self:
        if set(self.protocol.sources) != set(self.search.sources):
            raise ValueError(
                f"protocol.sources names {sorted(self.protocol.sources)} and search.sources "
                f"{sorted(self.search.sources)}; both must name the same sources"
            )
        return self
