"""Environments that real machines have: encodings, no home folder, read-only caches, proxies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from exa import API_KEY, ExaServer
from loaded_process import READ_AT_START, run_loaded
from socks import SocksProxy
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.services.cache import AnswerCache, make_key

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = [
    part
    for setting in (
        "questions.world.train_regions=2",
        "questions.world.held_out_regions=1",
        "policy.backend=transformers",
    )
    for part in ("--set", setting)
]
NOBODY = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]


def rsearch(*arguments: object, before: list[str] | None = None, **variables: str | None):
    """Run `rsearch` with some variables set, or (None) not set."""
    environment = {**os.environ, **{k: v for k, v in variables.items() if v is not None}}
    for name, value in variables.items():
        if value is None:
            environment.pop(name, None)
    command = [sys.executable, "-m", "rsearch_cli", *map(str, arguments)]
    if not before and not any(name.startswith(READ_AT_START) for name in variables):
        return run_loaded(command, env=environment)
    command = [*(before or ()), *command]
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def nobody() -> list[str]:
    """A command prefix that runs under a user id without an entry, and without root's rights."""
    try:
        subprocess.run([*NOBODY, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no user namespace can be had here: {error}")
    return NOBODY


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The options of a finished evaluation whose texts most encodings lack."""
    folder = tmp_path_factory.mktemp("evaluation")
    rows = [
        {"id": f"q{n}", "question": f"Wer gründete 東京 “{n}” – 👩‍💻?", "answer": f"Žižek → {n}",
         "type": "schöne 類", "level": "mittel…"} for n in range(2)
    ]  # fmt: skip
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "c.jsonl").write_text(
        json.dumps({"id": "1", "title": "東京", "text": "x y z"}) + "\n"
    )
    corpora = [
        part
        for name in ("General", "News", "Academy")
        for part in ("--set", f"search.sources.{name}.corpus={folder / 'c.jsonl'}")
    ]
    options = [
        "--recipe", "quickstart", *SMALL, *corpora, "--set", "questions.source=custom",
        "--set", "questions.difficulty=null", "--data-path", folder / "q.jsonl",
        "--output-dir", folder / "out", "--method", "rsearch,direct",
    ]  # fmt: skip
    result = CliRunner().invoke(app, ["eval", *map(str, options)])
    assert result.exit_code == 0, result.output
    return options


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "cp437"])
def test_a_finished_report_reaches_a_pipe_of_any_encoding(
    evaluation: list[object], encoding: str
) -> None:
    done = rsearch("eval", *evaluation, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    report = done.stdout.decode(encoding)
    assert "Metrics" in report and "questions: 2 of " in report
    assert "sch" in report and "report: " in report
    flips = rsearch(
        "eval", "compare", f"{evaluation[-3]}:rsearch", f"{evaluation[-3]}:direct",
        PYTHONIOENCODING=encoding,
    )  # fmt: skip
    assert flips.returncode == 0, flips.stderr
    told = rsearch("eval", *evaluation, "--json", PYTHONIOENCODING=encoding)
    assert "schöne 類" in json.loads(told.stdout.decode(encoding))["methods"]["rsearch"]["by_type"]
    shown = rsearch("--help", PYTHONIOENCODING=encoding)
    assert shown.returncode == 0 and b"Train, evaluate and use search agents" in shown.stdout


def test_without_a_home_folder_and_a_user_entry_everything_runs(
    nobody: list[str], tmp_path: Path
) -> None:
    missing = dict.fromkeys(("HOME", "USER", "LOGNAME", "RSEARCH_CACHE_DIR", "HF_HOME"))
    done = rsearch(
        "infer", "--recipe", "quickstart", *SMALL, "Who founded Vosbe Press?",
        before=nobody, **missing,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"answer  " in done.stdout
    first = done.stderr.decode().splitlines()[0]
    assert first.startswith(
        "warning: there is no home folder (HOME is not set), so nothing is cached"
    )
    assert not Path("~").exists() and not (REPOSITORY / "~").exists()
    kept = rsearch(
        "cache", "stats", before=nobody, **missing | {"RSEARCH_CACHE_DIR": str(tmp_path)}
    )
    assert (kept.returncode, kept.stderr) == (0, b"")


def test_a_home_folder_that_is_not_there_is_done_without(nobody: list[str]) -> None:
    home = {"HOME": "/proc/none", "USER": None, "LOGNAME": None, "RSEARCH_CACHE_DIR": None}
    done = rsearch(
        "infer", "--recipe", "quickstart", *SMALL, "Who founded Vosbe Press?",
        before=nobody, **home,
    )  # fmt: skip
    assert done.returncode == 0 and b"answer  " in done.stdout, done.stderr
    failed = rsearch("--install-completion", before=nobody, **home)
    assert failed.returncode == 1 and b"unexpected" not in failed.stderr


def test_a_user_that_is_not_there_is_named_as_the_trouble() -> None:
    result = CliRunner().invoke(app, ["infer", "--model", "~no-such-user/x", "who?"])
    assert result.exit_code == 2
    assert "a path starts with ~ and a user that does not exist here" in result.stderr


EXA = [
    part
    for name in ("General", "News", "Academy")
    for part in ("--set", f"search.sources.{name}.type=exa")
]
QUESTION = "Who founded Vosbe Press?"


def ask(
    server: ExaServer, cache: Path, *options: str, before: list[str] | None = None, **variables
):
    arguments = ["infer", "--recipe", "quickstart", *SMALL, *EXA, "--cache-dir", cache, *options]
    known = {"EXA_API_KEY": API_KEY, "EXA_BASE_URL": server.url}
    return rsearch(*arguments, QUESTION, "--json", before=before, **known | variables)


def test_a_cache_that_can_only_be_read_answers_offline(nobody: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with ExaServer() as server:
        first = ask(server, cache)
        assert first.returncode == 0 and server.requests, first.stderr
        paid = len(server.requests)
        files = [cache, *cache.rglob("*")]
        for path in files:
            path.chmod(0o555 if path.is_dir() else 0o444)
        offline = ask(server, cache, "--set", "cache.mode=offline", before=nobody)
        assert offline.returncode == 0, offline.stderr
        assert json.loads(offline.stdout)["plans"][0]["results"][0]["passages"]
        assert b"cannot be used" not in offline.stderr
        online = ask(server, cache, before=nobody)
        assert online.returncode == 0 and len(server.requests) == paid, "it is read online, too"
    shown = rsearch("cache", "stats", "--cache-dir", cache, "--json", before=nobody)
    assert json.loads(shown.stdout)["answers"] >= 1
    exported = rsearch("cache", "export", tmp_path / "e", "--cache-dir", cache, before=nobody)
    assert exported.returncode == 0 and (tmp_path / "e").read_text()
    refused = rsearch("cache", "clear", "--cache-dir", cache, before=nobody)
    assert refused.returncode == 20
    assert b"is read-only; new answers are not stored" in refused.stderr
    for path in files:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with AnswerCache(cache / "answers") as after:
        assert after.stats()["exa"].entries >= 1


def test_new_answers_are_not_kept_in_it_and_one_line_says_so(
    nobody: list[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with AnswerCache(cache / "answers") as made:
        made.put(make_key("exa", query="x"), [])
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with ExaServer() as server:
        done = ask(server, cache, before=nobody)
    assert done.returncode == 0 and server.requests, done.stderr
    assert done.stderr.decode().count("is read-only; new answers are not stored") == 1
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_socks_proxy_is_used(tmp_path: Path) -> None:
    pytest.importorskip("socksio", reason="it comes with httpx[socks]")
    with ExaServer() as server, SocksProxy() as proxy:
        done = ask(server, tmp_path, ALL_PROXY=proxy.url, NO_PROXY=None, no_proxy=None)
        assert done.returncode == 0, done.stderr
        assert server.requests
    assert proxy.asked[0][1] == int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("proxy", ["socks4://me:secret@127.0.0.1:1", "gopher://127.0.0.1:1"])
def test_a_proxy_that_nobody_can_use_is_one_line(tmp_path: Path, proxy: str) -> None:
    with ExaServer() as server:
        done = ask(server, tmp_path, ALL_PROXY=proxy)
        assert not server.requests
    assert done.returncode == 40
    line = done.stderr.decode().splitlines()[-1]
    assert line.startswith("rsearch: the proxy settings of the environment (all_proxy=")
    assert "secret" not in done.stderr.decode() and "http://host:port" in line


def test_without_the_package_for_socks_the_remedy_is_named(tmp_path: Path) -> None:
    (tmp_path / "socksio.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    with ExaServer() as server:
        done = ask(server, tmp_path, ALL_PROXY="socks5://127.0.0.1:1", PYTHONPATH=path)
    assert done.returncode == 40
    assert b"install socksio, which SOCKS needs, or unset them" in done.stderr


def test_an_offline_run_asks_no_proxy(tmp_path: Path) -> None:
    options = ["infer", "--recipe", "quickstart", *SMALL, QUESTION]
    done = rsearch(*options, ALL_PROXY="gopher://127.0.0.1:1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "completed"), [("rsearch inf", "infer"), ("rsearch eval comp", "compare")]
)
def test_the_shell_completes_commands(words: str, completed: str) -> None:
    asked = {
        "_RSEARCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    script = "from rsearch_cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **asked},
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode().split() == [completed]


def test_completion_is_installed_where_the_shell_looks(tmp_path: Path) -> None:
    shell = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else the option takes no value
    done = rsearch("--install-completion", "bash", HOME=str(tmp_path), **shell)
    assert done.returncode == 0, done.stderr
    assert "_RSEARCH_COMPLETE" in (tmp_path / ".bash_completions" / "rsearch.sh").read_text()


@pytest.mark.parametrize("name", ["a/b/c", "me/my agent", "me/..", "-x/y", "me/" + "n" * 100])
def test_a_dry_run_of_a_push_checks_the_id(name: str, finished_run: Path) -> None:
    arguments = ["push", str(finished_run), f"--hub-model-id={name}", "--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 90, result.output
    assert result.stderr.startswith(f"rsearch: {name!r} is not a valid repository id: ")
    assert not (finished_run / "push").exists(), "nothing was staged"


def test_a_working_folder_that_was_removed_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    before = ["sh", "-c", f'cd {folder} && rmdir {folder} && exec "$@"', "sh"]
    done = rsearch("recipes", before=before, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 2
    assert done.stderr == (
        b"rsearch: the working folder does not exist any more; change to another one\n"
    )
