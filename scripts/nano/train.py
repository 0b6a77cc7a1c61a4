#!/usr/bin/env python3
"""Train the nano model that ships inside the package, from nothing.

A Llama of about two million parameters and its tokenizer learn the protocol from traces of the
fictional world, first from a clean teacher, then from a deliberately weak one (see traces.py), so
that reinforcement learning has something left to find. The regions of the traces belong to a split
of their own: no name in them appears in the quickstart's training or evaluation questions.

Usage:  python scripts/nano/train.py OUT [--clean-steps N] [--weak-steps N]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from traces import make_traces

from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.questions.world import World, count_regions
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import open_services
from rsearch_cli.training.traces import IGNORED, Trace, encode_trace

SEED = 20
PRETRAIN_REGIONS = 400
TRACES_PER_TEACHER = 24_000
HELD_OUT_TRACES = 300
VOCABULARY = 1021
TAGS = [
    f"<{slash}{name}>" for name in ("think", "search", "result", "answer") for slash in ("", "/")
]
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def main() -> None:
    """Make the traces, the tokenizer and the model, and write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--clean-steps", type=int, default=900)
    parser.add_argument("--weak-steps", type=int, default=500)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)

    recipe = load_recipe("quickstart").recipe
    clean, weak, held_out = build_traces(recipe)
    tokenizer = train_tokenizer(clean, arguments.out)
    model = build_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    policy = LocalPolicy(model, tokenizer)
    encode = lambda traces: [encode_trace(t, policy, recipe) for t in traces]  # noqa: E731
    check = encode(held_out)
    print(f"mean length {sum(len(e.ids) for e in check) / len(check):.0f} tokens", flush=True)
    log = []
    log += fit(model, encode(clean), check, arguments.clean_steps, (2e-3, 2e-4), "clean")
    log += fit(model, encode(weak), check, arguments.weak_steps, (1e-3, 1e-4), "weak")
    save(model, arguments.out, log)


def build_traces(recipe: Recipe) -> tuple[list[Trace], list[Trace], list[Trace]]:
    """Traces of the clean teacher, of the weak one, and clean ones on names never trained on."""
    of_world = recipe.questions.world
    regions = {**count_regions(of_world), "pretrain": PRETRAIN_REGIONS}
    world = World(of_world.seed, regions, recipe.questions.difficulty)
    asked = world.load("pretrain")
    unseen = world.load("validation", HELD_OUT_TRACES)
    sources = open_sources(recipe.search, world.corpus)
    with (
        open_services(recipe, None) as services,
        PlanExecutor(sources, recipe.search, services) as executor,
    ):
        make = lambda q, teacher, seed: list(  # noqa: E731
            make_traces(q, teacher, world, executor, recipe, seed)
        )
        return (
            make(asked[:TRACES_PER_TEACHER], "clean", 1),
            make(asked[:TRACES_PER_TEACHER], "weak", 2),
            make(unseen, "clean", 3),
        )


def train_tokenizer(traces: Sequence[Trace], out: Path):
    """A byte-level BPE on the traces' text; the tags are ordinary tokens of their own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def texts() -> Iterator[str]:
        for trace in traces:
            yield f" {trace.question.text}"
            text = "".join(segment.text for segment in trace.segments)
            for tag in TAGS:
                text = text.replace(tag, "")
            yield text

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - len(TAGS) - len(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[2:]})
    tokenizer.add_tokens(TAGS)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(out)
    return tokenizer


def build_model(tokenizer):
    """An untrained Llama of nano size for this vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        intermediate_size=512,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def fit(model, examples, check, steps: int, rates: tuple[float, float], phase: str) -> list:
    """Train for a number of steps, the rate falling from the first to the second by cosine."""
    # Muon is made for weight matrices; embeddings and norms stay with AdamW.
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimisers = [
        torch.optim.Muon(matrices, lr=rates[0], weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rates[0], betas=(0.9, 0.95), weight_decay=0.0),
    ]
    started, log, batches = time.monotonic(), [], shuffled_batches(examples)
    for step in range(1, steps + 1):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        rate = (rates[1] + (rates[0] - rates[1]) * cosine) * min(1.0, step / 50)
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = rate
        loss = batch_loss(model, next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if step % 100 == 0:
            spent = time.monotonic() - started
            log.append({"phase": phase, "step": step, "seconds": round(spent), "loss": loss.item()})
            log[-1]["answers_copied"] = answers_copied(model, check)
            print(json.dumps(log[-1]), flush=True)
    return log


def shuffled_batches(examples, rows: int = 24) -> Iterator[list]:
    """Batches of similar length, in random order, for ever."""
    rng = random.Random(SEED)
    while True:
        order = sorted(examples, key=lambda e: len(e.ids) + rng.random() * 8)
        batches = [order[i : i + rows] for i in range(0, len(order), rows)]
        rng.shuffle(batches)
        yield from batches


def pad_batch(batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded `[B, L]` ids and labels; causal attention needs no mask for padding behind."""
    width = max(len(e.ids) for e in batch)
    ids = torch.tensor([[*e.ids, *[0] * (width - len(e.ids))] for e in batch])
    return ids, torch.tensor([[*e.labels, *[IGNORED] * (width - len(e.labels))] for e in batch])


def batch_loss(model, batch) -> torch.Tensor:
    """Mean cross-entropy of the trained tokens."""
    ids, labels = pad_batch(batch)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        kept = labels[:, 1:] != IGNORED
        logits = model.lm_head(hidden[kept])
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][kept])


@torch.no_grad()
def answers_copied(model, check) -> float:
    """Share of unseen traces whose whole answer is the most likely one, given what came before."""
    right = 0
    for batch in (check[i : i + 50] for i in range(0, len(check), 50)):
        ids, labels = pad_batch(batch)
        predicted = model(input_ids=ids).logits[:, :-1].argmax(-1)
        for row, example in enumerate(batch):
            last_gap = max(i for i, label in enumerate(example.labels) if label == IGNORED)
            end = len(example.labels)
            target = labels[row, last_gap + 1 : end]
            right += bool((predicted[row, last_gap : end - 1] == target).all())
    return right / len(check)


def save(model, out: Path, log: list) -> None:
    """Write the weights in bf16, and the record of their making."""
    model.generation_config.pad_token_id = model.config.pad_token_id
    model.generation_config.eos_token_id = model.config.eos_token_id
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    size = sum(f.stat().st_size for f in out.iterdir())
    print(f"wrote {out} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
