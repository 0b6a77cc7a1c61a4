"""Keys and values that are kept between turns: the same ids come out, and less goes in."""

from __future__ import annotations

import pytest

from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prefix_cache import PrefixCache

QUESTIONS = [
    "Where was Giszos Nenfu born?",
    "Who is the mayor of the city where Pirklan Motors is based?",
    "Who wrote The Hedan Lantern?",
    "In which country is Klildu?",
]
RESULTS = [
    "\n<result>\nA: Giszos Nenfu was born in Klil.\n</result>\n",
    "\n<result>\nA: Nothing.\nB: Pirklan Motors is based in Hedan. Its mayor is Zuz.\n</result>\n",
]
LIMITS = [60, 7, 60, 30]


def ask(policy: LocalPolicy) -> list[list[int]]:
    """Ids of the prompts of all questions."""
    return [list(policy.render([{"role": "user", "content": q}]).token_ids) for q in QUESTIONS]


def converse(policy: LocalPolicy, cache: PrefixCache | None, going_on: list[list[int]]) -> dict:
    """What each row writes, turn by turn; `going_on` are the rows of each turn."""
    contexts = ask(policy)
    written: dict[int, list[tuple[int, ...]]] = {row: [] for row in range(len(contexts))}
    for turn, rows in enumerate(going_on):
        generations = policy.generate_ids(
            [contexts[row] for row in rows],
            ["</search>"] if turn == 0 else ["</answer>"],
            [LIMITS[row] for row in rows],
            cache=cache,
        )
        for row, generation in zip(rows, generations, strict=True):
            written[row].append(generation.token_ids)
            inserted = policy.encode(RESULTS[(row + turn) % 2])
            contexts[row] = contexts[row] + list(generation.token_ids) + inserted
    return written


@pytest.mark.parametrize(
    "going_on",
    [
        [[0, 1, 2, 3]] * 3,
        [[0, 1, 2, 3], [0, 2, 3], [2]],
        [[0, 1, 2, 3], [1], [1]],
    ],
    ids=["all rows go on", "rows drop out", "the shortest goes on"],
)
def test_every_turn_writes_what_it_writes_without_the_cache(nano_policy, going_on):
    plain = converse(nano_policy, None, going_on)
    lengths = {len(turns[0]) for turns in plain.values()}
    assert len(lengths) > 2, "rows must end at different places"
    assert converse(nano_policy, PrefixCache(), going_on) == plain


def test_only_what_is_new_is_encoded(nano_policy, monkeypatch):
    given = []
    generate = nano_policy.model.generate

    def watched(**inputs):
        given.append((inputs["input_ids"].shape[1], inputs["attention_mask"].shape[1]))
        return generate(**inputs)

    monkeypatch.setattr(nano_policy.model, "generate", watched)
    converse(nano_policy, PrefixCache(), [[0, 1, 2, 3]] * 2)
    longest = max(len(nano_policy.encode(text)) for text in RESULTS)
    new, seen = given[1]
    assert longest <= new <= longest + 1, "the results, and the id sampled last where it is due"
    assert seen > given[0][1] + new, "the mask covers what is kept as well"


def test_contexts_that_continue_nothing_are_encoded_whole(nano_policy):
    prompts = [
        list(nano_policy.render([{"role": "user", "content": q}]).token_ids) for q in QUESTIONS
    ]
    cache = PrefixCache()
    nano_policy.generate_ids(prompts[:2], ["</search>"], [20, 20], cache=cache)
    expected = nano_policy.generate_ids(prompts[2:], ["</search>"], [20, 20])
    assert nano_policy.generate_ids(prompts[2:], ["</search>"], [20, 20], cache=cache) == expected


def test_rows_are_told_apart_by_their_ids(nano_policy):
    prompt, other = ask(nano_policy)[:2]
    cache = PrefixCache()
    first = nano_policy.generate_ids([prompt, prompt, other], ["</search>"], [9] * 3, cache=cache)
    inserted = nano_policy.encode(RESULTS[0])
    contexts = [prompt + list(first[1].token_ids) + inserted, other + list(first[2].token_ids)]
    contexts[1] += inserted
    expected = nano_policy.generate_ids(contexts, ["</answer>"], [20, 20])
    assert nano_policy.generate_ids(contexts, ["</answer>"], [20, 20], cache=cache) == expected


def test_a_cache_in_another_order_is_not_used(nano_policy):
    prompts = [
        list(nano_policy.render([{"role": "user", "content": q}]).token_ids) for q in QUESTIONS
    ]
    cache = PrefixCache()
    written = nano_policy.generate_ids(prompts, ["</search>"], [9] * 4, cache=cache)
    contexts = [[*p, *g.token_ids, 5] for p, g in zip(prompts, written, strict=True)]
    assert cache.resume(contexts[::-1], pad=0) is None


def test_a_model_with_sliding_windows_keeps_nothing(tiny_policy):
    """A window counts columns, hidden ones too: continuing it would not be exact."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tiny_policy.tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        sliding_window=8,
        eos_token_id=tiny_policy.eos_id,
        pad_token_id=tiny_policy.tokenizer.pad_token_id,
        bos_token_id=None,
    )
    policy = LocalPolicy(MistralForCausalLM(config).eval(), tiny_policy.tokenizer)
    cache = PrefixCache()
    prompts = ask(policy)
    written = policy.generate_ids(prompts, ["</search>"], [6] * 4, cache=cache)
    contexts = [[*p, *g.token_ids, 5] for p, g in zip(prompts, written, strict=True)]
    assert cache.resume(contexts, pad=0) is None


def test_rows_of_several_caches_go_on_together(nano_policy, monkeypatch):
    plain = converse(nano_policy, None, [[0, 1, 2, 3], [2, 3, 0, 1]])
    contexts, caches = ask(nano_policy), [PrefixCache(), PrefixCache()]
    for cache, rows in zip(caches, ([2, 3], [0, 1]), strict=True):
        written = nano_policy.generate_ids(
            [contexts[row] for row in rows], ["</search>"], [LIMITS[r] for r in rows], cache=cache
        )
        for row, generation in zip(rows, written, strict=True):
            inserted = nano_policy.encode(RESULTS[row % 2])
            contexts[row] = contexts[row] + list(generation.token_ids) + inserted
    assert [cache.size for cache in caches] == [2, 2]
    joint = PrefixCache.join(caches)
    assert (joint.size, *(cache.size for cache in caches)) == (4, 0, 0)
    widths = []
    generate = nano_policy.model.generate

    def watched(**inputs):
        widths.append((inputs["input_ids"].shape[1], inputs["past_key_values"] is not None))
        return generate(**inputs)

    monkeypatch.setattr(nano_policy.model, "generate", watched)
    order = [2, 3, 0, 1]
    together = nano_policy.generate_ids(
        [contexts[row] for row in order], ["</answer>"], [LIMITS[r] for r in order], cache=joint
    )
    assert [g.token_ids for g in together] == [plain[row][1] for row in order]
    longest = max(len(nano_policy.encode(text)) for text in RESULTS)
    assert widths[0][0] <= longest + 1 and widths[0][1]


def test_empty_caches_join_to_an_empty_one():
    assert PrefixCache.join([PrefixCache(), PrefixCache()]).size == 0
    assert PrefixCache.join([]).size == 0
