"""What a push lets out of the machine: nothing but the run's own files, whole and loadable."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hub import HubServer
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.recipe.loading import dump_recipe, load_recipe
from rsearch_cli.recipe.trust import remember_own

REPO = "me/agent"
PRIVATE = "nobody else may read this, and no scanner knows what it looks like\n"


def push(run: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["push", str(run), "--hub-model-id", REPO, *options])


def assert_refused(result: Result, server: HubServer, *words: str) -> None:
    assert result.exit_code == 98, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("rsearch: ")
    for word in words:
        assert word in line
    assert not [path for method, path in server.requests if method in ("POST", "PUT")]


@pytest.fixture
def private(tmp_path: Path) -> Path:
    file = tmp_path / "elsewhere" / "id_private"
    file.parent.mkdir()
    file.write_text(PRIVATE)
    return file


def symbolic(path: Path, private: Path) -> None:
    path.symlink_to(private)


def hard(path: Path, private: Path) -> None:
    path.hardlink_to(private)


def fifo(path: Path, private: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("put", [symbolic, hard, fifo])
@pytest.mark.parametrize(
    "name", ["merges.txt", "vocab.json", "tokenizer.json", "adapter_model.safetensors"]
)
def test_no_file_from_outside_of_the_run_is_pushed(
    hub_server: HubServer,
    run: Path,
    private: Path,
    name: str,
    put: Callable[[Path, Path], None],
) -> None:
    path = run / "adapter" / name
    path.unlink(missing_ok=True)
    put(path, private)
    result = push(run, "--dry-run")
    assert_refused(result, hub_server, name)
    staged = [p for p in (run / "push").rglob("*") if p.is_file()]
    assert not [p for p in staged if PRIVATE.encode() in p.read_bytes()]


def test_no_other_file_of_the_run_is_pushed_under_the_name_of_a_vocabulary(
    hub_server: HubServer, run: Path
) -> None:
    (run / "adapter" / "merges.txt").symlink_to("../trajectories.jsonl")
    assert_refused(push(run, "--dry-run"), hub_server, "merges.txt is a link")


@pytest.mark.parametrize("whole", [False, True], ids=["its weights", "all of it"])
def test_an_adapter_that_is_a_link_is_not_pushed(
    hub_server: HubServer, run: Path, tmp_path: Path, whole: bool
) -> None:
    moved = tmp_path / "elsewhere"
    if whole:
        shutil.move(run / "adapter", moved)
        (run / "adapter").symlink_to(moved)
    else:
        shutil.move(run / "adapter" / "adapter_model.safetensors", moved)
        (run / "adapter" / "adapter_model.safetensors").symlink_to(moved)
    assert_refused(push(run), hub_server, "adapter")


def test_a_push_folder_that_leads_elsewhere_empties_nothing(
    hub_server: HubServer, run: Path, private: Path
) -> None:
    (run / "push").symlink_to(private.parent)
    assert_refused(push(run, "--dry-run"), hub_server, "push is a link to")
    assert private.read_text() == PRIVATE


def test_a_file_of_absurd_size_is_not_copied(hub_server: HubServer, run: Path) -> None:
    with (run / "adapter" / "merges.txt").open("wb") as file:
        file.truncate(1 << 40)
    with no_larger_files_than(1 << 30):
        result = push(run)
    assert_refused(result, hub_server, "merges.txt has 1,099,511,627,776 bytes")


@contextmanager
def no_larger_files_than(size: int) -> Iterator[None]:
    """Keep a copy that nothing stops from filling the disk."""
    resource = pytest.importorskip("resource", reason="POSIX only")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("what", ["adapter", "merged"])
def test_files_that_nobody_asked_for_stay_where_they_are(
    hub_server: HubServer, run: Path, what: str
) -> None:
    for name in (".env", "notes.txt", "secret.json", "optimizer.pt", "evil.py", "model.py"):
        (run / "adapter" / name).write_text("x")
    result = push(run, "--what", what, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    names = {Path(name).name for name in json.loads(result.stdout)["files"]}
    assert not names & {".env", "notes.txt", "secret.json", "optimizer.pt", "evil.py", "model.py"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def pickled(path: Path) -> None:
    path.write_bytes(b"\x80\x04K\x01.")


def change(path: Path, edit: Callable[[dict], dict]) -> None:
    from safetensors.torch import load_file, save_file

    save_file(edit(load_file(path)), path)


def lose_a_weight(path: Path) -> None:
    change(path, lambda weights: dict(list(weights.items())[1:]))


def lose_a_module(path: Path) -> None:
    change(path, lambda w: {k: v for k, v in w.items() if ".layers.3." not in k})


def not_a_number(path: Path) -> None:
    change(path, lambda weights: {k: v * float("nan") for k, v in weights.items()})


def of_another_model(path: Path) -> None:
    change(path, lambda weights: {k: v.new_ones([s * 2 if s > 16 else s for s in v.shape])
                                  for k, v in weights.items()})  # fmt: skip


@pytest.mark.parametrize("what", ["adapter", "merged"])
@pytest.mark.parametrize(
    "damage",
    [cut, empty, pointer, append, pickled, lose_a_weight, lose_a_module, not_a_number,
     of_another_model],
)  # fmt: skip
def test_a_broken_adapter_is_not_published(
    hub_server: HubServer, run: Path, damage: Callable[[Path], None], what: str
) -> None:
    damage(run / "adapter" / "adapter_model.safetensors")
    result = push(run, "--what", what)
    assert_refused(result, hub_server, "adapter")
    assert "Traceback" not in result.output and "unexpected" not in result.output


def test_settings_of_an_adapter_that_run_code_are_not_passed_on(
    hub_server: HubServer, run: Path
) -> None:
    path = run / "adapter" / "adapter_config.json"
    evil = {
        "auto_mapping": {"parent_library": "os"},
        "megatron_core": "os",
        "internal": "acme-host",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | evil))
    result = push(run, "--dry-run")
    assert result.exit_code == 0, result.output
    staged = (run / "push" / "adapter" / "adapter_config.json").read_text()
    assert not [key for key in evil if key in staged]


def test_a_foreign_run_does_not_choose_its_repository(
    hub_server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = run / "recipe.yaml"
    theirs = load_recipe(str(recipe), (), {"hub.model_id": "me/elsewhere"}, trusted=True).recipe
    recipe.write_text(dump_recipe(theirs))
    result = CliRunner().invoke(app, ["push", str(run)])
    assert result.exit_code == 10, result.output
    assert 'hub.model_id="me/elsewhere"' in result.stderr.splitlines()[-1]
    assert hub_server.requests == []
    assert push(run, "--dry-run").exit_code == 0, "the user has said where to"
    remember_own(recipe.read_text())
    assert CliRunner().invoke(app, ["push", str(run)]).exit_code == 0
    assert "me/elsewhere" in hub_server.repos


@pytest.mark.parametrize("spelt", ["{path}", "models/private", "builtin:{path}", "builtin:../{up}"])
def test_a_sent_run_publishes_no_other_model_of_this_machine(
    spelt: str, hub_server: HubServer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged with an adapter without effect it would be the private model itself."""
    from rsearch_cli.policy.resolve import BUILTIN_FOLDER, locate_model

    monkeypatch.chdir(tmp_path)
    private = shutil.copytree(locate_model("builtin:nano"), tmp_path / "models" / "private")
    spelt = spelt.format(path=private, up=os.path.relpath(private, BUILTIN_FOLDER.parent))
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("builtin:nano", spelt))
    result = push(run, "--what", "merged")
    assert result.exit_code == 10, result.output
    assert "policy.model=" in result.stderr.splitlines()[-1]
    assert hub_server.requests == []


@pytest.mark.parametrize("link", ["base", "base/merges.txt"])
def test_a_base_that_goes_along_brings_no_file_from_elsewhere(
    link: str, hub_server: HubServer, run: Path, private: Path, tmp_path: Path
) -> None:
    """The base of an agent that somebody sent as a folder, trained further here."""
    from rsearch_cli.policy.resolve import locate_model

    sent = tmp_path / "sent"
    shutil.copytree(locate_model("builtin:nano"), sent / "base")
    shutil.copytree(run / "adapter", sent / "adapter")
    if link == "base":
        private = (sent / link).rename(tmp_path / "elsewhere" / "model")
    (sent / link).symlink_to(private)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("builtin:nano", str(sent)))
    remember_own(recipe.read_text())
    assert_refused(push(run), hub_server, f"{link} links to a place outside")


def test_a_base_in_the_cache_of_the_hub_goes_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its files are links out of the snapshot, to the blobs of the same repository."""
    from huggingface_hub import constants

    from rsearch_cli.errors import PublishUnsafe
    from rsearch_cli.publishing.allowed_files import stage_base

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    blob = tmp_path / "models--a--b" / "blobs" / "123"
    base = tmp_path / "models--a--b" / "snapshots" / "r" / "base"
    for folder in (blob.parent, base, tmp_path / "out"):
        folder.mkdir(parents=True)
    blob.write_text("{}")
    (base / "config.json").symlink_to(blob)
    stage_base(base, tmp_path / "out" / "base")
    assert (tmp_path / "out" / "base" / "config.json").read_text() == "{}"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(PublishUnsafe, match="links to a place outside"):
        stage_base(base, tmp_path / "out" / "again")
