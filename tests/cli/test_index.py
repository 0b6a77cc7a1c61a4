"""`rsearch index`: prebuilt indexes, and corpora extracted from questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.search.corpus import read_corpus
from rsearch_cli.search.sources import open_sources

PASSAGES = [{"id": str(n), "title": f"Town {n}", "text": "A harbour town."} for n in range(9)]
QUESTION = {
    "id": "q1",
    "question": "Which is older?",
    "answer": "Alpha",
    "context": [["Alpha", ["Alpha began.", " It ended."]], ["Beta", ["Beta began."]]],
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "indexes"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus.jsonl", *PASSAGES)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def call(*arguments: object):
    return CliRunner().invoke(app, ["index", *map(str, arguments)])


def report(*arguments: object) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def fingerprint(corpus: object) -> str:
    names = ("General", "News", "Academy")
    settings = [f"search.sources.{name}.corpus={corpus}" for name in names]
    search = load_recipe("quickstart", settings).recipe.search
    return open_sources(search, list)["General"].fingerprint


def test_a_recipe_finds_the_index_that_was_made(cache: Path, corpus: Path) -> None:
    told = report(corpus)
    assert (told["passages"], told["was_ready"]) == (9, False)
    assert Path(told["index"]) == cache / told["key"]
    before = (cache / told["key"] / "checksums.json").stat().st_mtime_ns
    assert fingerprint(corpus) == f"bm25/{told['key']}/General"
    assert [p.name for p in cache.iterdir()] == [told["key"]]
    assert (cache / told["key"] / "checksums.json").stat().st_mtime_ns == before
    assert report(corpus)["was_ready"] is True


def test_an_index_elsewhere_is_a_corpus_of_its_own(
    cache: Path, corpus: Path, tmp_path: Path
) -> None:
    result = call(corpus, "--output", tmp_path / "index")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1] == (
        f"in a recipe: --set search.sources.<name>.corpus={tmp_path / 'index'}"
    )
    corpus.unlink()
    assert fingerprint(tmp_path / "index").startswith("bm25/")
    assert not cache.exists()


def test_a_corpus_out_of_questions_has_every_paragraph_once(cache: Path, tmp_path: Path) -> None:
    hub = {"title": ["Beta", "Gamma"], "sentences": [["Beta began."], ["G."]]}
    flashrag = {"title": ["Delta"], "content": [["D.", " E."]]}
    questions = write(
        tmp_path / "questions.jsonl",
        QUESTION,
        QUESTION | {"id": "q2", "context": hub},
        {"id": "q3", "metadata": {"context": flashrag}},
    )
    output = tmp_path / "corpus.jsonl"
    told = report("--from-questions", questions, "--output", output)
    assert (told["questions"], told["passages"]) == (3, 4)
    assert [(p.id, p.text) for p in read_corpus(output)] == [
        ("Alpha", "Alpha began. It ended."),
        ("Beta", "Beta began."),
        ("Gamma", "G."),
        ("Delta", "D. E."),
    ]
    assert not cache.exists()


def test_progress_goes_to_stderr(
    cache: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsearch_cli.workflows.index._SECONDS_BETWEEN_LINES", 0.0)
    result = call(corpus)
    assert result.stderr.splitlines()[-1] == "9 passages read"
    assert "passages read" not in result.stdout


def test_the_example_in_the_help_works(
    cache: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Example: rsearch index corpus.jsonl" in call("--help").stdout
    monkeypatch.chdir(corpus.parent)
    assert report("corpus.jsonl")["passages"] == 9


def test_a_folder_that_is_no_index_is_left_alone(cache: Path, corpus: Path) -> None:
    result = call(corpus, "--output", corpus.parent)
    assert (result.exit_code, result.stderr) == (
        20,
        f"rsearch: {corpus.parent} exists and is not an index; choose a new folder\n",
    )
    assert corpus.exists()


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (None, 21, "in.jsonl does not exist; set search.sources.<name>.corpus to a file of"),
        ('{"id": "1"}\n', 22, 'in.jsonl, line 1 (id "1"): there is no text, its fields are id'),
        ("\n", 23, "in.jsonl holds no passage; write one a line"),
    ],
)
def test_a_bad_corpus_is_one_line_and_its_own_code(
    content: str | None, code: int, message: str, cache: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "in.jsonl").write_text(content)
    result = call(tmp_path / "in.jsonl")
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1 and message in result.stderr


def test_a_question_without_paragraphs_is_named(tmp_path: Path) -> None:
    questions = write(tmp_path / "questions.jsonl", QUESTION, {"id": "q2", "question": "Who?"})
    output = tmp_path / "corpus.jsonl"
    result = call("--from-questions", questions, "--output", output)
    assert result.exit_code == 22
    assert "line 2 (id \"q2\"): 'context' is missing; without paragraphs" in result.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either CORPUS or --from-questions FILE"),
        (["a.jsonl", "--from-questions", "b.json"], "give either CORPUS or --from-questions FILE"),
        (["--from-questions", "b.json"], "--from-questions needs --output FILE"),
    ],
)
def test_bad_arguments_are_a_usage_error(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
