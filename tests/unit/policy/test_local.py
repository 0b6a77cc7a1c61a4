"""Generation on token ids: stops, limits, padding and batches."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from rsearch_cli.errors import OutOfMemory, PolicyError
from rsearch_cli.policy.chat_tokenizer import ensure_pad_token
from rsearch_cli.policy.generation import GREEDY, Row, Sampling
from rsearch_cli.policy.loading import load_policy
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.stopping import TagStop, TextStream

WARM = Sampling(temperature=1.0)


def nano_prompts(policy: LocalPolicy) -> list[list[int]]:
    questions = [
        "Where was Giszos Nenfu born?",
        "Who is the mayor of the city where Pirklan Motors is based?",
        "Who wrote The Hedan Lantern?",
        "In which country is Klildu?",
    ]
    return [policy.render([{"role": "user", "content": q}]).token_ids for q in questions]


def test_a_batch_gives_what_each_row_gives_alone(nano_policy):
    prompts = nano_prompts(nano_policy)
    assert len({len(p) for p in prompts}) > 1, "padding is only tested on ragged prompts"
    stops, limits = ["</search>"], [60] * len(prompts)
    fail_together = nano_policy.generate_ids(prompts, stops, limits)
    alone = [nano_policy.generate_ids([p], stops, [60])[0] for p in prompts]
    assert fail_together == alone
    assert {g.stop for g in fail_together} == {"tag"}


def test_a_row_stops_right_behind_its_tag(nano_policy):
    for written in nano_policy.generate_ids(nano_prompts(nano_policy), ["</search>"], [60] * 4):
        assert written.text.endswith("</search>")
        assert written.text.count("</search>") == 1
        assert nano_policy.decode(written.token_ids) == written.text


def test_every_row_keeps_to_its_own_limit(nano_policy):
    limits = [3, 9, 1, 5]
    written = nano_policy.generate_ids(nano_prompts(nano_policy), ["</search>"], limits)
    assert [len(g.token_ids) for g in written] == limits
    assert {g.stop for g in written} == {"length"}


def test_a_sampled_end_of_sequence_ends_a_row_and_stays_out_of_its_text(tiny_policy, monkeypatch):
    eos = tiny_policy.eos_id
    assert tiny_policy._cut([5, 6, eos, 7, 7], None, 5).token_ids == (5, 6, eos)
    written = tiny_policy._cut([5, 6, eos, 7, 7], None, 5)
    assert written.stop == "eos"
    assert written.text == tiny_policy.decode([5, 6])


def test_a_tag_behind_the_end_of_sequence_or_the_limit_does_not_count(tiny_policy):
    eos = tiny_policy.eos_id
    assert tiny_policy._cut([5, eos, 8, 9], 4, 9).stop == "eos"
    assert tiny_policy._cut([5, 6, 8, 9], 4, 3).stop == "length"
    assert tiny_policy._cut([5, 6, 8, 9], 4, 4).stop == "tag"


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("<search>\nA: x (General)\n</search>", True),
        ("so </search>\n", False),  # the newest token must be the one that completes the tag
        ("</searc", False),
        ("a -> b", False),
        ("</answer>", False),
    ],
)
def test_a_tag_of_many_tokens_is_seen_when_it_is_complete(tiny_policy, text, ends):
    import torch

    tokenizer = tiny_policy.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(tokenizer.encode("</search>", add_special_tokens=False)) > 1
    stop = TagStop(tokenizer, [Row(ids, ["</search>"], 9)], width=0)
    assert stop(torch.tensor([ids]), None).tolist() == [ends]


def test_a_tag_in_the_prompt_is_not_taken_for_a_new_one(tiny_policy):
    import torch

    tokenizer = tiny_policy.tokenizer
    prompt = tokenizer.encode("write </search", add_special_tokens=False)
    close = tokenizer.encode(">", add_special_tokens=False)
    stop = TagStop(tokenizer, [Row(prompt, ["</search>"], 9)], width=len(prompt))
    assert stop(torch.tensor([prompt + close]), None).tolist() == [False]


def test_generation_leaves_the_model_in_the_mode_it_was_in(nano_policy):
    for training in (True, False):
        nano_policy.model.train(training)
        nano_policy.generate_ids(nano_prompts(nano_policy)[:1], ["</search>"], [2])
        assert nano_policy.model.training is training


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_what_the_model_ships_as_its_own_settings_is_left_out(quickstart, sampling):
    loaded = load_policy(quickstart.policy, seed=0)
    asked = nano_prompts(loaded)[:2], ["</search>"], [30, 30], sampling
    torch.manual_seed(0)
    plain = loaded.generate_ids(*asked)
    shipped = GenerationConfig(
        eos_token_id=list(loaded.eos_ids),
        do_sample=True,
        top_k=1,
        repetition_penalty=5.0,
        min_length=25,
        suppress_tokens=[g.token_ids[0] for g in plain],
    )
    loaded.model.generation_config = loaded.model.get_base_model().generation_config = shipped
    policy = LocalPolicy(loaded.model, loaded.tokenizer)
    torch.manual_seed(0)
    assert policy.generate_ids(*asked) == plain


def test_inserted_text_brings_no_control_token(nano_policy):
    ids = nano_policy.encode("a <|end|><|pad|><|user|> b")
    assert nano_policy.decode(ids).split() == ["a", "b"]


class FakeTokenizer:
    def __init__(self, eos: str, pad: str | None, added: dict[str, int], unk: str | None = None):
        self.name_or_path, self.eos_token, self.pad_token, self.unk_token = "m", eos, pad, unk
        self.added = added

    pad_token_id = property(lambda self: self.added.get(self.pad_token))
    eos_token_id = property(lambda self: self.added[self.eos_token])

    def get_added_vocab(self) -> dict[str, int]:
        return self.added

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.added[token]


def test_a_pad_token_that_is_the_end_token_is_replaced_by_a_spare_one():
    tokenizer = FakeTokenizer("<eos>", "<eos>", {"<eos>": 0, "<|fim_pad|>": 1})
    ensure_pad_token(tokenizer)
    assert tokenizer.pad_token == "<|fim_pad|>"


def test_a_pad_token_of_its_own_is_kept():
    tokenizer = FakeTokenizer("<eos>", "<p>", {"<eos>": 0, "<p>": 1, "<|fim_pad|>": 2})
    ensure_pad_token(tokenizer)
    assert tokenizer.pad_token == "<p>"


def test_a_vocabulary_without_a_spare_token_is_refused():
    tokenizer = FakeTokenizer("<eos>", None, {"<eos>": 0})
    with pytest.raises(PolicyError, match="no pad token apart from its end-of-sequence token"):
        ensure_pad_token(tokenizer)


def test_a_tokenizer_without_a_chat_template_is_refused(tiny_policy):
    import copy

    tokenizer = copy.copy(tiny_policy.tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(PolicyError, match="has no chat template; use an instruct model"):
        LocalPolicy(tiny_policy.model, tokenizer)


def test_a_template_that_opens_the_thought_is_noticed(tiny_policy):
    import copy

    tokenizer = copy.copy(tiny_policy.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"
    )
    policy = LocalPolicy(tiny_policy.model, tokenizer)
    prompt = policy.render([{"role": "user", "content": "Why?"}])
    assert prompt.opening == "<think>\n"
    assert policy.decode(prompt.token_ids) == "Why?<think>\n"


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_memory_that_runs_out_is_named_as_what_it_is(nano_policy, monkeypatch, kind):
    def generate(**inputs):
        raise kind(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23 GiB."
        )

    monkeypatch.setattr(nano_policy.model, "generate", generate)
    with pytest.raises(OutOfMemory) as caught:
        nano_policy.generate_ids(nano_prompts(nano_policy), ["</search>"], [60] * 4)
    assert str(caught.value) == "CUDA out of memory. Tried to allocate 2.00 GiB"


def test_any_other_failure_of_a_device_stays_what_it_is(nano_policy, monkeypatch):
    def generate(**inputs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(nano_policy.model, "generate", generate)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        nano_policy.generate_ids(nano_prompts(nano_policy), ["</search>"], [60] * 4)


def test_text_is_told_in_whole_characters_and_without_the_end(tiny_policy):
    told: list[str] = []
    watch = TextStream(
        tiny_policy.decode, [Row([7, 7], [], 9, on_text=told.append)], 2, tiny_policy.eos_ids, set()
    )
    ids = tiny_policy.encode("aé→")
    assert len(ids) > 3, "the tokenizer splits characters"
    ids.append(tiny_policy.eos_id)
    for end in range(1, len(ids) + 1):
        done = watch(torch.tensor([[7, 7, *ids[:end]]]), None)
        assert done.tolist() == [False]
    assert list(dict.fromkeys(told)) == ["a", "aé", "aé→"]
