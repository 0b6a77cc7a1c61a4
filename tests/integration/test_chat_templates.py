"""Every chat template that `trl` ships: what a model is asked with it, and one training step."""

from __future__ import annotations

import gc
import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rsearch_cli.policy.generation import Generation
from rsearch_cli.policy.loading import load_tokenizer
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prompts import fit_recipe, render_question
from rsearch_cli.protocol.prompt import build_messages
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.training.grpo import GrpoTraining
from rsearch_cli.types import Question
from rsearch_cli.workflows.preview import make_preview
from rsearch_cli.workflows.train import train

SPEC = find_spec("trl")
assert SPEC is not None and SPEC.origin is not None
FOLDER = Path(SPEC.origin).parent / "chat_templates"
TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.jinja"))

QUESTION = Question("q1", "Which river flows through Rome?", ("Tiber",))
THOUGHT = "<think>"
PLAN = (
    "<think> The river of Rome. </think>\n"
    "<search>\nNodes:\nA: river Rome (General)\nEdges:\n</search>"
)
RIGHT, WRONG = "<answer> Tiber </answer>", "<answer> Po </answer>"

MARK = re.compile(r"<[^<>\s]{1,40}>")
TAGS = re.compile(r"</?(think|search|result|answer)>")

OPENING = {
    *("deepseek_r1_distill", "deepseekv3", "nemotron_3_nano", "nemotron_3_super"),
    *("nemotron_3_ultra", "nemotron_3_5_lightning", "qwen3_5_think", "qwen3_6", "qwen3_8"),
}
FAMILIES = {
    ("gemma", "gemma_training"): "takes no system message (System role not supported)",
    ("qwen3_5_nothink",): "an empty thought is closed before the model's turn",
    ("gptoss", "llama3_2", "muse_glimmer"): "it writes the date",
    ("qwen3_8",): "worked examples as earlier turns (it adds <think> to the assistant's messages)",
    (
        *("deepseek_r1_distill", "deepseekv3", "glm4moe", "lfm2_2_5", "lfm2_2_5_vl", "qwen3"),
        *("qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "nemotron_3_nano", "nemotron_3_super"),
    ): "worked examples as earlier turns (it changes or drops message 3 (assistant))",
}
"""What some of them are known for, and what is told of it."""


def test_there_are_templates_to_try() -> None:
    assert len(TEMPLATES) > 60
    assert {*OPENING, *(name for family in FAMILIES for name in family)} <= set(TEMPLATES)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two tiny layers, whose tokenizer knows no mark of any template."""
    folder = tmp_path_factory.mktemp("base")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    rules = recipe_for(folder, folder).protocol.model_copy(update={"example_turns": 3})
    texts = [m["content"] for m in build_messages(QUESTION, rules, 1)] + [
        path.read_text(encoding="utf-8") for path in FOLDER.glob("*.jinja")
    ]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=960, initial_alphabet=alphabet, special_tokens=["<s>", "</s>", "<pad>"]
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def make(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Makes that model with a template of trl, once for all tests."""
    folder = tmp_path_factory.mktemp("models")
    # A trainer collects garbage; what has been imported is none, and takes half a second to visit.
    gc.freeze()
    yield cache(lambda name: make_model(base, folder / name, name))
    gc.unfreeze()


@pytest.fixture
def model(make: Callable[[str], Path], name: str) -> Path:
    """The model folder with the template of a test."""
    return make(name)


def make_model(base: Path, folder: Path, name: str) -> Path:
    """That model with a template of trl, and with the marks that it writes as tokens."""
    shutil.copytree(base, folder)
    template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    user = {"role": "user", "content": "U"}
    chats = ([user], [user, {"role": "assistant", "content": "A"}], [{**user, "role": "system"}])
    shown = "".join(
        render(tokenizer, chat, prompt=prompt) or "" for chat in chats for prompt in (True, False)
    )
    marks = [m for m in dict.fromkeys(MARK.findall(shown)) if not TAGS.fullmatch(m)]
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    assert len(tokenizer) <= 1024
    tokenizer.save_pretrained(folder)
    return folder


def recipe_for(model: Path, folder: Path, *settings: str) -> Recipe:
    questions, corpus = folder / "questions.jsonl", folder / "corpus.jsonl"
    rows = [
        {"id": f"q{i}", "question": text, "answer": "Tiber", "split": split}
        for i, (text, split) in enumerate(
            (("Which river?", "test"), (QUESTION.text, "train"), ("Rome lies on what?", "train"))
        )
    ]
    questions.write_text("\n".join(map(json.dumps, rows)))
    corpus.write_text(json.dumps({"id": "1", "title": "Rome", "text": "Rome lies on the Tiber."}))
    given = (
        "questions.source=custom",
        f"questions.path={questions}",
        "questions.difficulty=null",
        f"policy.model={model}",
        "policy.backend=transformers",
        "policy.max_seq_length=8192",
        "policy.lora.target_modules=[q_proj]",
        "protocol.system_prompt=null",
        "protocol.example_turns=2",
        "rollout.max_new_tokens=200",
        "train.max_steps=1",
        "train.batch_size=2",
        "train.num_generations=2",
        "train.save_steps=10",
        "evaluate.split=test",
        "evaluate.limit=1",
        "evaluate.sampled=false",
        *(f"search.sources.{name}.corpus={corpus}" for name in ("General", "News", "Academy")),
    )
    return load_recipe("quickstart", (*given, *settings)).recipe


def render(tokenizer: Any, chat: list[dict[str, Any]], *, prompt: bool = True) -> str | None:
    """What the template itself, as trl ships it, makes of a chat; None if it refuses that."""
    day = date(2024, 7, 26)
    try:
        return tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=prompt, strftime_now=day.strftime
        )
    except Exception:
        return None


def holds(text: str | None, chat: list[dict[str, str]]) -> bool:
    """Whether every message stands in a text to the letter, in order, with no thought added."""
    if text is None:
        return False
    for message in chat:
        before, found, text = text.partition(message["content"].strip())
        if not found or (message["role"] == "assistant" and THOUGHT in before):
            return False
    return True


def fold(chat: list[dict[str, str]]) -> list[dict[str, str]]:
    system, first, *rest = chat
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def in_parts(chat: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in chat]


def meant(tokenizer: Any, chat: list[dict[str, str]]) -> str | None:
    """The prompt that the template gives for a chat, in whatever way it takes one."""
    for variant in (chat, fold(chat)):
        for given in (variant, in_parts(variant)):
            text = render(tokenizer, given)
            if holds(text, chat):
                return text
    return None


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_prompt_is_what_its_template_means(name: str, model: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model, tmp_path)
    untouched = AutoTokenizer.from_pretrained(model)
    chat_tokenizer = load_tokenizer(recipe.policy)
    fitted, notes = fit_recipe(recipe, chat_tokenizer)
    asked_for = build_messages(QUESTION, recipe.protocol, 1)
    held = meant(untouched, asked_for)
    plain = recipe.protocol.model_copy(update={"example_turns": 0})
    expected = held or meant(untouched, build_messages(QUESTION, plain, 1))
    assert expected is not None
    prompt = render_question(QUESTION, chat_tokenizer, fitted)
    ids, opening = list(prompt.token_ids), prompt.opening
    assert ids == untouched.encode(expected, add_special_tokens=False)
    assert ids.count(untouched.bos_token_id) <= 1
    tail = re.search(r"<think>\s*\Z", expected)
    assert opening == (tail[0] if tail else "")
    told = "\n".join(notes)
    for family, words in FAMILIES.items():
        assert name not in family or words in told
    assert (name in OPENING) <= (opening != "")
    assert ("worked examples" in told) is (held is None)
    system = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    taken = any(holds(render(untouched, given), system) for given in (system, in_parts(system)))
    assert ("takes no system message" in told) is (not taken)
    assert "as tokens" not in told and "no generation prompt" not in told
    # A card shows how to render a chat with the tokenizer that was trained with.
    saved = chat_tokenizer.tokenizer.apply_chat_template(
        build_messages(QUESTION, fitted.protocol, 1),
        add_generation_prompt=True,
        return_dict=False,
        strftime_now=date(2024, 7, 26).strftime,
    )
    assert saved == ids


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_opened_thought_is_opened_once(name: str, model: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model, tmp_path, "rollout.open_thought=true")
    chat_tokenizer = load_tokenizer(recipe.policy)
    fitted, _ = fit_recipe(recipe, chat_tokenizer)
    prompt = render_question(QUESTION, chat_tokenizer, fitted)
    text = chat_tokenizer.decode(prompt.token_ids)
    assert prompt.opening.strip() == THOUGHT and text.endswith(prompt.opening)
    assert not re.search(r"<think>\s*(</think>\s*)?<think>\s*\Z", text)


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_ends_with_the_mark_of_its_template(
    name: str, model: Path, tmp_path: Path
) -> None:
    untouched = AutoTokenizer.from_pretrained(model)
    user, answer = {"role": "user", "content": "U"}, {"role": "assistant", "content": "xyzzy"}
    chats = ([user, answer], in_parts([user, answer]), [user, answer, user])
    texts = [render(untouched, chat, prompt=False) or "" for chat in chats]
    behind = [text.partition("xyzzy")[2].lstrip() for text in texts]
    mark = next(MARK.match(text) for text in behind if text)
    assert mark is not None
    policy = load_tokenizer(recipe_for(model, tmp_path).policy)
    assert policy.template.turn_end == untouched.convert_tokens_to_ids(mark[0])


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What every training step hands to TRL, while the model writes what a script says.

    The ids are sampled by nobody, but they are as many, and the loss is that of the real model.
    """
    handed: list[dict[str, Any]] = []
    roll_out = GrpoTraining.roll_out

    def generate(
        self: LocalPolicy, contexts: Any, stops: Any, limits: Any, *_: Any, **__: Any
    ) -> list[Generation]:
        return [write(self, context, row, stops) for row, context in enumerate(contexts)]

    def watched(self: GrpoTraining, prompts: Any, trainer: Any) -> dict[str, Any]:
        handed.append(roll_out(self, prompts, trainer))
        return handed[-1]

    monkeypatch.setattr(LocalPolicy, "generate_ids", generate)
    monkeypatch.setattr(GrpoTraining, "roll_out", watched)
    return handed


def write(policy: LocalPolicy, context: list[int], row: int, stops: list[str]) -> Generation:
    text = (RIGHT, WRONG)[row % 2]
    if "</search>" in stops:
        opened = policy.decode(context).rstrip().endswith(THOUGHT)
        text = PLAN.removeprefix(THOUGHT) if opened else PLAN
    return Generation(tuple(policy.tokenizer.encode(text, add_special_tokens=False)), text, "tag")


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_previewed_and_trained_with(
    name: str, model: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    recipe = recipe_for(model, tmp_path)
    shown = make_preview(recipe, 1, with_rollout=True)
    folder = tmp_path / "run"
    train(recipe, folder)
    (step,) = rows
    tokenizer = AutoTokenizer.from_pretrained(folder / "adapter")
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["prompts"] == shown["notes"]
    assert shown["prompt"]["text"] in [tokenizer.decode(ids) for ids in step["prompt_ids"]]
    opening = shown["prompt"]["opening"]
    for ids, mask, reward in zip(
        step["completion_ids"], step["env_mask"], step["reward"], strict=True
    ):
        written = tokenizer.decode([i for i, w in zip(ids, mask, strict=True) if w])
        plan = PLAN.removeprefix(THOUGHT) if opening else PLAN
        assert written in (plan + RIGHT, plan + WRONG)
        inserted = tokenizer.decode([i for i, w in zip(ids, mask, strict=True) if not w])
        assert inserted == "\n<result>\nA: Rome lies on the Tiber.\n</result>\n</s>"
        assert reward is not None
    rollouts = [json.loads(line) for line in (folder / "trajectories.jsonl").open()]
    assert {r["opening"] for r in rollouts} == {opening}
    assert all(r["reward"]["format"] == 1.0 for r in rollouts)
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert any(w.abs().sum() > 0 for key, w in weights.items() if "lora_B" in key)
