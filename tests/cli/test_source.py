"""`--source`: the live web in place of the recipe's sources, without a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend import BACKEND
from mediawiki import MediaWikiServer, WikiPage
from openai_chat import API_KEY, ChatServer
from openai_policy import write_as_agent
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.loading import load_recipe

ON_CPU = ("--set", f"policy.backend={BACKEND}")


@pytest.fixture(scope="module")
def wiki() -> Iterator[MediaWikiServer]:
    """A wiki about the fictional world: of each subject, its first fact is the introduction."""
    recipe = load_recipe("quickstart").recipe
    texts: dict[str, list[str]] = {}
    for passage in open_question_set(recipe.questions, recipe.seed).corpus():
        texts.setdefault(passage.title, []).append(passage.text)
    pages = [WikiPage(title, rows[0], " ".join(rows[1:])) for title, rows in texts.items()]
    with MediaWikiServer(pages) as server:
        yield server


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("EXA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_infer_asks_wikipedia_without_a_recipe_and_a_key(wiki: MediaWikiServer) -> None:
    source = f"{{type: wikipedia, options: {{url: '{wiki.url}'}}}}"
    result = call("infer", "--source", source, "Where is Dresja Press based?", "--json", *ON_CPU)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["answer"] == "Hersul"
    assert told["citations"][0]["url"] == f"{wiki.url}/wiki/Dresja_Press"
    assert len(wiki.requests) == told["searches"] == 1
    # A newcomer who asks about the real world learns what to type instead.
    assert "builtin:nano knows only the names of its own fictional world" in result.stderr
    assert "add --recipe hotpot-offline --model " in result.stderr


def test_a_model_that_knows_the_world_needs_no_question_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    pages = [WikiPage("City 3", "The number of city 3: it has the number Nr 51.")]
    with MediaWikiServer(pages) as wiki, ChatServer(write_as_agent) as model:
        source = f"{{type: wikipedia, options: {{url: '{wiki.url}'}}}}"
        result = call(
            "infer", "What is the number of city 3?", "--source", source, "--json",
            "--recipe", "hotpot-offline", "--endpoint", model.base_url, "--endpoint-model", "m",
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["answer"], told["citations"][0]["url"]) == ("Nr 51", f"{wiki.url}/wiki/City_3")
    assert "fictional" not in result.stderr


def test_eval_asks_wikipedia(wiki: MediaWikiServer, tmp_path: Path) -> None:
    before = len(wiki.requests)
    source = f"{{type: wikipedia, options: {{url: '{wiki.url}'}}}}"
    folder = tmp_path / "eval"
    result = call("eval", "--source", source, "--limit", 4, "--output-dir", folder, *ON_CPU)
    assert result.exit_code == 0, result.output
    assert len(wiki.requests) > before
    assert "type: wikipedia" in (folder / "recipe.yaml").read_text()


@pytest.mark.parametrize("command", ["infer", "serve", "eval"])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "wikpedia",
            "rsearch: --source: there is no source kind 'wikpedia'; did you mean",
        ),
        ("http", "General.options.url is required, as in {type: http, options: {url: …}}"),
        ("exa", "EXA_API_KEY is not set; get one at https://dashboard.exa.ai/api-keys, or search"),
    ],
)
def test_what_a_kind_lacks_is_said(command: str, source: str, message: str, tmp_path: Path) -> None:
    more = {"infer": ["Who?"], "serve": ["--port", "0"], "eval": ["--output-dir", tmp_path / "e"]}
    result = call(command, *more[command], "--source", source, *ON_CPU)
    assert result.exit_code in (13, 41), result.output
    assert message in result.stderr


def test_bm25_needs_a_corpus(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "Who?", "answer": "Her"}\n')
    result = call(
        "infer", "Who?", "--recipe", "hotpot-offline", "--source", "bm25",
        "--set", "questions.source=custom", "--set", f"questions.path={questions}",
        "--model", "builtin:nano",
    )  # fmt: skip
    assert "has no corpus; set search.sources.<name>.corpus of every source" in result.stderr
