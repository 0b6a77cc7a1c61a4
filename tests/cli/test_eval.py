"""`rsearch eval`: local weights, a server, continuing, comparing, bad input."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backend import BACKEND
from faults import Fault, Faults
from openai_chat import API_KEY, ChatServer, grade_by_text
from openai_policy import SETTINGS, write_as_agent, write_files
from typer.testing import CliRunner, Result

import rsearch_cli
from rsearch_cli.app import app
from rsearch_cli.runs import output_folder
from rsearch_cli.runs.jsonl import append_rows
from rsearch_cli.workflows import open_evaluation

SMALL = [
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", f"policy.backend={BACKEND}",
    "--set", "rollout.max_new_tokens=80",
    "--limit", "6",
    "--batch-size", "4",
]  # fmt: skip


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def read(folder: Path, name: str = "results.json") -> Any:
    return json.loads((folder / name).read_text())


def rows(folder: Path) -> list[dict[str, Any]]:
    """The predictions without what depends on the clock."""
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def figures(folder: Path) -> Any:
    """The results without what depends on the clock."""
    results = read(folder)
    for block in results["methods"].values():
        del block["latency_seconds"], block["seconds_per_question"]
    del results["spend"]
    return results


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("evals") / "nano"
    result = call(*SMALL, "--method", "rsearch,rag,direct", "--output-dir", folder)
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(write_as_agent) as server:
        yield server


@pytest.fixture
def ask_server(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Evaluates the scripted agent behind the server on 20 questions."""
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    questions, corpus = write_files(tmp_path, 20)
    settings = (*SETTINGS, f"search.sources.General.corpus={corpus}")

    def ask(*arguments: object) -> Result:
        options = [word for setting in settings for word in ("--set", setting)]
        return call(
            *("--recipe", "hotpot-offline", "--endpoint", server.base_url),
            *("--endpoint-model", "agent", "--data-path", questions, *options, *arguments),
        )

    return ask


def test_the_table_is_printed_with_its_conditions(nano):
    folder, result = nano
    for words in (
        "exact match",
        "title recall",
        "seconds per question",
        "rsearch against direct, paired by question",
        "questions: 6 of fictional world",
        "split test",
        "provider: bm25 ",
        "top-k: 1",
        "judge: none",
    ):
        assert words in result.stdout
    assert "evaluating rag: 6/6 answers" in result.stderr
    assert (folder / "report.md").read_text().startswith("# Evaluation\n")


def test_results_contain_every_method_with_intervals(nano):
    results = read(nano[0])
    assert list(results["methods"]) == ["rsearch", "rag", "direct"]
    for block in results["methods"].values():
        assert block["n"] == 6 and block["failed_answers"] == 0
        low, high = block["intervals"]["em"]
        assert low <= block["em"] <= high
        assert block["latency_seconds"] == {"p50": None, "p95": None}
        assert block["seconds_per_question"] > 0
    assert results["methods"]["rsearch"]["plan_valid"] is not None
    assert results["methods"]["direct"]["title_recall"] is None
    assert re.fullmatch(r"[0-9a-f]{32}-v\d+", results["context"]["sources"]["News"]["corpus"])


def test_weights_that_never_follow_the_format_lead_to_a_warning_with_the_likely_setting(tmp_path):
    settings = [word.replace("max_new_tokens=80", "max_new_tokens=8") for word in SMALL]
    result = call(*settings, "--output-dir", tmp_path / "short", "--json")
    assert result.exit_code == 0, result.output
    problem = json.loads(result.stdout)["methods"]["rsearch"]["format_problem"]
    assert "cut off at the token limit: raise rollout.max_new_tokens (now 8)" in problem
    assert f"warning: rsearch: {problem}\n" in result.stderr


def test_a_finished_evaluation_is_only_read_again(nano, monkeypatch):
    from rsearch_cli.workflows import open_policy as policies

    def never(*arguments: object) -> None:
        raise AssertionError("the model was loaded")

    folder, first = nano
    before = figures(folder)
    monkeypatch.setattr(policies, "load_policy", never)
    again = call(*SMALL, "--method", "rsearch,rag,direct", "--output-dir", folder)
    assert again.exit_code == 0, again.output
    assert "continues with the 18 stored answers" in again.stderr
    assert again.stdout == first.stdout and figures(folder) == before


@pytest.mark.parametrize("loaded", [False, True], ids=["name", "recipe"])
def test_python_gets_the_results_of_the_command_and_prints_nothing(nano, capsys, loaded):
    folder, _ = nano
    options: dict[str, Any] = {
        "overrides": [word for word in SMALL[:8] if word != "--set"],
        "limit": 6,
        "batch_size": 4,
    }
    report = rsearch_cli.evaluate(
        rsearch_cli.load_recipe("quickstart") if loaded else None,
        methods=["rsearch", "rag", "direct"],
        output_dir=folder,
        **options,
    )
    assert report.results == read(folder) and report.folder == folder
    assert [result.method for result in report.answers[::6]] == ["rsearch", "rag", "direct"]
    assert capsys.readouterr() == ("", "")
    with pytest.raises(rsearch_cli.RsearchError, match="one or more of rsearch, rag, direct; got"):
        rsearch_cli.evaluate(methods=["magic"], output_dir=folder, **options)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.55, 0.99])
def test_an_evaluation_that_was_cut_off_ends_as_if_it_had_not_been(nano, tmp_path, keep):
    whole = nano[0]
    broken = tmp_path / "nano"
    broken.mkdir()
    for name in ("evaluation.json", "recipe.yaml", "spend.json"):
        (broken / name).write_bytes((whole / name).read_bytes())
    stored = (whole / "predictions.jsonl").read_bytes()
    (broken / "predictions.jsonl").write_bytes(stored[: int(len(stored) * keep)])
    result = call(*SMALL, "--method", "rsearch,rag,direct", "--output-dir", broken)
    assert result.exit_code == 0, result.output
    assert rows(broken) == rows(whole)
    assert figures(broken) == figures(whole)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evals") / "sampled"
    result = call(*SMALL, "--samples", 3, "--output-dir", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_samples_are_rows_of_the_one_record_and_one_score_per_question(nano, sampled):
    stored = rows(sampled)
    ids = [row["id"] for row in rows(nano[0])[:6]]
    assert [(row["sample"], row["id"]) for row in stored] == [(s, i) for s in range(3) for i in ids]
    assert len({row["transcript"] for row in stored}) > 6, "samples of a question differ"
    assert not any("sample" in row for row in rows(nano[0]))
    block = read(sampled)["methods"]["rsearch"]
    assert (block["n"], block["samples"]) == (6, 3)
    assert block["em"] == pytest.approx(sum(row["em"] for row in stored) / 18)
    assert block["em"] <= block["pass@2"] <= block["pass@3"]
    report = (sampled / "report.md").read_text()
    assert "avg@3" in report and "| pass@3 |" in report and "searches per answer" in report
    assert "3 samples of each question, temperature 1, top-p 1" in report


@pytest.mark.parametrize("keep", [0.2, 0.7])
def test_samples_are_drawn_again_as_they_were(sampled, tmp_path, keep):
    broken = tmp_path / "sampled"
    broken.mkdir()
    for name in ("evaluation.json", "recipe.yaml", "spend.json"):
        (broken / name).write_bytes((sampled / name).read_bytes())
    stored = (sampled / "predictions.jsonl").read_bytes()
    (broken / "predictions.jsonl").write_bytes(stored[: int(len(stored) * keep)])
    assert call(*SMALL, "--samples", 3, "--output-dir", broken).exit_code == 0
    assert rows(broken) == rows(sampled)
    assert figures(broken) == figures(sampled)


def test_samples_and_a_greedy_evaluation_are_compared_by_question(nano, sampled):
    refused = call(*SMALL, "--output-dir", sampled)
    assert refused.exit_code == 70
    assert "with samples = 3, now it is null" in refused.stderr
    compared = json.loads(call("compare", f"{nano[0]}:rsearch", sampled, "--json").stdout)
    (rsearch,) = compared["methods"]
    assert rsearch["n"] == rsearch["metrics"]["em"]["n"] == 6
    assert compared["settings"] == ["samples: None and 3"]
    assert "pass@3" in call("compare", sampled, sampled).stdout


def test_samples_of_a_server_differ_and_are_not_paid_for_twice(server, ask_server, tmp_path):
    replies = 0

    def vary(body):
        nonlocal replies
        replies += 1
        assert "seed" not in body
        said = write_as_agent(body)
        return replace(said, text=f"<think> {replies} </think>\n{said.text}")

    server.grade = vary
    arguments = ["--samples", 2, "--limit", 3, "--set", "policy.endpoint.cache_days=1"]
    arguments += ["--output-dir", tmp_path / "e"]
    first = ask_server(*arguments)
    assert first.exit_code == 0, first.output
    whole = rows(tmp_path / "e")
    assert len({row["transcript"] for row in whole}) == 6
    predictions = tmp_path / "e" / "predictions.jsonl"
    predictions.write_bytes(predictions.read_bytes()[:-10])
    paid = replies
    again = ask_server(*arguments)
    server.grade = write_as_agent
    assert again.exit_code == 0, again.output
    assert replies - paid <= 2, "only how the server continues a turn is asked again"
    assert [row["transcript"] for row in rows(tmp_path / "e")] == [r["transcript"] for r in whole]


def test_a_full_disk_ends_an_evaluation_that_continues_when_there_is_room(
    nano, tmp_path, monkeypatch
):
    whole, _ = nano
    arguments = (*SMALL, "--output-dir", tmp_path / "e")
    appended = []

    def append(path: Path, rows: Any) -> None:
        appended.append(path)
        if len(appended) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append_rows(path, rows)

    with monkeypatch.context() as patch:
        patch.setattr(output_folder, "append_rows", append)
        full = call(*arguments)
    assert full.exit_code == 73
    told = full.stderr.splitlines()[-1]
    assert told.startswith("rsearch: predictions.jsonl could not be written in ")
    assert "No space left on device" in told and "without --overwrite to continue" in told
    assert rows(tmp_path / "e") == rows(whole)[:4]
    assert call(*arguments).exit_code == 0
    assert rows(tmp_path / "e") == rows(whole)[:6]


def test_other_settings_in_the_same_folder_are_refused(nano):
    folder = nano[0]
    result = call(*SMALL, "--set", "search.top_k=2", "--method", "rag", "--output-dir", folder)
    assert result.exit_code == 70
    assert 'with methods = ["rsearch", "rag", "direct"], now it is ["rag"]' in result.stderr
    assert "choose another --output-dir, or start over with --overwrite" in result.stderr


def test_answers_that_were_scored_by_other_rules_are_not_continued(nano):
    methods = ["--method", "rsearch,rag,direct", "--output-dir", nano[0]]
    result = call(*SMALL, *methods, "--set", "reward.normalisation=cjk")
    assert result.exit_code == 70
    assert 'with normalisation = null, now it is "cjk"' in result.stderr


def test_a_run_brings_its_recipe_and_its_adapter(tmp_path):
    run = tmp_path / "run"
    train = [
        "--recipe",
        "quickstart",
        *SMALL[:8],
        "--set",
        "train.batch_size=8",
        "--set",
        "evaluate.limit=6",
    ]
    train += ["--num-generations", "4", "--max-steps", "1", "--lr", "0.05"]
    trained = CliRunner().invoke(
        app, ["train", "--recipe", "quickstart", *train, "--output-dir", str(run)]
    )
    assert trained.exit_code == 0, trained.output
    result = call("--model", run, "--json", "--output-dir", tmp_path / "e")
    assert result.exit_code == 0, result.output
    block = json.loads(result.stdout)["methods"]["rsearch"]
    after = read(run, "summary.json")["after"]
    assert [block[k] for k in ("n", "em", "f1", "plan_valid", "format_valid")] == [
        after[k] for k in ("n", "em", "f1", "plan_valid", "format_valid")
    ]
    plain = call(*SMALL, "--json", "--output-dir", tmp_path / "plain")
    assert json.loads(plain.stdout)["methods"]["rsearch"]["f1"] != block["f1"]


def test_a_server_is_evaluated_on_the_whole_file(ask_server, tmp_path):
    result = ask_server("--method", "rsearch,rag,direct", "--output-dir", tmp_path / "e")
    assert result.exit_code == 0, result.output
    methods = read(tmp_path / "e")["methods"]
    assert [methods[name]["n"] for name in methods] == [20] * 3
    # City 0, 5, 10 and 15 are looked up wrongly; 0, 7 and 14 are answered without tags.
    assert methods["rsearch"]["em"] == pytest.approx(14 / 20)
    assert methods["rag"]["em"] == pytest.approx(17 / 20)
    assert methods["direct"]["em"] == 0.0
    assert methods["rsearch"]["by_type"]["odd"]["n"] == 10
    assert "policy: model agent, url http://127.0.0.1" in result.stdout


def test_a_password_in_an_address_is_refused_and_never_stored(server, ask_server, tmp_path):
    asked = len(server.requests)
    address = server.base_url.replace("://", "://me:hunter2@")
    for words in (("--endpoint", address), ("--set", f"reward.judge.base_url={address}")):
        result = ask_server(*words, "--output-dir", tmp_path / "e")
        assert result.exit_code == 13
        assert "contains a user name or a password" in result.stderr
        assert "hunter2" not in result.output
    assert not (tmp_path / "e").exists() and len(server.requests) == asked


def test_many_at_once_answer_like_one_at_a_time(ask_server, tmp_path):
    for name, at_once in (("one", 1), ("many", 16)):
        service = f"policy.endpoint.service.concurrency={at_once}"
        assert ask_server("--set", service, "--output-dir", tmp_path / name).exit_code == 0
    assert rows(tmp_path / "one") == rows(tmp_path / "many")


def test_a_judge_scores_what_was_answered(server, ask_server, tmp_path):
    def both(body):
        return grade_by_text(body) if body["model"] == "gpt-4o-mini" else write_as_agent(body)

    server.grade = both
    address = f"reward.judge.base_url={server.base_url}"
    arguments = ["--judge", "--set", address, "--output-dir", tmp_path / "e"]
    result = ask_server(*arguments)
    server.grade = write_as_agent
    assert result.exit_code == 0, result.output
    block = read(tmp_path / "e")["methods"]["rsearch"]
    assert block["judge"] == pytest.approx(14 / 20) and block["unscored"] == 0
    assert block["usd"] > 0
    assert "judge: gpt-4o-mini, continuous" in result.stdout


@pytest.fixture
def answered(ask_server, tmp_path) -> Path:
    """An evaluation of the scripted agent without a judge: 20 answers, 14 of them right."""
    result = ask_server("--output-dir", tmp_path / "answered")
    assert result.exit_code == 0, result.output
    return tmp_path / "answered"


def test_answers_are_judged_anew_without_generating(server, answered, tmp_path, monkeypatch):
    before = {path.name: path.read_bytes() for path in answered.iterdir() if path.is_file()}
    asked = []

    def judge(body):
        asked.append(body["model"])
        return grade_by_text(body)

    monkeypatch.setattr(server, "grade", judge)
    settings = ["--set", f"reward.judge.base_url={server.base_url}"]
    settings += ["--set", "reward.judge.skip_exact_match=false"]
    scored = call("rescore", answered, "--judge", "strict", *settings)
    assert scored.exit_code == 0, scored.output
    assert set(asked) == {"strict"} and 0 < len(asked) <= 20
    assert {p.name: p.read_bytes() for p in answered.iterdir() if p.is_file()} == before
    new = tmp_path / "answered-rescored"
    results = read(new)
    block = results["methods"]["rsearch"]
    assert (block["judge"], block["unscored"]) == (pytest.approx(14 / 20), 0)
    assert results["spend"]["judge"]["usd"] > 0 and "policy" not in results["spend"]
    own = ("judge", "judged")
    kept = [{k: v for k, v in row.items() if k not in own} for row in rows(answered)]
    assert [{k: v for k, v in row.items() if k not in own} for row in rows(new)] == kept
    for words in (
        "answers: those of answered, scored anew",
        "judge: strict, continuous",
        "(A) and",
        "differs: judge.model: None and strict",
    ):
        assert words in " ".join(scored.stdout.split())
    assert "warning: the bill and budget.max_usd assume 0.15 and 0.6 USD per" in scored.stderr
    # The same answers elsewhere: every verdict is in the cache, and the price is known to be meant.
    paid = len(asked)
    prices = ["--set", "reward.judge.usd_per_million_input_tokens=1"]
    elsewhere = ["--output-dir", tmp_path / "other", "--json"]
    again = call("rescore", answered, "--judge", "strict", *settings, *prices, *elsewhere)
    assert again.exit_code == 0, again.output
    assert len(asked) == paid and "warning" not in again.stderr
    told = json.loads(again.stdout)
    assert told["results"]["methods"]["rsearch"]["judge"] == block["judge"]
    assert told["comparison"]["methods"][0]["metrics"]["em"]["difference"] == 0.0


def test_the_verdicts_of_the_same_judge_are_kept_without_cache_and_key(
    server, answered, tmp_path, monkeypatch
):
    asked = []

    def judge(body):
        asked.append(body["model"])
        return grade_by_text(body)

    monkeypatch.setattr(server, "grade", judge)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    every = ("--set", "reward.judge.skip_exact_match=false")
    every += ("--set", "reward.judge.service.requests_per_second=10000")

    def score(folder: str, output: str, *arguments: str) -> Any:
        """Score a folder anew with an empty cache; return the number of requests and the score."""
        monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / f"cache-{output}"))
        asked.clear()
        told = call("rescore", tmp_path / folder, *arguments, "--output-dir", tmp_path / output)
        assert told.exit_code == 0, told.output
        return len(asked), read(tmp_path / output)["methods"]["rsearch"]["judge"]

    first = score("answered", "judged", "--judge", "strict", *every)
    assert first == (17, pytest.approx(14 / 20))  # three gave no answer
    monkeypatch.delenv("OPENAI_API_KEY")
    longer = ("--set", "reward.judge.max_output_tokens=2048", "--set", "reward.normalisation=cjk")
    assert score("judged", "kept", "--judge", "strict", *longer) == (0, first[1])
    assert rows(tmp_path / "kept") == rows(tmp_path / "judged")
    # A verdict that failed is asked for again; so are all of another judge, mode or address.
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    lines = (tmp_path / "kept" / "predictions.jsonl").read_text().splitlines()
    failed = json.dumps({**json.loads(lines[3]), "judge": None})
    text = "\n".join([*lines[:3], failed, *lines[4:]]) + "\n"
    (tmp_path / "kept" / "predictions.jsonl").write_text(text)
    assert score("kept", "mended") == (1, first[1])
    assert score("kept", "other", "--judge", "lenient")[0] == 17
    assert score("kept", "discrete", "--set", "reward.judge.mode=discrete")[0] == 17
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base_url}/")
    assert score("kept", "elsewhere")[0] == 17
    # An earlier version did not store the address that the environment names.
    settings = read(tmp_path / "kept", "evaluation.json")
    settings["judge"]["base_url"] = None
    (tmp_path / "kept" / "evaluation.json").write_text(json.dumps(settings))
    assert score("kept", "unknown")[0] == 17


def test_scoring_anew_stops_with_its_judge_and_continues(server, answered, tmp_path, monkeypatch):
    from rsearch_cli.workflows import rescore

    monkeypatch.setattr(rescore, "MAX_BATCH", 5)
    asked: list[str] = []

    def judge(body):
        asked.append(body["messages"][-1]["content"])
        if len(asked) == 5:  # the first of the second batch
            server.faults = Faults([Fault.SERVER_ERROR])
        return grade_by_text(body)

    monkeypatch.setattr(server, "grade", judge)
    settings = ["--set", f"reward.judge.base_url={server.base_url}"]
    settings += ["--set", "reward.judge.skip_exact_match=false"]
    settings += ["--set", "reward.judge.service.retries=0"]
    settings += ["--set", "reward.judge.service.concurrency=1"]
    stopped = call("rescore", answered, "--judge", "strict", *settings)
    server.faults = Faults()
    assert stopped.exit_code == 81, stopped.output
    assert "verdicts of the evaluation failed" in stopped.stderr
    new = tmp_path / "answered-rescored"
    assert len(rows(new)) == 5 and not (new / "results.json").exists()
    assert call("rescore", answered, "--judge", "strict", *settings).exit_code == 0
    assert len(set(asked)) == len(asked), "no verdict was asked for twice"
    assert read(new)["methods"]["rsearch"]["judge"] == pytest.approx(14 / 20)


def test_what_cannot_be_scored_anew_is_refused(nano, sampled, tmp_path):
    own = call("rescore", sampled, "--output-dir", sampled)
    assert own.exit_code == 2 and "is the evaluation itself" in own.stderr
    scored = call("rescore", sampled, "--output-dir", tmp_path / "new")
    assert scored.exit_code == 0, scored.output
    assert rows(tmp_path / "new") == rows(sampled)
    other = call("rescore", nano[0], "--output-dir", tmp_path / "new")
    assert other.exit_code == 70 and "contains an evaluation with" in other.stderr
    (tmp_path / "new" / "results.json").unlink()
    unfinished = call("rescore", tmp_path / "new")
    assert unfinished.exit_code == 70 and "an evaluation that is not finished" in unfinished.stderr
    unused = call("rescore", sampled, "--set", "search.top_k=2", "--output-dir", tmp_path / "new")
    assert "--set search.top_k is not used by rsearch eval rescore" in unused.stderr


@pytest.fixture
def run_suite(server, tmp_path, monkeypatch) -> Callable[..., Result]:
    """Evaluates the scripted agent on a suite of two sets, one of which others report on."""
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    questions, corpus = write_files(tmp_path, 6)
    asked = [json.loads(line) for line in questions.read_text().splitlines()]
    (tmp_path / "dev.jsonl").write_text(
        "".join(json.dumps({**row, "golden_answers": [row["answer"]]}) + "\n" for row in asked[:4])
    )
    cities = f"questions.path: {questions}, evaluate.split: all, evaluate.limit: 6"
    (tmp_path / "suite.yaml").write_text(
        f"hotpot: {{questions.source: 'flashrag:hotpotqa', questions.path: {tmp_path}, "
        "evaluate.split: validation}\n"
        f"cities: {{questions.source: custom, {cities}}}\n"
    )
    settings = (*SETTINGS, f"search.sources.General.corpus={corpus}")

    def run(*arguments: object) -> Result:
        options = [word for setting in settings[1:] for word in ("--set", setting)]
        return call(
            *("--recipe", "hotpot-offline", "--endpoint", server.base_url),
            *("--endpoint-model", "agent", *options, *arguments),
        )

    return run


def test_a_suite_is_one_table_beside_published_figures(server, run_suite, tmp_path, monkeypatch):
    arguments = ("--suite", tmp_path / "suite.yaml", "--output-dir", tmp_path / "s")
    arguments += ("--samples", 2)
    first = run_suite(*arguments)
    assert first.exit_code == 0, first.output
    results = read(tmp_path / "s", "suite.json")
    assert {name: each["context"]["n"] for name, each in results["sets"].items()} == {
        "hotpot": 4,
        "cities": 6,
    }
    assert results["sets"]["cities"] == read(tmp_path / "s" / "cities")
    assert results["published"]["cities"] == []
    figures = results["published"]["hotpot"]
    assert all("split not stated" in figure["setting"] for figure in figures)
    assert all("read on 2026" in figure["source"] for figure in figures)
    assert [f["model"] for f in figures if "trained on" in f["setting"]] == ["trained Qwen2.5-7B"]
    report = (tmp_path / "s" / "suite.md").read_text()
    for words in ("hotpot, rsearch", "pass@2", "R1-Searcher", "FlashRAG", "hotpot: judge"):
        assert words in first.stdout and words in report, words

    def never(body):
        raise AssertionError("a finished set was asked again")

    monkeypatch.setattr(server, "grade", never)
    monkeypatch.setattr(open_evaluation, "_check_keys", never)  # those of model and judge
    opened = []
    open_sources = open_evaluation.open_sources

    def count(search, *rest, **options):
        opened.append(search)
        return open_sources(search, *rest, **options)

    monkeypatch.setattr(open_evaluation, "open_sources", count)
    again = run_suite(*arguments, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == results
    assert len(opened) == 3, "both sets search the same corpus: one check, two runs"
    # The second set has become another one; the first one would have to be evaluated.
    monkeypatch.setattr(open_evaluation, "_check_keys", lambda recipe: None)
    suite = tmp_path / "suite.yaml"
    suite.write_text(suite.read_text().replace("evaluate.limit: 6", "evaluate.limit: 5"))
    (tmp_path / "s" / "hotpot" / "evaluation.json").unlink()
    refused = run_suite(*arguments)
    assert refused.exit_code == 70 and "contains an evaluation with limit = 6" in refused.stderr


def test_a_flaw_in_a_suite_is_found_before_its_first_set_runs(
    server, run_suite, tmp_path, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY")
    asked = len(server.requests)
    suite = tmp_path / "suite.yaml"
    arguments = ("--suite", suite, "--output-dir", tmp_path / "s")
    both = run_suite(*arguments, "--data-path", tmp_path / "cities.jsonl")
    assert both.exit_code == 2 and "name the files of a suite in --suite" in both.stderr
    good = suite.read_text()
    file = tmp_path / "cities.jsonl"
    third = f"{good}third: {{questions.source: custom, questions.path: {file}, "
    news = "protocol.sources.News: reports, search.sources.News.type"
    for flaw, code, message in (
        (good + "third: {search.topk: 3}\n", 12, "search.topk"),
        (good + "third: {questions.source: nosuch}\n", 13, "unknown question set 'nosuch'"),
        (good + "third: {questions.path: gone.jsonl}\n", 21, "gone.jsonl does not exist"),
        (third + f"{news}: bm25}}\n", 20, "has no corpus"),
        (third + f"{news}: exa}}\n", 41, "EXA_API_KEY"),
        (third + "evaluate.split: dve}\n", 20, "has no split 'dve'"),
        (third + "evaluate.split: all, reward.answer: judge}\n", 41, "OPENAI_API_KEY"),
        ("a: [", 10, "not valid YAML"),
        ("", 2, "names no question sets"),
        ("a/b: {seed: 1}\n", 2, "cannot name a folder"),
        ("a: 3\n", 2, "needs settings"),
    ):
        suite.write_text(flaw)
        refused = run_suite(*arguments)
        assert (refused.exit_code, message in refused.stderr) == (code, True), refused.output
    suite.unlink()
    assert run_suite(*arguments).exit_code == 21
    assert not (tmp_path / "s").exists() and len(server.requests) == asked


def test_a_dead_server_stops_the_evaluation_and_what_was_answered_is_kept(
    server, ask_server, tmp_path
):
    arguments = ["--batch-size", "5", "--set", "policy.endpoint.service.retries=0"]
    arguments += ["--output-dir", tmp_path / "e"]
    asked = 0

    def break_down(body):
        nonlocal asked
        asked += 1
        if asked > 11:  # the first only tries the server out, ten answer five questions
            server.faults = Faults([Fault.SERVER_ERROR])
        return write_as_agent(body)

    server.grade = break_down
    stopped = ask_server(*arguments)
    server.grade, server.faults = write_as_agent, Faults()
    assert stopped.exit_code == 81, stopped.output
    assert "answers of the evaluation failed" in stopped.stderr
    assert "run the same command again: the answers so far are kept" in stopped.stderr
    assert not (tmp_path / "e" / "results.json").exists()
    assert len(rows(tmp_path / "e")) == 5
    assert ask_server(*arguments).exit_code == 0
    assert read(tmp_path / "e")["methods"]["rsearch"]["em"] == pytest.approx(14 / 20)


def test_a_spent_budget_stops_the_evaluation_and_a_larger_one_goes_on(ask_server, tmp_path):
    arguments = ["--batch-size", "5", "--output-dir", tmp_path / "e"]
    arguments += ["--set", "policy.endpoint.usd_per_million_input_tokens=1"]
    stopped = ask_server(*arguments, "--set", "budget.max_usd=0.012")
    assert stopped.exit_code == 80, stopped.output
    assert "to continue, raise budget.max_usd and start again" in stopped.stderr
    stored = len(rows(tmp_path / "e"))
    assert 0 < stored < 20 and stored % 5 == 0
    assert ask_server(*arguments, "--set", "budget.max_usd=1").exit_code == 0
    results = read(tmp_path / "e")
    block, spend = results["methods"]["rsearch"], results["spend"]["policy"]
    assert 0 < block["latency_seconds"]["p50"] <= block["latency_seconds"]["p95"]
    assert block["seconds_per_question"] is None
    assert block["em"] == pytest.approx(14 / 20)
    assert 0.0 < block["usd"] <= spend["usd"] < 1.0


def test_compare_shows_differences_and_flips(nano, tmp_path):
    folder = nano[0]
    printed = call("compare", f"{folder}:direct", f"{folder}:rsearch")
    assert printed.exit_code == 0, printed.output
    assert f"{folder}:direct (A) and" in " ".join(printed.stdout.split())
    assert "McNemar" in printed.stdout
    told = call("compare", folder, folder, "--json")
    compared = json.loads(told.stdout)
    assert [m["first"] for m in compared["methods"]] == [
        f"{folder}:{name}" for name in ("rsearch", "rag", "direct")
    ]
    assert all(m["metrics"]["em"]["p"] == 1.0 for m in compared["methods"])
    assert compared["settings"] == []


def test_compare_names_the_settings_that_differ(ask_server, tmp_path):
    for name, settings in (("a", []), ("b", ["--set", "search.passage_chars=200"])):
        assert ask_server(*settings, "--output-dir", tmp_path / name).exit_code == 0
    printed = call("compare", tmp_path / "a", tmp_path / "b")
    assert "differs: recipe.search.passage_chars: 300 and 200" in printed.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method", "rsearch,rags"], 2, "got 'rags'"),
        (["--endpoint-model", "m"], 2, "names a model on a server; give --endpoint URL too"),
        (["--recipe", "quikstart"], 11, "quickstart"),
        (["--set", "search.topk=3"], 12, "search.top_k"),
        (
            ["--data-path", "{tmp}/bad.jsonl", "--set", "questions.source=world"],
            13,
            "questions.source is world, which reads no file",
        ),
        (["--data-path", "{tmp}/bad.jsonl"], 22, "bad.jsonl, line 1"),
        (["--data-path", "{tmp}/good.jsonl"], 20, "good.jsonl has no corpus; set search.so"),
        (["--data-path", "{tmp}/none.jsonl", "--recipe", "hotpot-offline"], 21, "none.jsonl"),
        (["--data-path", "{tmp}/bad.jsonl", "--recipe", "hotpot-offline"], 22, "line 1"),
        (["--split", "dev"], 20, "no split 'dev'; it has"),
        (["--model", "{tmp}"], 60, "is not a run"),
        (["--model", "./no-such-model"], 60, "the folder ./no-such-model does not exist"),
        (["--output-dir", "/proc/e"], 71, "/proc/e cannot be written"),
        (["--output-dir", "n" * 300], 71, "cannot be written: File name too long; choose another"),
        (["--output-dir", "{tmp}"], 72, "and no evaluation; choose"),
        (["compare", "{tmp}", "{tmp}"], 70, "contains no evaluation"),
        (["compare", "{nano}:rag", "{tmp}"], 70, "contains no evaluation"),
    ],
)
def test_bad_input_is_one_clear_line_with_a_code_of_its_own(
    nano, tmp_path, arguments, code, message
):
    (tmp_path / "bad.jsonl").write_text('{"id": "1", "question": "a?", "answer": ""}\n')
    (tmp_path / "good.jsonl").write_text('{"id": "1", "question": "a?", "answer": "b"}\n')
    arguments = [
        a.replace("{tmp}", str(tmp_path)).replace("{nano}", str(nano[0])) for a in arguments
    ]
    defaults = [] if arguments[0] == "compare" else ["--output-dir", str(tmp_path / "e")]
    result = call(*defaults, *arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "e").exists()
