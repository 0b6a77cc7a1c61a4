"""What a person is told of prompts that a model cannot hold, and when: before it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from openai_chat import API_KEY, ChatServer
from openai_policy import write_as_agent
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.policy.resolve import locate_model

CHATML = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
FORGETFUL = (
    CHATML.replace(
        "m.content", "(m.content.split('</think>')[-1] if loop.index > 1 else m.content)"
    )
    + PROMPT
)

SMALL = [
    "--recipe", "quickstart",
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", "questions.max_samples=12",
    "--set", "policy.backend=transformers",
    "--set", "protocol.system_prompt=Search, then answer.",
]  # fmt: skip
TRAIN = [
    *SMALL,
    "--set", "train.max_steps=1",
    "--set", "train.batch_size=2",
    "--set", "train.num_generations=2",
    "--set", "rollout.max_new_tokens=40",
    "--set", "evaluate.limit=2",
    "--set", "evaluate.sampled=false",
]  # fmt: skip


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def make_model(folder: Path, template: str | None, name: str = "chat_template.jinja") -> Path:
    """The nano model with another chat template."""
    shutil.copytree(locate_model("builtin:nano"), folder)
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / name).write_text(template, encoding="utf-8")
    return folder


def test_a_preview_shows_examples_whole_and_says_where_they_went(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", FORGETFUL)
    result = call(
        "preview", *SMALL, "--model-name", model, "--no-rollout", "--json",
        "--set", "protocol.example_turns=2", "--set", "rollout.open_thought=true",
    )  # fmt: skip
    told = json.loads(result.stdout)
    text = told["prompt"]["text"]
    assert text.count("</think>\n<search>") == 2, "every plan of an example is behind its thought"
    assert text.count("<think>") == text.count("</think>") + 1 and text.endswith("<think>")
    (note,) = told["notes"]
    assert result.stderr == f"warning: {note}\n"
    assert "cannot hold worked examples as earlier turns" in note


def test_a_run_with_a_template_that_refuses_a_system_message_trains_and_says_so(
    tmp_path: Path,
) -> None:
    model = make_model(tmp_path / "model", REFUSING + CHATML)
    run = tmp_path / "run"
    arguments = ["--model-name", model, "--output-dir", run]
    result = call("train", *TRAIN, *arguments)
    assert result.exit_code == 0, result.stderr
    refused, prompted = json.loads((run / "environment.json").read_text())["prompts"]
    assert "takes no system message (no system role)" in refused
    assert "no generation prompt; the model's turn starts with '<|assistant|>'" in prompted
    before_loading = result.stderr.partition("loading ")[0]
    assert refused in before_loading and prompted in before_loading
    # The agent can be asked, evaluated and published as it was trained.
    from transformers import AutoTokenizer

    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    saved = AutoTokenizer.from_pretrained(run / "adapter")
    rendered = saved.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|user|>S\n\nU<|end|><|assistant|>"
    evaluated = call("eval", "--model", run, "--limit", "2", "--output-dir", tmp_path / "eval")
    assert evaluated.exit_code == 0, evaluated.stderr
    assert refused in evaluated.stderr.partition("loading ")[0]
    assert "Search, then answer." in (run / "recipe.yaml").read_text()
    resumed = call("train", *TRAIN, *arguments, "--resume")
    assert resumed.exit_code == 0, resumed.stderr


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail as soon as weights are loaded."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rsearch_cli.policy.loading._load", fail)


@pytest.mark.usefixtures("unloadable")
@pytest.mark.parametrize(
    "command",
    [
        ["train", "--output-dir", "run"],
        ["preview"],
        ["eval", "--output-dir", "eval"],
        ["infer", "Who?"],
    ],
    ids=lambda command: command[0],
)
class TestBeforeTheModelIsLoaded:
    """Each command meets what its prompts lack before weights are read."""

    def run(self, command: list[str], *arguments: Any) -> str:
        result = call(*command, *SMALL, *arguments)
        assert result.exit_code == 60, (result.exception, result.stderr)
        *_, line = result.stderr.splitlines()
        assert "loading" not in result.stderr
        assert not Path("run").exists()
        return line

    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_broken_jinja(self, command: list[str], tmp_path: Path) -> None:
        model = make_model(tmp_path / "model", "{% for m in messages %}\n{{ m.content }\n")
        line = self.run(command, "--set", f"policy.model={model}")
        assert f"{model}: its chat template fails (line 2): unexpected '}}'" in line

    def test_a_base_model_without_a_template(self, command: list[str], tmp_path: Path) -> None:
        model = make_model(tmp_path / "model", None)
        assert "has no chat template" in self.run(command, "--set", f"policy.model={model}")

    def test_a_prompt_that_is_too_long(self, command: list[str]) -> None:
        prompt = "Search, then answer. " * 40
        line = self.run(
            command,
            "--set",
            f"protocol.system_prompt={prompt}",
            "--set",
            "policy.max_seq_length=128",
        )
        assert ": its prompt has " in line
        assert "policy.max_seq_length=128 leaves room for 126; raise it or drop" in line


@pytest.mark.usefixtures("unloadable")
def test_one_long_question_among_many_is_found_before_the_model_is_loaded(tmp_path: Path) -> None:
    rows = [
        {"id": f"q{i}", "question": "Who wrote it? " * (200 if i == 17 else 1) + str(i),
         "answer": "Ada", "split": "train" if i % 2 else "test"}
        for i in range(40)
    ]  # fmt: skip
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "1", "title": "It", "text": "By Ada."}))
    mine = [
        "--set", "questions.source=custom", "--set", f"questions.path={tmp_path / 'q.jsonl'}",
        "--set", "questions.difficulty=null", "--set", "questions.max_samples=null",
        *(part for name in ("General", "News", "Academy")
          for part in ("--set", f"search.sources.{name}.corpus={tmp_path / 'c.jsonl'}")),
    ]  # fmt: skip
    for command in (["train", "--output-dir", tmp_path / "run"], ["preview"]):
        result = call(*command, *SMALL, *mine)
        assert result.exit_code == 60, result.stderr
        assert "question q17: its prompt has " in result.stderr
    rows[17]["split"], rows[16]["question"] = "test", rows[17]["question"]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for methods in ("rsearch", "rag", "direct"):
        result = call(
            "eval", *SMALL, *mine, "--method", methods, "--output-dir", tmp_path / methods
        )
        assert result.exit_code == 60, result.stderr
        assert "question q16 (and 1 more like it): its prompt has " in result.stderr


def test_an_endpoint_is_only_tried_out_before_a_long_prompt_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    with ChatServer(write_as_agent) as server:
        result = call(
            "infer", "Who wrote it? " * 60, *SMALL, "--set", "policy.max_seq_length=128",
            "--endpoint", server.base_url, "--endpoint-model", "any",
        )  # fmt: skip
        asked = [r for r in server.requests if r.method == "POST"]
    assert result.exit_code == 60 and "question asked-1: its prompt has " in result.stderr
    assert [r.body["max_tokens"] for r in asked] == [16]


def test_a_person_is_told_of_the_day_it_is_and_a_run_of_one_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import date

    from rsearch_cli.policy.local import LocalPolicy

    dated = "<|system|>{{ strftime_now('%Y-%m-%d') }}<|end|>" + CHATML + PROMPT
    model = make_model(tmp_path / "model", dated)
    seen: list[str] = []
    generate = LocalPolicy.generate

    def watched(self: LocalPolicy, contexts: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(self.decode(contexts[0].token_ids))
        return generate(self, contexts, *arguments, **options)

    monkeypatch.setattr(LocalPolicy, "generate", watched)
    result = call("infer", "Who?", *SMALL, "--set", f"policy.model={model}", "--json")
    assert result.exit_code == 0, result.stderr
    assert seen[0].startswith(f"<|system|>{date.today().isoformat()}<|end|>")
    seen.clear()
    result = call(
        "eval", *SMALL, "--set", f"policy.model={model}", "--limit", "1",
        "--output-dir", tmp_path / "eval",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert seen[0].startswith("<|system|>2024-07-26<|end|>")
