"""`rsearch push` against a local server that speaks the Hub's API to the real client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub import TOKEN, HubServer
from typer.testing import CliRunner

from rsearch_cli.app import app

REPO = "me/agent"


@pytest.fixture
def server(hub_server: HubServer) -> HubServer:
    return hub_server


def push(run: Path, *options: str):
    return CliRunner().invoke(app, ["push", str(run), "--hub-model-id", REPO, *options])


def published(server: HubServer, revision: str = "main") -> dict[str, bytes]:
    files = dict(server.repos[REPO].files(revision))
    del files[".gitattributes"]
    return files


def test_what_is_downloaded_is_what_was_pushed(server, run, tmp_path):
    from huggingface_hub import snapshot_download

    shown = push(run, "--dry-run", "--json")
    assert shown.exit_code == 0, shown.output
    assert server.requests == []
    staged = {
        path.relative_to(run / "push").as_posix(): path.read_bytes()
        for path in (run / "push").rglob("*")
        if path.is_file()
    }
    result = push(run, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["url"] == f"{server.url}/{REPO}"
    assert published(server) == staged
    assert report["files"] == {name: len(data) for name, data in staged.items()}
    folder = Path(snapshot_download(REPO))
    assert {name: (folder / name).read_bytes() for name in staged} == staged
    assert not (run / "push").exists()


def test_a_push_repeated_changes_nothing(server, run):
    assert push(run).exit_code == 0
    commits, uploads = len(server.repos[REPO].commits), list(server.uploads)
    assert push(run).exit_code == 0
    assert len(server.repos[REPO].commits) == commits
    assert server.uploads == uploads
    assert len(uploads) == len(set(uploads))


@pytest.mark.parametrize("after", range(3))
def test_a_push_cut_off_midway_leaves_no_half_repository(server, run, after):
    """The connection breaks in the uploads, and before the commit; then all is well again."""
    arrived = []

    def fault(method: str, path: str) -> str | None:
        if method == "PUT":
            arrived.append(path)
        broken = len(set(arrived)) > after or (after == 2 and "/commit/" in path)
        return "cut" if broken and ("/lfs/" in path or "/commit/" in path) else None

    server.fault = fault
    result = push(run)
    assert result.exit_code == 95
    assert published(server) == {}
    assert (run / "adapter" / "adapter_model.safetensors").exists()
    done = list(server.uploads)
    server.fault = lambda method, path: None
    assert push(run).exit_code == 0
    assert server.uploads[: len(done)] == done
    assert len(server.uploads) == len(set(server.uploads)) == 3
    assert len(server.repos[REPO].commits) == 2
    assert "adapter/adapter_model.safetensors" in published(server)


def test_a_commit_whose_answer_was_lost_is_not_made_twice(server, run):
    server.fault = lambda method, path: "lose" if "/commit/" in path else None
    assert push(run).exit_code == 95
    server.fault = lambda method, path: None
    assert push(run).exit_code == 0
    assert len(server.repos[REPO].commits) == 2


def test_a_pull_request_is_opened_once(server, run):
    assert push(run, "--create-pr").stdout.endswith(f"pushed: {server.url}/{REPO}/discussions/1\n")
    assert published(server) == {}
    pulled = published(server, "refs/pr/1")
    assert push(run, "--create-pr").stdout.endswith("/discussions/1\n")
    assert len(server.repos[REPO].pulls) == 1
    assert published(server, "refs/pr/1") == pulled


def test_a_branch_is_made_and_main_left_alone(server, run):
    assert push(run, "--revision", "v1").exit_code == 0
    assert published(server) == {}
    assert "README.md" in published(server, "v1")
    assert push(run, "--revision", "v1").exit_code == 0


def test_a_private_repository_stays_private(server, run):
    assert push(run, "--private").exit_code == 0
    assert server.repos[REPO].private
    server.repos[REPO].private = False
    result = push(run, "--private")
    assert result.exit_code == 93
    assert "already exists and is public" in result.stderr


def test_files_of_an_earlier_push_go_and_foreign_ones_stay(server, run):
    assert push(run, "--what", "adapter,merged").exit_code == 0
    repo = server.repos[REPO]
    assert {"adapter/adapter_config.json", "model.safetensors"} <= published(server).keys()
    repo.commit("main", {**repo.files(), "notes.txt": b"mine"})
    assert push(run).exit_code == 0
    files = published(server)
    assert files["notes.txt"] == b"mine"
    assert "adapter/adapter_config.json" in files
    assert not {"config.json", "model.safetensors"} & files.keys()


def test_weights_of_somebody_else_are_not_overwritten(server, run):
    assert push(run).exit_code == 0
    server.repos[REPO].commit("main", {"model.safetensors": b"other"})
    result = push(run)
    assert result.exit_code == 93
    assert "already contains weights that rsearch did not push, such as model.safetensors" in (
        result.stderr
    )
    assert push(run, "--create-pr").exit_code == 0


FAILURES = [
    (401, 91, "the token is invalid or expired"),
    (403, 92, "the token needs write access to this repository"),
    (409, 93, "the repository was changed at the same time, push again"),
    (429, 94, "push again in a few minutes"),
    (500, 90, "the Hub answered 500"),
    ("cut", 95, "the connection to the Hub failed while"),
]
PLACES = ["whoami", "repos/create", "preupload", "/batch", "/commit/"]


@pytest.mark.parametrize(
    ("where", "status", "code", "words"),
    [
        (where, *failure)
        for where in PLACES
        for failure in FAILURES
        if (where, failure[0]) != ("repos/create", 409)  # there, it is there already
    ],
)
def test_each_failure_is_one_clear_line(server, run, where, status, code, words):
    server.fault = lambda method, path: status if where in path else None
    result = push(run)
    line = result.stderr.strip().splitlines()[-1]
    assert result.exit_code == code, result.stderr
    assert line.startswith("rsearch: ")
    assert words in line
    assert TOKEN not in result.output
    assert REPO not in server.repos or published(server) == {}


def test_another_account_s_repository_is_refused(server, run):
    result = push(run, "--hub-model-id", "somebody/agent")
    assert result.exit_code == 92
    assert "You don't have the rights to create a model under somebody" in result.stderr


def test_a_missing_token_is_reported_before_any_request(server, run, monkeypatch):
    from rsearch_cli.publishing import upload

    monkeypatch.setattr(upload, "find_token", lambda: None)
    result = push(run)
    assert result.exit_code == 91
    assert "no Hub token found; set HF_TOKEN" in result.stderr
    assert server.requests == []


def test_a_token_in_a_file_is_never_uploaded(server, run):
    (run / "adapter" / "chat_template.jinja").write_text("{# " + TOKEN + " #}")
    result = push(run)
    assert result.exit_code == 98
    assert "chat_template.jinja contains the value of HF_TOKEN" in result.stderr
    assert TOKEN not in result.output
    assert REPO not in server.repos


def test_an_impossible_name_is_refused_at_once(server, run):
    result = push(run, "--hub-model-id", "me/my..agent")
    assert result.exit_code == 90
    assert "'me/my..agent' is not a valid repository id" in result.stderr
